/**
 * What was measured: tallies that count while a run is under way, and the plain values that a report and `--json` show.
 * Rates are over the measured time; bytes a second count payload of requests that were answered without an error.
 */
import { LatencyHistogram } from './latency-histogram.ts';
import type { Mismatch } from './block-ledger.ts';
import type { Placement, Workload } from './workload.ts';

export const OPERATIONS = ['read', 'write', 'flush'] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Milliseconds; all 0 when nothing was answered. */
export type Latency = {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
};
export type OperationResult = {
  /** Requests that were answered without an error, and those with one. */
  readonly operations: number;
  readonly errors: number;
  readonly bytes: number;
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly latencyMs: Latency;
};

export type StreamResult = OperationResult & {
  readonly name: string;
  readonly connections: number;
  /** The slowest connection's share of the mean; 1 where all are served alike. */
  readonly fairness: number;
};

export type VerificationResult = {
  /** Blocks that were read and compared: during the run, and after it. */
  readonly checkedBlocks: number;
  readonly mismatches: number;
  /** The first few. */
  readonly details: readonly Mismatch[];
  /** Blocks that were written and not read back: it was given up, the connection was lost, or the read failed. */
  readonly unreadBlocks: number;
  /** Something was written, and all of it was read back. Only then "no mismatches" says anything. */
  readonly complete: boolean;
};

export type RunResult = {
  readonly uri: string;
  readonly sizeBytes: number;
  readonly startedAtMs: number;
  readonly workload: Workload;
  readonly placement: Placement;
  /** False when the run ended in the warm-up: then there are no figures, and `elapsedMs` is 0. */
  readonly isMeasured: boolean;
  readonly elapsedMs: number;
  /** The largest payload that the server takes; larger requests are sent in parts. */
  readonly requestBytesMax: number;
  readonly total: OperationResult;
  readonly read: OperationResult;
  readonly write: OperationResult;
  readonly flush: OperationResult;
  readonly streams: readonly StreamResult[];
  /** How often each error came. */
  readonly errors: Readonly<Record<string, number>>;
  /** Requests without an answer when the run was given up. */
  readonly unanswered: number;
  /** Share of one processor that this client took; near 100 the client is what was measured. */
  readonly clientCpuPercent: number;
  /** The user ended it early. */
  readonly interrupted: boolean;
  /** Why the connections ended before the run did; null when they did not. */
  readonly broken: string | null;
  readonly verification: VerificationResult | null;
};

/** Counts of one operation on one connection. */
export class Tally {
  readonly latency = new LatencyHistogram();
  operations = 0;
  errors = 0;
  bytes = 0;

  done(latencyMs: number, bytes: number): void {
    this.latency.record(latencyMs);
    this.operations += 1;
    this.bytes += bytes;
  }

  merge(other: Tally): void {
    this.latency.merge(other.latency);
    this.operations += other.operations;
    this.errors += other.errors;
    this.bytes += other.bytes;
  }

  reset(): void {
    this.latency.reset();
    this.operations = 0;
    this.errors = 0;
    this.bytes = 0;
  }
}

export type Tallies = Readonly<Record<Operation, Tally>>;
export const newTallies = (): Tallies => ({ read: new Tally(), write: new Tally(), flush: new Tally() });

export const sumOf = (tallies: readonly Tally[]): Tally => {
  const sum = new Tally();
  for (const tally of tallies) sum.merge(tally);
  return sum;
};

export const latencyOf = (histogram: LatencyHistogram): Latency => ({
  mean: histogram.meanMs,
  p50: histogram.percentileMs(50),
  p90: histogram.percentileMs(90),
  p99: histogram.percentileMs(99),
  p999: histogram.percentileMs(99.9),
  max: histogram.maxMs,
});

export const operationResult = (tally: Tally, elapsedMs: number): OperationResult => {
  const seconds = elapsedMs / 1000;
  const rate = (count: number): number => (seconds > 0 ? count / seconds : 0);
  return {
    operations: tally.operations,
    errors: tally.errors,
    bytes: tally.bytes,
    iops: rate(tally.operations),
    bytesPerSecond: rate(tally.bytes),
    latencyMs: latencyOf(tally.latency),
  };
};
