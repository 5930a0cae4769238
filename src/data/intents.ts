/**
 * Intents: before a write reaches a leg of a volume in a pair, its extent (4 MiB) is durably marked "may differ".
 *
 * One mechanism serves every mode. While legs are mirrored or copied, a marked extent is what a crash may have left
 * unequal. While writes are tracked, it stands in for the fine dirty bits, which reach their file only when the
 * cleaner (data/intent-cleaner.ts) is about to drop the mark. After an unclean end, dirty = bitmap files + marks.
 *
 * `armed` is what a writer tests (a plain load); `disk` is what the file holds or is about to hold, always a superset.
 * A mark that is new is written by the writer itself, under the volume's file lock, and everybody who waits for the
 * same lock finds its extent done: marks commit in groups.
 */
import { allSet, clearRange, setRange } from '../core/dirty-bitmap.ts';
import { systemCode } from '../core/faults.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import type { BitmapFile } from '../store/bitmap-file.ts';
import { VOLUME, type VolumeBlock } from './shared-memory.ts';

const WAIT_MS = 5;

/** Takes a word lock for `slot`; waits. */
export const lockWord = (words: Int32Array, index: number, slot: number): void => {
  for (;;) {
    const holder = Atomics.compareExchange(words, index, 0, slot + 1);
    if (holder === 0) return;
    Atomics.wait(words, index, holder, WAIT_MS);
  }
};

export const tryLockWord = (words: Int32Array, index: number, slot: number): boolean =>
  Atomics.compareExchange(words, index, 0, slot + 1) === 0;

export const unlockWord = (words: Int32Array, index: number): void => {
  Atomics.store(words, index, 0);
  Atomics.notify(words, index);
};

export class Intents {
  readonly block: VolumeBlock;
  readonly #file: BitmapFile;
  readonly #slot: number;
  /** The system's code of the last failed mark. */
  failure = '';
  /** False at durability level `process`: the file is written, not synced. */
  survivesPowerLoss: boolean;

  constructor(block: VolumeBlock, file: BitmapFile, slot: number, survivesPowerLoss: boolean) {
    this.block = block;
    this.#file = file;
    this.#slot = slot;
    this.survivesPowerLoss = survivesPowerLoss;
  }

  /** Makes sure that the extents of the range are marked. False when the mark could not be made durable. */
  mark(offset: number, length: number): boolean {
    const first = Math.floor(offset / INTENT_EXTENT_BYTES);
    const end = Math.floor((offset + length - 1) / INTENT_EXTENT_BYTES) + 1;
    const { armed, recent } = this.block;
    for (let extent = first; extent < end; extent += 1) if (recent[extent] === 0) recent[extent] = 1;
    return allSet(armed, first, end) || this.#markNew(first, end);
  }

  #markNew(first: number, end: number): boolean {
    const { words, disk, armed } = this.block;
    lockWord(words, VOLUME.FILE_LOCK, this.#slot);
    const fresh: number[] = [];
    try {
      for (let extent = first; extent < end; extent += 1) if (!allSet(disk, extent, extent + 1)) fresh.push(extent);
      if (fresh.length > 0) {
        setRange(disk, first, end);
        this.#file.writeBits(disk, first, end);
        if (this.survivesPowerLoss) this.#file.sync();
        Atomics.add(words, VOLUME.MARKED, fresh.length);
      }
      setRange(armed, first, end);
      return true;
    } catch (error) {
      // The file may hold the mark or not: it counts as not held, so that the next write tries again.
      for (const extent of fresh) clearRange(disk, extent, extent + 1);
      this.failure = systemCode(error) || 'EIO';
      return false;
    } finally {
      unlockWord(words, VOLUME.FILE_LOCK);
    }
  }
}
