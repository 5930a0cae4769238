/** Measures one case with tinybench: the median of its runs, as nanoseconds for one operation. */
import { Bench } from 'tinybench';
import { CONTROL_CASES } from './control-cases.ts';
import { DATA_CASES } from './data-cases.ts';
import type { MicroCase } from './micro-case.ts';

export const CASES: readonly MicroCase[] = [...DATA_CASES, ...CONTROL_CASES];

export type Measured = {
  readonly name: string;
  readonly version: number;
  /** Median. */
  readonly nsPerOperation: number;
  /** Median absolute deviation of the runs, as a share of the median. */
  readonly spread: number;
  readonly runs: number;
};

const prepared = new Map<string, (() => void) | (() => Promise<void>)>();

const functionOf = async (one: MicroCase): Promise<(() => void) | (() => Promise<void>)> => {
  const known = prepared.get(one.name);
  if (known !== undefined) return known;
  const made = await one.prepare();
  prepared.set(one.name, made);
  return made;
};

/** @param timeMs how long to measure; a third of it warms up before */
export const measure = async (one: MicroCase, timeMs: number): Promise<Measured> => {
  const bench = new Bench({ time: timeMs, iterations: 10, warmupTime: timeMs / 3, warmupIterations: 5, throws: true });
  bench.add(one.name, await functionOf(one));
  const [task] = await bench.run();
  const result = task?.result;
  if (result === undefined || !('latency' in result)) throw new Error(`${one.name} was not measured`);
  const { p50, mad, samplesCount } = result.latency;
  return {
    name: one.name,
    version: one.version,
    nsPerOperation: (p50 * 1e6) / one.operations,
    spread: p50 === 0 ? 0 : mad / p50,
    runs: samplesCount,
  };
};
