/**
 * The shared-memory layout: the one place that says which word means what. ARCHITECTURE.md repeats it in words.
 *
 * Three kinds of blocks. The DEVICE block (one): gate, worker slots, range locks, failed syncs. A VOLUME block for each volume that
 * was ever in a pair since the start: intents. A PAIR block for each pair: mode, counters, the two bitmaps. Blocks
 * are SharedArrayBuffers handed to workers once; a worker never allocates or frees one. All words are 32 bit and
 * changed by Atomics; byte counters are kept in units that fit (granules, requests) or as two words.
 */
import { bitmapWords } from '../core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES, PV_COUNT_MAX, VOLUME_COUNT_MAX } from '../core/units.ts';
import { PAGE_WORDS, pagesOf } from '../wire/bitmap-page.ts';

export const LAYOUT_VERSION = 1;

/** Device block, in words. Slots and hot words are 16 words (one cache line) apart. */
export const DEVICE = {
  VERSION: 0,
  /** 0 open, otherwise the slot number + 1 of the thread that closed the gate. */
  GATE: 16,
  SLOT_FIRST: 32,
  SLOT_WORDS: 16,
  /** Slot words: 1 while the worker is inside a write. */
  SLOT_INSIDE: 0,
  /** Slot words: host requests executed so far; wraps around. */
  SLOT_REQUESTS: 1,
  /** Slot words: the write on several legs that the worker is inside of: volume, first and last granule (1 MiB). */
  SLOT_VOLUME: 2,
  SLOT_FIRST_GRANULE: 3,
  SLOT_LAST_GRANULE: 4,
} as const;

/** Worker slots: the main thread has number 0, lanes follow, then the zero worker, the slow worker, a copy's helper, copy and verify workers. */
export const SLOT_COUNT = 64;
export const SLOT_MAIN = 0;
export const LANE_COUNT_MAX = 32;
export const SLOT_ZERO_WORKER = 33;
export const SLOT_SLOW_WORKER = 34;
export const SLOT_COPY_HELPER = 35;
export const SLOT_COPY_FIRST = 36;

export const LOCK_FIRST: number = DEVICE.SLOT_FIRST + SLOT_COUNT * DEVICE.SLOT_WORDS;
/** A power of two: locks are found by a hash. */
export const LOCK_COUNT = 4096;

/** Words of a volume that say which failed syncs were told: to its hosts, to its pairs. */
export const VOLUME_SYNC_WORDS = 2;
/** Failed syncs: a count for each physical volume, then the words of each volume, both by number. */
export const SYNC = {
  PV_FIRST: LOCK_FIRST + LOCK_COUNT,
  VOLUME_FIRST: LOCK_FIRST + LOCK_COUNT + PV_COUNT_MAX + 1,
  END: LOCK_FIRST + LOCK_COUNT + PV_COUNT_MAX + 1 + VOLUME_SYNC_WORDS * (VOLUME_COUNT_MAX + 1),
} as const;

export const deviceBlock = (): Int32Array => {
  const words = new Int32Array(new SharedArrayBuffer(SYNC.END * 4));
  words[DEVICE.VERSION] = LAYOUT_VERSION;
  return words;
};

/** Pair block: header words, then the primary's bitmap, then the secondary's. */
export const PAIR = {
  /** A value of `MODE`. */
  MODE: 0,
  /** 1: fence level `data`. */
  FENCE: 1,
  PACE: 2,
  /** 0 run, 1 stop: the copy worker looks at it and waits on it. */
  COPY_STOP: 3,
  /** Region number of the copy pointer. */
  POINTER: 4,
  /** Holder's slot + 1 of the right to write the bitmap files; 0 nobody. */
  FILE_LOCK: 5,
  /** Bytes copied, low and high word. */
  COPIED_LOW: 6,
  COPIED_HIGH: 7,
  /** Seconds since 1970 of the first and the last host write on the secondary since the split; 0 none, 1 not known. */
  SECONDARY_FIRST_S: 8,
  SECONDARY_LAST_S: 9,
  /** 1: the secondary failed under fence level `data`: host writes fail until the engine switches the mode. */
  FENCED: 10,
  /** 1 from the start of a copy until its worker has let go: host writes take range locks in every mode meanwhile. */
  COPY_ACTIVE: 11,
  /** How often a sync of a leg failed: what a copy brought over since its own last sync may be lost then. */
  SYNC_FAILURES: 12,
  /** 1: the copy reads its target first and writes only what differs. */
  COMPARE: 13,
  /** Bytes that such a copy found to be equal, low and high word. */
  SKIPPED_LOW: 14,
  SKIPPED_HIGH: 15,
  /** What the copy's helper copied and found to be equal, in the same way. */
  HELPER_COPIED_LOW: 16,
  HELPER_COPIED_HIGH: 17,
  HELPER_SKIPPED_LOW: 18,
  HELPER_SKIPPED_HIGH: 19,
  /** 1: the copy's helper has to end. */
  HELPER_END: 20,
  /** The first region that neither the copy's lead nor its helper has taken. */
  STRETCH: 21,
  /** Failed syncs that the pair's copies have taken in: `SYNC_FAILURES`, and the sums of the primary's and the secondary's physical volumes. */
  SEEN_SYNC_FAILURES: 22,
  SEEN_PRIMARY: 23,
  SEEN_SECONDARY: 24,
  HEADER_WORDS: 32,
} as const;

