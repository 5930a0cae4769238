/**
 * A copy: takes every dirty region of a pair to the leg that follows (initial copy, resync, restore).
 *
 * One step is one lock granule (1 MiB) or one dirty region where that is larger: under the range lock it copies the
 * regions that are dirty at that moment and clears their bits, so a host's write comes before the step (and is copied
 * with it) or after it (and goes to both legs itself). Where a step begins in a hole, or meets 64 KiB of zeros, the hole is
 * kept; a short one amid data may become zeros on the target. A long hole on both legs is taken in one step at the closed
 * write gate, so a sparse terabyte costs its data. A copy that was told to compare reads
 * its target too and writes only the pieces that differ: for targets where writing costs more than reading.
 *
 * Durability: a cleared bit reaches the bitmap's file only after the follower was synced; until then a crash copies
 * those regions again. The source is synced once, at the start: what was written before the pair was formed has no mark,
 * and must not be lost while the follower keeps it. If a sync of a leg fails, here or for somebody else (the system
 * tells it only once), everything copied since the last good sync is dirty again. The copy pointer never goes back
 * within one copy.
 */
import fs from 'node:fs';
import { bitmapWords, clearRange, mergeInto, nextClear, nextSet } from '../core/dirty-bitmap.ts';
import { systemCode } from '../core/faults.ts';
import { LOCK_GRANULE_BYTES, MiB } from '../core/units.ts';
import { HolePuncher } from '../platform/hole-punch.ts';
import { nativeReport } from '../platform/native.ts';
import type { BitmapFile } from '../store/bitmap-file.ts';
import { pagesOf } from '../wire/bitmap-page.ts';
import { CopyPace } from './copy-pace.ts';
import { lockWord, unlockWord } from './intents.ts';
import type { Leg } from './leg.ts';
import { MODE, PAIR } from './shared-memory.ts';
import { SyncFailures } from './sync-failures.ts';
import type { WorkerPair, WritePath } from './write-path.ts';
import { punchLeg } from './zero-path.ts';

export type CopyResult =
  | { readonly end: 'done' | 'stopped' }
  | { readonly end: 'failed'; readonly leg: 'source' | 'target'; readonly code: string };

const BUFFER_BYTES: number = MiB / 4;
/** A hole that is worth closing the gate for. */
const HOLE_BYTES_MIN: number = 8 * LOCK_GRANULE_BYTES;
const PERSIST_MS = 2000;
/** Holes are looked for only where that many bytes in a row are zero: asking the file system costs more than looking. */
const ZEROS: Buffer = Buffer.alloc(64 * 1024);
/** What a copy that compares writes at least where it finds a difference. */
const PIECE_BYTES = 4096;

export class CopyTask {
  readonly #pair: WorkerPair;
  readonly #path: WritePath;
  readonly #device: Int32Array;
  readonly #slot: number;
  readonly #file: BitmapFile;
  readonly #survivesPowerLoss: () => boolean;
  readonly #puncher: HolePuncher = new HolePuncher();
  readonly #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #canSeekHoles: boolean = nativeReport().fsExt;
  readonly #capacityBytes: number;
  readonly #stepRegions: number;
  /** What was dirty at the last good sync: everything that is not in here is durable on the follower. */
  #undurable: Int32Array;
  #syncFailures: number;
  readonly #failures: SyncFailures;
  /** Failed syncs of a leg's physical volumes when it was looked at last, by volume number. */
  readonly #lost = new Map<number, number>();
  #copiedBytes = 0;
  #skippedBytes = 0;
  /** For the target's bytes; made when they are first compared. */
  #present: Buffer | null = null;
  #persistedMs = 0;
  #failure: Extract<CopyResult, { end: 'failed' }> | null = null;

  constructor(
    pair: WorkerPair,
    file: BitmapFile,
    place: { device: Int32Array; slot: number; path: WritePath; survivesPowerLoss: () => boolean },
  ) {
    this.#pair = pair;
    this.#file = file;
    this.#path = place.path;
    this.#device = place.device;
    this.#slot = place.slot;
    this.#survivesPowerLoss = place.survivesPowerLoss;
    this.#capacityBytes = pair.primary.leg.capacityBytes;
    this.#stepRegions = Math.max(1, LOCK_GRANULE_BYTES / pair.dirtyRegionBytes);
    this.#persistedMs = performance.now();
    const { words, primary } = pair.block;
    this.#undurable = primary.slice();
    this.#syncFailures = Atomics.load(words, PAIR.SYNC_FAILURES);
    this.#failures = new SyncFailures(place.device);
    for (const { leg } of [pair.primary, pair.secondary]) this.#lost.set(leg.number, this.#failures.sum(leg.pvs));
    this.#copiedBytes = (words[PAIR.COPIED_LOW] as number) + (words[PAIR.COPIED_HIGH] as number) * 2 ** 30;
    this.#skippedBytes = (words[PAIR.SKIPPED_LOW] as number) + (words[PAIR.SKIPPED_HIGH] as number) * 2 ** 30;
  }

