/** One run of `twinvol bench` on one target, with its progress shown, and what its result means for the exit status. */
import { runBenchmark } from '../../bench/benchmark.ts';
import type { RunResult } from '../../bench/measurement.ts';
import type { Placement, Workload } from '../../bench/workload.ts';
import type { NbdClient } from '../../nbd-client/nbd-client.ts';
import type { CommandContext } from '../command-context.ts';
import type { BenchProgress } from './bench-progress.ts';
import type { BenchTarget } from './bench-target.ts';

export type Prepared = {
  readonly workload: Workload;
  readonly timing: Pick<Placement, 'runtimeMs' | 'warmupMs' | 'seed'>;
  readonly verify: boolean;
  readonly progress: BenchProgress;
};

/**
 * @param first the target's own connection for its first run; null for the later ones, which connect anew
 * @throws TwinvolError, as `runBenchmark` does
 */
export const runOn = async (
  context: CommandContext,
  { uri, where }: BenchTarget,
  { workload, timing, verify, progress }: Prepared,
  first: NbdClient | null,
): Promise<RunResult> => {
  try {
    return await runBenchmark(
      { uri, workload, placement: { ...where, ...timing }, verify, first },
      { signal: context.io.interrupted, onProgress: (told) => progress.show(told) },
    );
  } finally {
    progress.end();
  }
};

export const hasFailed = ({ total, broken, unanswered, interrupted, verification }: RunResult): boolean =>
  total.errors > 0 ||
  broken !== null ||
  (unanswered > 0 && !interrupted) ||
  (verification !== null && (verification.mismatches > 0 || (!verification.complete && !interrupted)));
