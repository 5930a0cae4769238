/**
 * What a benchmark does: streams of requests of one kind each, on a range of the export. Presets of them, what a few
 * flags make of them, and the check against an export, all before anything is sent.
 *
 * A stream is a closed loop: each connection keeps `depth` requests in flight and sends the next one when a reply is
 * there. So a slow server is asked less often, and a latency is that of a server under this load, not at a given rate.
 */
import { TwinvolError } from '../core/faults.ts';
import { formatSize, GiB, KiB, MiB } from '../core/units.ts';

export const RW_KINDS = ['randread', 'randwrite', 'randrw', 'read', 'write', 'rw'] as const;
export type RwKind = (typeof RW_KINDS)[number];
export const PRESET_NAMES = ['oltp', 'backup', 'boot', 'mixed'] as const;
export type PresetName = (typeof PRESET_NAMES)[number];

export type Stream = {
  readonly name: string;
  readonly pattern: 'random' | 'sequential';
  /** How many of 100 requests are reads; the rest are writes. */
  readonly readPercent: number;
  readonly blockBytes: number;
  /** Requests in flight on each connection. */
  readonly depth: number;
  readonly connections: number;
  /** A flush after so many writes of a connection; 0: none. */
  readonly flushEvery: number;
  /** Each write is durable before it is answered. */
  readonly fua: boolean;
  /** Sends so many requests, then pauses; null: without a pause. Connections pause at different moments. */
  readonly burst: { readonly requests: number; readonly pauseMs: number } | null;
};

export type Workload = {
  /** Name of the preset, or `custom`. */
  readonly name: string;
  readonly streams: readonly Stream[];
};

/** Where on the export, for how long, and which of the possible random sequences. */
export type Placement = {
  readonly offset: number;
  /** A multiple of every stream's block. */
  readonly length: number;
  readonly runtimeMs: number;
  /** Before the runtime, and not measured. */
  readonly warmupMs: number;
  readonly seed: number;
};

export type StreamFlags = {
  readonly rw?: RwKind;
  /** Reads of 100 requests, where `rw` is a mix. */
  readonly mixPercent?: number;
  readonly blockBytes?: number;
  readonly depth?: number;
  readonly connections?: number;
  readonly flushEvery?: number;
  readonly fua?: boolean;
};

export const DEPTH_MAX: number = 1024;
export const CONNECTIONS_MAX: number = 256;
export const BLOCK_BYTES_MAX: number = 32 * MiB;
/** What the buffers of all requests in flight may take. */
const BUFFER_BYTES_MAX: number = 2 * GiB;
const MIX_PERCENT_DEFAULT = 70;

const PLAIN: Omit<Stream, 'name'> = {
  pattern: 'random',
  readPercent: 100,
  blockBytes: 4 * KiB,
  depth: 16,
  connections: 1,
  flushEvery: 0,
  fua: false,
  burst: null,
};
const stream = (name: string, changes: Partial<Stream>): Stream => ({ ...PLAIN, ...changes, name });

/** What each preset stands for; the help and the documentation are made from this. */
export const PRESETS: Readonly<Record<PresetName, { readonly means: string; readonly streams: readonly Stream[] }>> = {
  oltp: {
    means: 'a database: 8K random, 70 % reads, depth 16, a flush every 32 writes',
    streams: [stream('transactions', { readPercent: 70, blockBytes: 8 * KiB, flushEvery: 32 })],
  },
  backup: {
    means: 'a backup stream: 1M sequential reads, depth 4',
    streams: [stream('backup', { pattern: 'sequential', blockBytes: 1 * MiB, depth: 4 })],
  },
  boot: {
    means: 'many machines starting: 16 connections of 4K and 8 of 32K random reads, in bursts',
    streams: [
      stream('small reads', { depth: 4, connections: 16, burst: { requests: 64, pauseMs: 20 } }),
      stream('program files', { blockBytes: 32 * KiB, depth: 2, connections: 8, burst: { requests: 16, pauseMs: 50 } }),
    ],
  },
  mixed: {
    means: 'a database (8K random, 70 % reads, depth 8), a backup (1M reads, depth 2) and a log (64K writes, depth 2) at once',
    streams: [
      stream('transactions', { readPercent: 70, blockBytes: 8 * KiB, depth: 8, flushEvery: 32 }),
      stream('backup', { pattern: 'sequential', blockBytes: 1 * MiB, depth: 2 }),
      stream('log', { pattern: 'sequential', readPercent: 0, blockBytes: 64 * KiB, depth: 2, flushEvery: 16 }),
    ],
  },
};

