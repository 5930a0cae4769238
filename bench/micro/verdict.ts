/**
 * Whether the current tree has lost speed against the baseline, decided from rounds measured in turns. Pure.
 *
 * The ratio is taken within a round, where the two measurements are a moment apart, and the median of the ratios decides:
 * a machine that is slower for a second slows both sides of a round. A loss counts only when every attempt shows it,
 * each with new processes: a disturbance passes, a real loss stays.
 */
import { medianOf } from '../../src/bench/comparison.ts';

export type Round = { readonly baselineNs: number; readonly currentNs: number };

/** How much longer an operation takes than in the baseline: 0.25 is a quarter longer, negative is faster. */
export const lossOf = (rounds: readonly Round[]): number =>
  rounds.length === 0 ? 0 : medianOf(rounds.map(({ baselineNs, currentNs }) => currentNs / baselineNs)) - 1;

/** @param attempts rounds of each attempt; at least one */
export const isLost = (attempts: ReadonlyArray<readonly Round[]>, lossMax: number): boolean =>
  attempts.length > 0 && attempts.every((rounds) => lossOf(rounds) > lossMax);

export type CaseName = { readonly name: string; readonly version: number };
export type Matched = {
  /** In both trees, in the same version. */
  readonly compared: readonly string[];
  /** Why the others are not compared, a line each. */
  readonly left: readonly string[];
};

export const matchCases = (baseline: readonly CaseName[], current: readonly CaseName[]): Matched => {
  const compared: string[] = [];
  const left: string[] = [];
  for (const { name, version } of current) {
    const before = baseline.find((one) => one.name === name);
    if (before === undefined) left.push(`new: ${name}`);
    else if (before.version !== version) left.push(`measures something else since version ${version}: ${name}`);
    else compared.push(name);
  }
  for (const { name } of baseline) if (!current.some((one) => one.name === name)) left.push(`gone: ${name}`);
  return { compared, left };
};
