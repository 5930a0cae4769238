/**
 * Two exports side by side: the same workload on either, in turns, and the medians. In turns, because a machine is not
 * as fast in one minute as in the next; medians, because one disturbed run must not decide.
 *
 * A run that was cut short, by the user or by a lost connection, is kept but is in no median; where a side has no
 * complete run there is no ratio either.
 */
import type { OperationResult, RunResult } from './measurement.ts';

export type ComparedTarget = {
  readonly uri: string;
  readonly sizeBytes: number;
  /** Of the range, before the first run; null where the server does not say. */
  readonly dataShare: number | null;
  readonly runs: readonly RunResult[];
};

export type ComparedRuns = ComparedTarget & {
  /** How many runs the medians are over. */
  readonly completeRuns: number;
  /** Medians over the complete runs, each by itself; null without one. */
  readonly iops: number | null;
  readonly bytesPerSecond: number | null;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly p999Ms: number | null;
  /** Of all runs. */
  readonly errors: number;
};

/** Why there were fewer rounds than asked for. */
export type Stop = { readonly target: 'A' | 'B'; readonly round: number; readonly reason: string };

export type Ending = {
  readonly stopped: Stop | null;
  readonly interrupted: boolean;
  /** They differ in size, and ran on the part that both have. */
  readonly isCommonPart: boolean;
};

export type Comparison = Ending & {
  readonly first: ComparedRuns;
  readonly second: ComparedRuns;
  /** First over second, so above 1 means that the first has more (of latency too); null where the second has 0. */
  readonly ratio: {
    readonly iops: number | null;
    readonly bytesPerSecond: number | null;
    readonly p50: number | null;
    readonly p99: number | null;
    readonly p999: number | null;
  } | null;
};

/** The middle one, or the mean of the two in the middle; 0 of none. */
export const medianOf = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
};

export const isCompleteRun = ({ isMeasured, interrupted, broken }: RunResult): boolean => isMeasured && !interrupted && broken === null;

const summary = (target: ComparedTarget): ComparedRuns => {
  const complete = target.runs.filter(isCompleteRun);
  const median = (pick: (total: OperationResult) => number): number | null =>
    complete.length === 0 ? null : medianOf(complete.map(({ total }) => pick(total)));
  return {
    ...target,
    completeRuns: complete.length,
    iops: median((total) => total.iops),
    bytesPerSecond: median((total) => total.bytesPerSecond),
    p50Ms: median((total) => total.latencyMs.p50),
    p99Ms: median((total) => total.latencyMs.p99),
    p999Ms: median((total) => total.latencyMs.p999),
    errors: target.runs.reduce((sum, { total }) => sum + total.errors, 0),
  };
};

const over = (first: number | null, second: number | null): number | null =>
  first === null || second === null || second === 0 ? null : first / second;

export const compareRuns = (firstRuns: ComparedTarget, secondRuns: ComparedTarget, ending: Ending): Comparison => {
  const [first, second] = [summary(firstRuns), summary(secondRuns)];
  const ratio = {
    iops: over(first.iops, second.iops),
    bytesPerSecond: over(first.bytesPerSecond, second.bytesPerSecond),
    p50: over(first.p50Ms, second.p50Ms),
    p99: over(first.p99Ms, second.p99Ms),
    p999: over(first.p999Ms, second.p999Ms),
  };
  const hasBoth = first.completeRuns > 0 && second.completeRuns > 0;
  return { ...ending, first, second, ratio: hasBoth ? ratio : null };
};