const READ_PERCENT: Readonly<Record<RwKind, number | 'mix'>> = {
  randread: 100,
  read: 100,
  randwrite: 0,
  write: 0,
  randrw: 'mix',
  rw: 'mix',
};

/** What flags change in a stream. */
const withFlags = (base: Stream, flags: StreamFlags): Stream => {
  const { rw, mixPercent, blockBytes, depth, connections, flushEvery, fua } = flags;
  const kind = rw === undefined ? null : READ_PERCENT[rw];
  const isMix = kind === 'mix' || (kind === null && base.readPercent > 0 && base.readPercent < 100);
  if (mixPercent !== undefined && !isMix) {
    throw new TwinvolError('USAGE', 'a mix is given, and the workload is no mix of reads and writes', {
      remedy: 'give --rw randrw or --rw rw with --mix',
    });
  }
  const isPureRead = kind === 100 || (kind === null && base.readPercent === 100) || mixPercent === 100;
  if (isPureRead && (fua === true || (flushEvery ?? 0) > 0)) {
    throw new TwinvolError('USAGE', '--fua and --flush-every are about writes, and the workload only reads', {
      remedy: 'give --rw randwrite, randrw, write or rw with them',
    });
  }
  const mixed = mixPercent ?? (kind === null ? base.readPercent : MIX_PERCENT_DEFAULT);
  return {
    ...base,
    pattern: rw === undefined ? base.pattern : rw.startsWith('rand') ? 'random' : 'sequential',
    readPercent: isMix ? mixed : (kind ?? base.readPercent),
    blockBytes: blockBytes ?? base.blockBytes,
    depth: depth ?? base.depth,
    connections: connections ?? base.connections,
    flushEvery: flushEvery ?? base.flushEvery,
    fua: fua ?? base.fua,
  };
};

/** @throws TwinvolError `USAGE` where the flags contradict each other or the preset */
export const workloadOf = (preset: PresetName | undefined, flags: StreamFlags): Workload => {
  if (preset === undefined) return { name: 'custom', streams: [withFlags(stream(flags.rw ?? 'randread', {}), flags)] };
  const { streams } = PRESETS[preset];
  const [only, ...others] = streams;
  if (only === undefined || others.length > 0) {
    const given = Object.entries(flags).some(([, value]) => value !== undefined);
    if (!given) return { name: preset, streams };
    throw new TwinvolError('USAGE', `the preset ${preset} has ${streams.length} streams, and flags change only a single one`, {
      remedy: 'leave the flags or the preset out',
    });
  }
  return { name: preset, streams: [withFlags(only, flags)] };
};

export const writes = (workload: Workload): boolean => workload.streams.some(({ readPercent }) => readPercent < 100);

/** What the workload needs of an export. */
export type ExportLimits = {
  readonly sizeBytes: number;
  readonly minimumBlockBytes: number;
  readonly readOnly: boolean;
  readonly canFlush: boolean;
  readonly canFua: boolean;
};

const usage = (message: string, remedy: string): TwinvolError => new TwinvolError('USAGE', message, { remedy });