  /** Runs to the end. `between` is called after each step: messages that came meanwhile take effect there. */
  async run(between: () => void): Promise<CopyResult> {
    try {
      if (!this.#sync(this.#legs().source)) return this.#failure ?? { end: 'stopped' };
      const result = await this.#walk(between);
      return this.#persist() ? result : (this.#failure ?? result);
    } finally {
      await this.#puncher.close();
    }
  }

  async #walk(between: () => void): Promise<CopyResult> {
    const { block } = this.#pair;
    const { words, primary: bits, regions } = block;
    const pace = new CopyPace(this.#device, words);
    let region = 0;
    for (;;) {
      between();
      if (Atomics.load(words, PAIR.COPY_STOP) !== 0 || !this.#isCopying()) return { end: 'stopped' };
      region = nextSet(bits, region, regions);
      if (region >= regions) {
        // A failed host write may have left a dirty region behind the pointer.
        region = nextSet(bits, 0, regions);
        if (region >= regions) break;
      }
      const startedMs = performance.now();
      region = this.#skipHole(region) ?? (await this.#step(region));
      if (this.#failure !== null) return this.#failure;
      if (region > Atomics.load(words, PAIR.POINTER)) Atomics.store(words, PAIR.POINTER, region);
      const nowMs = performance.now();
      if (nowMs - this.#persistedMs > PERSIST_MS && !this.#persist() && this.#failure !== null) return this.#failure;
      pace.rest(nowMs - startedMs);
    }
    Atomics.store(words, PAIR.POINTER, regions);
    return { end: 'done' };
  }

  #isCopying(): boolean {
    const mode = Atomics.load(this.#pair.block.words, PAIR.MODE);
    return mode === MODE.copying || mode === MODE.restoring;
  }

  #legs(): { source: Leg; target: Leg } {
    const { primary, secondary, block } = this.#pair;
    return Atomics.load(block.words, PAIR.MODE) === MODE.restoring
      ? { source: secondary.leg, target: primary.leg }
      : { source: primary.leg, target: secondary.leg };
  }

  /** Copies what is dirty in the granule of `first`. @returns the region behind it */
  async #step(first: number): Promise<number> {
    const { block, dirtyRegionBytes, primary } = this.#pair;
    const end = Math.min(block.regions, (Math.floor(first / this.#stepRegions) + 1) * this.#stepRegions);
    const offset = first * dirtyRegionBytes;
    const { locks } = this.#path;
    locks.acquire(primary.leg.number, offset, Math.min(this.#capacityBytes, end * dirtyRegionBytes) - offset);
    try {
      if (!this.#isCopying()) return first;
      for (let from = first; from < end; ) {
        const to = nextClear(block.primary, from, end);
        const fromByte = from * dirtyRegionBytes;
        const toByte = Math.min(this.#capacityBytes, to * dirtyRegionBytes);
        const skippedBefore = this.#skippedBytes;
        const isDone = await this.#copyRange(fromByte, toByte);
        if (!isDone) return first;
        clearRange(block.primary, from, to);
        this.#count(toByte - fromByte, this.#skippedBytes - skippedBefore);
        from = nextSet(block.primary, to, end);
      }
      return end;
    } finally {
      locks.release();
    }
  }

  async #copyRange(offset: number, end: number): Promise<boolean> {
    const { source, target } = this.#legs();
    for (let at = offset; at < end; ) {
      const data = source.nextData(at, end);
      if (data > at && !(await this.#makeHole(target, at, data))) return false;
      at = data;
      if (at === end) break;
      const bytes = Math.min(BUFFER_BYTES, end - at);
      if (!source.read(this.#buffer, 0, at, bytes)) return this.#fail('source', source.failure);
      // Where bytes are zero there may be a hole: the data in front of it ends there, and the next turn sees the hole.
      const length = hasZeroPiece(this.#buffer, bytes) ? this.#dataLength(source, at, bytes) : bytes;
      if (!this.#put(target, at, length)) return this.#fail('target', target.failure);
      at += length;
    }
    return true;
  }

  async #makeHole(target: Leg, at: number, end: number): Promise<boolean> {
    return target.isHole(at, end - at) || (await punchLeg(target, at, end - at, this.#puncher)) || this.#fail('target', target.failure);
  }

  /** Where the source is known to have data: tmpfs walks to the next hole at each question, which made copies quadratic. */
  #dataFrom = 0;
  #dataUntil = 0;
  /** Bytes from `at`, which is data, to the next hole; at most `bytes`. */
  #dataLength(source: Leg, at: number, bytes: number): number {
    if (at < this.#dataFrom || at >= this.#dataUntil) {
      this.#dataFrom = at;
      this.#dataUntil = source.nextHole(at, this.#canSeekHoles ? this.#capacityBytes : at + bytes);
    }
    // A file system that says nothing useful costs space, not the copy.
    return this.#dataUntil > at ? Math.min(bytes, this.#dataUntil - at) : bytes;
  }

  /** Takes a long hole on both legs at once. @returns the region behind it, or null when there is none here */
  #skipHole(region: number): number | null {
    if (!this.#canSeekHoles) return null;
    const { block, dirtyRegionBytes } = this.#pair;
    const offset = region * dirtyRegionBytes;
    const hint = this.#holeEnd(offset, this.#capacityBytes);
    if (hint - offset < HOLE_BYTES_MIN) return null;
    let end = region;
    this.#path.gate.closed(() => {
      if (!this.#isCopying()) return;
      const holeEnd = this.#holeEnd(offset, hint);
      end = holeEnd >= this.#capacityBytes ? block.regions : Math.floor(holeEnd / dirtyRegionBytes);
      if (end > region) clearRange(block.primary, region, end);
    });
    return end > region ? end : null;
  }

  #holeEnd(offset: number, end: number): number {
    const { source, target } = this.#legs();
    return target.nextData(offset, source.nextData(offset, end));
  }

  /** Writes the buffer to the target, or what differs of it. A target that cannot be read is written. */
  #put(target: Leg, at: number, bytes: number): boolean {
    if (Atomics.load(this.#pair.block.words, PAIR.COMPARE) === 0) return target.write(this.#buffer, 0, at, bytes);
    this.#present ??= Buffer.allocUnsafeSlow(BUFFER_BYTES);
    if (!target.read(this.#present, 0, at, bytes)) return target.write(this.#buffer, 0, at, bytes);
    for (let from = 0; from < bytes; ) {
      const equalEnd = this.#runEnd(from, bytes, true);
      this.#skippedBytes += equalEnd - from;
      from = equalEnd;
      if (from === bytes) return true;
      const differingEnd = this.#runEnd(from, bytes, false);
      if (!target.write(this.#buffer, from, at + from, differingEnd - from)) return false;
      from = differingEnd;
    }
    return true;
  }

  /** The end of the pieces from `from` on that are all equal, or all different. */
  #runEnd(from: number, end: number, equal: boolean): number {
    let at = from;
    while (at < end) {
      const stop = Math.min(end, at + PIECE_BYTES);
      if ((this.#buffer.compare(this.#present as Buffer, at, stop, at, stop) === 0) !== equal) break;
      at = stop;
    }
    return at;
  }

  #count(bytes: number, skipped: number): void {
    const { words } = this.#pair.block;
    this.#copiedBytes += bytes - skipped;
    Atomics.store(words, PAIR.SKIPPED_LOW, this.#skippedBytes % 2 ** 30);
    Atomics.store(words, PAIR.SKIPPED_HIGH, Math.floor(this.#skippedBytes / 2 ** 30));
    Atomics.store(words, PAIR.COPIED_LOW, this.#copiedBytes % 2 ** 30);
    Atomics.store(words, PAIR.COPIED_HIGH, Math.floor(this.#copiedBytes / 2 ** 30));
  }

  #fail(leg: 'source' | 'target', code: string): false {
    this.#failure ??= { end: 'failed', leg, code };
    return false;
  }

  /** Brings the progress to the bitmap's file: what the file shows as clean is durable on the target. False: it failed. */
  #persist(): boolean {
    const { block } = this.#pair;
    lockWord(block.words, PAIR.FILE_LOCK, this.#slot);
    try {
      const snapshot = block.primary.slice(0, bitmapWords(block.regions));
      if (!this.#sync(this.#legs().target)) return false;
      const failures = Atomics.load(block.words, PAIR.SYNC_FAILURES);
      if (failures !== this.#syncFailures) {
        this.#syncFailures = failures;
        mergeInto(block.primary, this.#undurable);
        return false;
      }
      this.#undurable = snapshot;
      this.#file.writePages(snapshot, 0, pagesOf(block.regions));
      if (this.#survivesPowerLoss()) this.#file.sync();
      return true;
    } catch (error) {
      return this.#fail('target', systemCode(error) || 'EIO');
    } finally {
      unlockWord(block.words, PAIR.FILE_LOCK);
      this.#persistedMs = performance.now();
    }
  }

  #sync(leg: Leg): boolean {
    if (!this.#survivesPowerLoss()) return true;
    try {
      leg.fds.forEach((fd, index) => this.#syncFile(fd, leg.pvs[index] as number));
      const known = this.#lost.get(leg.number);
      const sum = this.#failures.sum(leg.pvs);
      this.#lost.set(leg.number, sum);
      // Somebody else's sync may have had the error that is about what was copied.
      if (known === undefined || known === sum) return true;
      throw Object.assign(new Error('an earlier sync failed'), { code: 'EIO' });
    } catch (error) {
      mergeInto(this.#pair.block.primary, this.#undurable);
      return this.#fail(leg === this.#legs().source ? 'source' : 'target', systemCode(error) || 'EIO');
    }
  }

  #syncFile(fd: number, pv: number): void {
    try {
      fs.fdatasyncSync(fd);
    } catch (error) {
      this.#failures.count(pv);
      throw error;
    }
  }
}

const hasZeroPiece = (buffer: Buffer, bytes: number): boolean => {
  for (let at = 0; at < bytes; at += ZEROS.length) {
    const end = Math.min(bytes, at + ZEROS.length);
    if (buffer.compare(ZEROS, 0, end - at, at, end) === 0) return true;
  }
  return false;
};