/** A count of bytes in two words, the low 30 bits first. */
export const wideCount = (words: Int32Array, low: number): number => (words[low] as number) + (words[low + 1] as number) * 2 ** 30;

export const storeWide = (words: Int32Array, low: number, bytes: number): void => {
  Atomics.store(words, low, bytes % 2 ** 30);
  Atomics.store(words, low + 1, Math.floor(bytes / 2 ** 30));
};

/** There was a host write on the secondary, at a time that nobody knows any more. */
export const TIME_UNKNOWN_S = 1;

export const MODE = { idle: 0, copying: 1, restoring: 2, mirroring: 3, tracking: 4 } as const;

export type PairBlock = {
  readonly words: Int32Array;
  /** Regions dirtied on the primary; while copying: the regions still to copy. */
  readonly primary: Int32Array;
  readonly secondary: Int32Array;
  readonly regions: number;
};

export const pairBlockBytes = (regions: number): number => (PAIR.HEADER_WORDS + 2 * bitmapWords(regions)) * 4;

export const pairBlock = (buffer: SharedArrayBuffer, regions: number): PairBlock => {
  const bitmapBytes = bitmapWords(regions) * 4;
  return {
    words: new Int32Array(buffer, 0, PAIR.HEADER_WORDS),
    primary: new Int32Array(buffer, PAIR.HEADER_WORDS * 4, bitmapBytes / 4),
    secondary: new Int32Array(buffer, PAIR.HEADER_WORDS * 4 + bitmapBytes, bitmapBytes / 4),
    regions,
  };
};

/** Volume block: header words, then intents on disk, intents armed, and one byte of recent use for each extent. */
export const VOLUME = {
  /** Holder's slot + 1 of the right to write the intents' file; 0 nobody. */
  FILE_LOCK: 0,
  /** Extents marked on disk now. */
  MARKED: 1,
  HEADER_WORDS: 16,
} as const;

export type VolumeBlock = {
  readonly words: Int32Array;
  /** What the file says, or is about to say: a superset of `armed`. Whole pages, so the codec can take it as it is. */
  readonly disk: Int32Array;
  /** Extents whose mark is durable and stays so: a write to them goes straight on. */
  readonly armed: Int32Array;
  /** 1: written to since the cleaner last looked. */
  readonly recent: Uint8Array;
  readonly extents: number;
};

export const intentExtents = (capacityBytes: number): number => Math.ceil(capacityBytes / INTENT_EXTENT_BYTES);

export const volumeBlockBytes = (extents: number): number => {
  const bitmapBytes = pagesOf(extents) * PAGE_WORDS * 4;
  return VOLUME.HEADER_WORDS * 4 + 2 * bitmapBytes + Math.ceil(extents / 4) * 4;
};

export const volumeBlock = (buffer: SharedArrayBuffer, extents: number): VolumeBlock => {
  const bitmapWordCount = pagesOf(extents) * PAGE_WORDS;
  const head = VOLUME.HEADER_WORDS * 4;
  return {
    words: new Int32Array(buffer, 0, VOLUME.HEADER_WORDS),
    disk: new Int32Array(buffer, head, bitmapWordCount),
    armed: new Int32Array(buffer, head + bitmapWordCount * 4, bitmapWordCount),
    recent: new Uint8Array(buffer, head + bitmapWordCount * 8, extents),
    extents,
  };
};
