/** The cells of the comparison: what the client does, the same for every server. */
import { KiB, MiB } from '../../src/core/units.ts';
import type { FioInput } from './fio.ts';

export type Cell = {
  readonly id: string;
  readonly name: string;
  readonly rw: FioInput['rw'];
  readonly blockBytes: number;
  readonly depth: number;
  readonly jobs: number;
  /** What is compared: requests or bytes a second. */
  readonly unit: 'kIOPS' | 'MB/s';
  /** Part of the quick run. */
  readonly isQuick: boolean;
};

const random = (rw: 'randread' | 'randwrite', depth: number, jobs: number, isQuick: boolean): Cell => {
  const load = jobs === 1 ? `depth ${depth}` : `${jobs} connections x ${depth}`;
  const kind = rw === 'randread' ? 'read' : 'write';
  return {
    id: `4k-${kind}-${jobs === 1 ? '' : `${jobs}x`}${depth}`,
    name: `4k ${kind}, ${load}`,
    rw,
    blockBytes: 4 * KiB,
    depth,
    jobs,
    unit: 'kIOPS',
    isQuick,
  };
};
const sequential = (rw: 'read' | 'write', blockBytes: number, depth: number, isQuick: boolean): Cell => {
  const size = blockBytes === MiB ? '1M' : `${blockBytes / KiB}k`;
  return { id: `${size}-${rw}`.toLowerCase(), name: `${size} ${rw}`, rw, blockBytes, depth, jobs: 1, unit: 'MB/s', isQuick };
};

/** Sequential cells keep 16 and 4 requests in flight: enough for any server to be busy, not more than a backup has. */
export const CELLS: readonly Cell[] = [
  random('randwrite', 1, 1, true),
  random('randread', 1, 1, true),
  random('randwrite', 16, 1, true),
  random('randread', 16, 1, true),
  random('randwrite', 16, 4, false),
  random('randread', 16, 4, false),
  sequential('write', 64 * KiB, 16, false),
  sequential('read', 64 * KiB, 16, false),
  sequential('write', MiB, 4, true),
  sequential('read', MiB, 4, true),
];

/** In the unit of the cell. */
export const valueOf = (cell: Cell, result: { readonly iops: number; readonly bytesPerSecond: number }): number =>
  cell.unit === 'kIOPS' ? result.iops / 1000 : result.bytesPerSecond / 1e6;
