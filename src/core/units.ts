/**
 * Units and limits: the numbers that every layer agrees on, with the relations between them asserted beside them.
 *
 * Offsets and lengths are bytes and fit a double exactly (below 2^53); counts of regions fit 32 bits. Names end in
 * their unit (`capacityBytes`, `deadlineMs`), and an index, a count and a size are never the same variable.
 */
import { TwinvolError } from './faults.ts';

export const KiB: number = 1024;
export const MiB: number = 1024 * KiB;
export const GiB: number = 1024 * MiB;
export const TiB: number = 1024 * GiB;

/** The smallest unit of a capacity: one sector. */
export const SECTOR_BYTES: number = 512;

export const CAPACITY_BYTES_MIN: number = 1 * MiB;
/** 256 TiB: 2^48, far under 2^53, so that `offset + length` never loses a bit in a double. */
export const CAPACITY_BYTES_MAX: number = 256 * TiB;

export const REGION_BYTES_MIN: number = 64 * KiB;
export const REGION_BYTES_MAX: number = 64 * MiB;
export const REGION_BYTES_DEFAULT: number = 1 * MiB;

export const PV_BYTES_DEFAULT: number = 64 * GiB;
/** A physical volume is one sparse file; ext4 with 4 KiB blocks ends at 16 TiB less one block. */
export const PV_BYTES_MAX: number = 8 * TiB;
export const PV_COUNT_MAX: number = 16_384;

export const DIRTY_REGION_BYTES_MIN: number = 4 * KiB;
export const DIRTY_REGION_BYTES_DEFAULT: number = 64 * KiB;
/** A dirty-region bitmap never takes more than this (8 MiB, 2^26 regions); larger volumes get coarser regions. */
export const DIRTY_BITMAP_BYTES_MAX: number = 8 * MiB;

/** The unit of the intent log: the region that is marked "the legs may differ here" before a write reaches a leg. */
export const INTENT_EXTENT_BYTES: number = 4 * MiB;

/** The unit of the range locks that order overlapping writes, and the length of one copy step. */
export const LOCK_GRANULE_BYTES: number = 1 * MiB;

/** The largest READ or WRITE payload that a client may ask for (NBD_INFO_BLOCK_SIZE, maximum). */
export const NBD_PAYLOAD_BYTES_MAX: number = 32 * MiB;

export const VOLUME_COUNT_MAX: number = 65_535;
export const VOLUME_NAME_CHARS_MAX: number = 128;
/** Secondaries of one primary. */
export const PAIRS_PER_PRIMARY_MAX: number = 8;

const assertRelation = (holds: boolean, text: string): void => {
  if (!holds) throw new Error(`limits contradict each other: ${text}`);
};
assertRelation(DIRTY_REGION_BYTES_MIN <= REGION_BYTES_MIN, 'a dirty region fits the smallest physical region');
assertRelation(DIRTY_REGION_BYTES_DEFAULT <= REGION_BYTES_MIN, 'the default dirty region fits every physical region');
assertRelation(CAPACITY_BYTES_MAX / REGION_BYTES_MIN <= 2 ** 32, 'region numbers fit 32 bits');
assertRelation(NBD_PAYLOAD_BYTES_MAX % LOCK_GRANULE_BYTES === 0, 'a request covers whole lock granules');

const SUFFIXES: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['B', 1],
  ['S', SECTOR_BYTES],
  ['K', KiB],
  ['M', MiB],
  ['G', GiB],
  ['T', TiB],
]);

/**
 * A size as people type it: `512`, `64K`, `1.5G`, `10GiB`, `4T` (powers of 1024).
 * @returns bytes, a whole number
 * @throws TwinvolError `SIZE_INVALID`
 */
export const parseSize = (text: string): number => {
  const match = /^(\d+(?:\.\d+)?)\s*([BSKMGT]?)(?:i?B)?$/i.exec(text.trim());
  const factor = SUFFIXES.get((match?.[2] ?? '').toUpperCase());
  const bytes = match?.[1] === undefined || factor === undefined ? Number.NaN : Number(match[1]) * factor;
  if (!Number.isSafeInteger(bytes)) {
    throw new TwinvolError('SIZE_INVALID', `"${text}" is not a size`, {
      remedy: 'give a whole number of bytes, or a number with K, M, G or T (powers of 1024), such as 64K or 1.5G',
    });
  }
  return bytes;
};

/** Bytes for people, in powers of 1024 and at most one decimal: `0 B`, `512 B`, `64 KiB`, `1.5 GiB`. */
export const formatSize = (bytes: number): string => {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let step = 0;
  while (value >= 1024 && step < names.length - 1) {
    value /= 1024;
    step += 1;
  }
  const text = Number.isInteger(value) ? String(value) : value.toFixed(1);
  return `${text} ${names[step] ?? 'B'}`;
};

export const isPowerOfTwo = (value: number): boolean => Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));

/** The dirty-region size for a volume: the default, or the smallest power of two whose bitmap stays under the limit. */
export const dirtyRegionBytesFor = (capacityBytes: number, regionBytes: number): number => {
  let bytes = DIRTY_REGION_BYTES_DEFAULT;
  while (bytes < regionBytes && capacityBytes / bytes > DIRTY_BITMAP_BYTES_MAX * 8) bytes *= 2;
  return bytes;
};
