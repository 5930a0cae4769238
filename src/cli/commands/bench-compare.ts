/**
 * `twinvol bench A --compare B`: rounds of a run on either. What was measured is worth minutes, so whatever ends the
 * rounds early, the comparison of the runs until then is printed.
 */
import { compareRuns, isCompleteRun, type Stop } from '../../bench/comparison.ts';
import { dataShare } from '../../bench/data-share.ts';
import type { RunResult } from '../../bench/measurement.ts';
import { EXIT, TwinvolError } from '../../core/faults.ts';
import type { CommandContext } from '../command-context.ts';
import { comparisonText } from './bench-compare-report.ts';
import { hasFailed, type Prepared, runOn } from './bench-run.ts';
import type { BenchTarget } from './bench-target.ts';

type Side = { readonly name: 'A' | 'B'; readonly target: BenchTarget; readonly runs: RunResult[]; readonly dataShare: number | null };

const sideOf = async (name: Side['name'], target: BenchTarget): Promise<Side> => {
  return { name, target, runs: [], dataShare: await dataShare(target.client, target.where.offset, target.where.length) };
};

/** The part that both have, where they differ in size: a smaller range may be quicker, and random offsets hit a cache more often. */
export const commonPart = (first: BenchTarget, second: BenchTarget): readonly [BenchTarget, BenchTarget, boolean] => {
  const length = Math.min(first.where.length, second.where.length);
  const cut = (target: BenchTarget): BenchTarget => ({ ...target, where: { ...target.where, length } });
  return [cut(first), cut(second), first.where.length !== second.where.length];
};

/**
 * @returns why the rounds ended before all were done; null also when the user ended them
 * @throws TwinvolError `NBD_UNREACHABLE`, `CANCELLED` and others as long as a side has no run at all
 */
const runRounds = async (context: CommandContext, sides: readonly Side[], rounds: number, prepared: Prepared): Promise<Stop | null> => {
  const { interrupted } = context.io;
  for (let round = 1; round <= rounds; round += 1) {
    for (const { name, target, runs } of sides) {
      if (interrupted.aborted) return null;
      prepared.progress.begin(`round ${round} of ${rounds}, ${name}: `);
      try {
        const result = await runOn(context, target, prepared, round === 1 ? target.client : null);
        runs.push(result);
        if (result.broken !== null) return { target: name, round, reason: `the connection was lost: ${result.broken}` };
      } catch (error) {
        if (!(error instanceof TwinvolError)) throw error;
        if (interrupted.aborted && sides.some((side) => side.runs.length > 0)) return null;
        if (!sides.every((side) => side.runs.some(isCompleteRun))) throw error;
        return { target: name, round, reason: error.message };
      }
    }
  }
  return null;
};

export const benchBoth = async (
  context: CommandContext,
  targets: readonly [BenchTarget, BenchTarget],
  { rounds, isCommonPart }: { readonly rounds: number; readonly isCommonPart: boolean },
  prepared: Prepared,
): Promise<void> => {
  const [first, second] = [await sideOf('A', targets[0]), await sideOf('B', targets[1])];
  const stopped = await runRounds(context, [first, second], rounds, prepared);
  const told = ({ target, runs, dataShare: share }: Side) => ({
    uri: target.uri,
    sizeBytes: target.limits.sizeBytes,
    dataShare: share,
    runs,
  });
  const ending = { stopped, interrupted: context.io.interrupted.aborted, isCommonPart };
  const comparison = compareRuns(told(first), told(second), ending);
  context.print(comparison, () => comparisonText(comparison, context.paint));
  if (stopped !== null || [...first.runs, ...second.runs].some(hasFailed)) context.exitStatus = EXIT.broken;
};
