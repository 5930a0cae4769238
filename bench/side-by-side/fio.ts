/**
 * fio with its nbd engine (libnbd): the client of every comparison, the same for all servers. One call is one run; what
 * comes back is the sum over its jobs.
 */
import { MiB } from '../../src/core/units.ts';
import { runProgram, type Cpus } from './owned-process.ts';

/** Time beyond the runtime that a run may take: starting, connecting, ending. */
const GRACE_MS = 10_000;

export type FioInput = {
  /** One URI for all jobs, or one for each. */
  readonly uris: readonly string[];
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
  /** Connections to each URI. */
  readonly jobs: number;
  readonly sizeBytes: number;
  readonly runtimeMs: number;
  readonly cpus: Cpus;
  /** A log of every request, for the moments around an event. */
  readonly latencyLog?: string;
};

export type FioResult = {
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
  /** IOPS of each connection. */
  readonly jobIops: readonly number[];
};

type Direction = {
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly max: number; readonly percentile?: Readonly<Record<string, number>> };
};
type Job = { readonly error: number; readonly read: Direction; readonly write: Direction };

const argumentsOf = (input: FioInput): string[] => {
  const { uris, rw, blockBytes, depth, jobs, sizeBytes, runtimeMs, latencyLog } = input;
  const isMany = uris.length * jobs > 8;
  const common = [
    '--ioengine=nbd',
    `--rw=${rw}`,
    `--bs=${blockBytes}`,
    `--iodepth=${depth}`,
    `--numjobs=${jobs}`,
    `--size=${Math.floor(sizeBytes / MiB)}M`,
    '--time_based',
    `--runtime=${runtimeMs}ms`,
    '--norandommap',
    '--percentile_list=50:99:99.9',
    '--output-format=json',
    ...(isMany ? ['--thread'] : []),
    ...(latencyLog === undefined
      ? []
      : [`--write_lat_log=${latencyLog}`, '--log_unix_epoch=1', '--disable_slat=1', '--disable_clat=1', '--per_job_logs=1']),
  ];
  return [...common, ...uris.flatMap((uri, index) => [`--name=job${index}`, `--uri=${uri}`])];
};

/** @throws Error when fio fails, or a job reports an error */
export const runFio = async (input: FioInput): Promise<FioResult> => {
  const { output } = await runProgram('fio', argumentsOf(input), input.runtimeMs + GRACE_MS, { cpus: input.cpus });
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { readonly jobs: readonly Job[] };
  const failed = jobs.find(({ error }) => error !== 0);
  if (failed !== undefined) throw new Error(`fio: a job ended with error ${failed.error}:\n${output.slice(0, output.indexOf('{'))}`);
  const isRead = input.rw === 'randread' || input.rw === 'read';
  const sides = jobs.map((job) => (isRead ? job.read : job.write));
  const sum = (pick: (side: Direction) => number): number => sides.reduce((total, side) => total + pick(side), 0);
  // Percentiles of several jobs cannot be merged exactly; the mean over jobs of one kind is near enough, the maximum exact.
  const percentileUs = (name: string): number => sum(({ clat_ns: { percentile } }) => percentile?.[name] ?? 0) / sides.length / 1000;
  return {
    iops: sum(({ iops }) => iops),
    bytesPerSecond: sum(({ bw_bytes: bytes }) => bytes),
    p50Us: percentileUs('50.000000'),
    p99Us: percentileUs('99.000000'),
    p999Us: percentileUs('99.900000'),
    maxUs: Math.max(...sides.map(({ clat_ns: { max } }) => max)) / 1000,
    jobIops: sides.map(({ iops }) => iops),
  };
};
