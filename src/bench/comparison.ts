/**
 * Two exports side by side: the same workload on either, in turns, and the medians. In turns, because a machine is not
 * as fast in one minute as in the next; medians, because one disturbed run must not decide.
 */
import type { OperationResult, RunResult } from './measurement.ts';

export type ComparedRuns = {
  readonly uri: string;
  /** Medians over the rounds, each by itself. */
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly errors: number;
  readonly runs: readonly RunResult[];
};

export type Comparison = {
  readonly first: ComparedRuns;
  readonly second: ComparedRuns;
  /** First over second, so above 1 means that the first has more (of latency too). */
  readonly ratio: {
    readonly iops: number;
    readonly bytesPerSecond: number;
    readonly p50: number;
    readonly p99: number;
    readonly p999: number;
  };
};

/** The middle one, or the mean of the two in the middle; 0 of none. */
export const medianOf = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
};

const summary = (runs: readonly RunResult[]): ComparedRuns => {
  const median = (pick: (total: OperationResult) => number): number => medianOf(runs.map(({ total }) => pick(total)));
  return {
    uri: runs[0]?.uri ?? '',
    iops: median((total) => total.iops),
    bytesPerSecond: median((total) => total.bytesPerSecond),
    p50Ms: median((total) => total.latencyMs.p50),
    p99Ms: median((total) => total.latencyMs.p99),
    p999Ms: median((total) => total.latencyMs.p999),
    errors: runs.reduce((sum, { total }) => sum + total.errors, 0),
    runs,
  };
};

const ratio = (first: number, second: number): number => (second === 0 ? 0 : first / second);

export const compareRuns = (firstRuns: readonly RunResult[], secondRuns: readonly RunResult[]): Comparison => {
  const [first, second] = [summary(firstRuns), summary(secondRuns)];
  return {
    first,
    second,
    ratio: {
      iops: ratio(first.iops, second.iops),
      bytesPerSecond: ratio(first.bytesPerSecond, second.bytesPerSecond),
      p50: ratio(first.p50Ms, second.p50Ms),
      p99: ratio(first.p99Ms, second.p99Ms),
      p999: ratio(first.p999Ms, second.p999Ms),
    },
  };
};