/** @throws TwinvolError `USAGE`, `READ_ONLY`, `NOT_SUPPORTED` */
const checkStream = (
  { name, blockBytes, flushEvery, fua }: Stream,
  limits: ExportLimits,
  where: { offset: number; length: number },
): void => {
  const { minimumBlockBytes, canFlush, canFua } = limits;
  if (blockBytes % minimumBlockBytes !== 0 || where.offset % minimumBlockBytes !== 0) {
    throw usage(
      `the server takes multiples of ${minimumBlockBytes} bytes only`,
      `give --bs and --range in multiples of ${minimumBlockBytes}`,
    );
  }
  if (where.length < blockBytes) {
    throw usage(
      `the range has ${formatSize(where.length)}, less than one block of ${formatSize(blockBytes)} (${name})`,
      'use a smaller --bs or a larger --range',
    );
  }
  if (flushEvery > 0 && !canFlush) {
    throw new TwinvolError('NOT_SUPPORTED', 'the server offers no flush, and the workload has some', { remedy: 'give --flush-every 0' });
  }
  if (fua && !canFua && !canFlush) {
    throw new TwinvolError('NOT_SUPPORTED', 'the server offers neither FUA nor flush', { remedy: 'leave --fua out' });
  }
};

/**
 * Puts a workload onto an export: the range, cut to whole blocks.
 * @param range absent: the whole export
 * @throws TwinvolError `USAGE`, `READ_ONLY`, `NOT_SUPPORTED` where it cannot run there
 */
export const placeWorkload = (
  workload: Workload,
  limits: ExportLimits,
  range: { readonly offset: number; readonly length?: number },
): { readonly offset: number; readonly length: number } => {
  if (limits.sizeBytes === 0) throw usage('the export is empty: it has 0 bytes', 'name an export that has a size');
  const length = range.length ?? limits.sizeBytes - range.offset;
  if (length === 0) throw usage('the range is empty: it has 0 bytes', 'give a larger --size, or a range that begins before the end');
  if (length <= 0 || range.offset + length > limits.sizeBytes) {
    throw usage(`the export has ${formatSize(limits.sizeBytes)}, and the range leads beyond its end`, 'give a smaller --size or --range');
  }
  if (limits.readOnly && writes(workload)) {
    throw new TwinvolError('READ_ONLY', 'the export is read-only, and the workload writes', { remedy: 'give --rw randread or --rw read' });
  }
  const largest = Math.max(...workload.streams.map(({ blockBytes }) => blockBytes));
  const where = { offset: range.offset, length: Math.floor(length / largest) * largest };
  for (const one of workload.streams) checkStream(one, limits, { offset: where.offset, length });
  const buffers = workload.streams.reduce((sum, { depth, connections, blockBytes }) => sum + depth * connections * blockBytes, 0);
  if (buffers > BUFFER_BYTES_MAX) {
    throw usage(
      `the requests in flight need ${formatSize(buffers)} of memory, at most ${formatSize(BUFFER_BYTES_MAX)}`,
      'use a smaller --bs, --depth or --connections',
    );
  }
  return where;
};

const percent = (readPercent: number): string => {
  if (readPercent === 100) return 'reads';
  return readPercent === 0 ? 'writes' : `reads and writes ${readPercent}/${100 - readPercent}`;
};

/** `8 KiB random reads and writes 70/30, depth 16, 1 connection, a flush every 32 writes`. */
export const describeStream = (one: Stream): string => {
  const parts = [
    `${formatSize(one.blockBytes)} ${one.pattern} ${percent(one.readPercent)}`,
    `depth ${one.depth}`,
    `${one.connections} ${one.connections === 1 ? 'connection' : 'connections'}`,
  ];
  if (one.flushEvery > 0) parts.push(`a flush every ${one.flushEvery} writes`);
  if (one.fua) parts.push('FUA');
  if (one.burst !== null) parts.push(`bursts of ${one.burst.requests}, pauses of ${one.burst.pauseMs} ms`);
  return parts.join(', ');
};
