/**
 * The steps of a copy: what its lead (copy-task.ts) and its helper (copy-helper.ts) both do, each in its own thread.
 *
 * One step is one lock granule (1 MiB) or one dirty region where that is larger: under the range lock it copies the
 * regions that are dirty at that moment and clears their bits, so a host's write comes before the step (and is copied
 * with it) or after it (and goes to both legs itself). Where a step reads 64 KiB of zeros, or nothing but zeros, it looks for a hole
 * and keeps it; a shorter one amid data may become zeros on the target. Behind a hole, what is still a hole on both legs is
 * taken in one step: a short one under its range lock, a long one at the closed write gate, so a sparse terabyte costs its data. The
 * file system is asked nothing where there is data: its answers wait for writes to the same file. A copy that was told to compare
 * reads its target too and writes only the pieces that differ: for targets where writing costs more than reading.
 *
 * Whoever has time takes the next stretch of eight steps, so both work forwards and near each other. Stretches share out
 * the work and exclude nobody: two that meet at a granule wait for its lock, and the second one finds nothing dirty.
 */
import { clearRange, nextClear, nextSet } from '../core/dirty-bitmap.ts';
import { LOCK_GRANULE_BYTES, MiB } from '../core/units.ts';
import { HolePuncher } from '../platform/hole-punch.ts';
import { nativeReport } from '../platform/native.ts';
import type { Leg } from './leg.ts';
import { MODE, PAIR, storeWide, wideCount } from './shared-memory.ts';
import type { WorkerPair, WritePath } from './write-path.ts';
import { punchLeg } from './zero-path.ts';

/** A leg that could not be read or written. */
export type CopyFailure = { readonly end: 'failed'; readonly leg: 'source' | 'target'; readonly code: string };

/** The words of a pair in which one worker counts. */
export type CopyCounters = { readonly copied: number; readonly skipped: number };
export const LEAD_COUNTERS: CopyCounters = { copied: PAIR.COPIED_LOW, skipped: PAIR.SKIPPED_LOW };
export const HELPER_COUNTERS: CopyCounters = { copied: PAIR.HELPER_COPIED_LOW, skipped: PAIR.HELPER_SKIPPED_LOW };

const BUFFER_BYTES: number = MiB / 4;
/** A hole that is worth closing the gate for. */
const HOLE_BYTES_MIN: number = 8 * LOCK_GRANULE_BYTES;
const STRETCH_STEPS = 8;
/** Holes are looked for only where that many bytes in a row are zero: asking the file system costs more than looking. */
const ZEROS: Buffer = Buffer.alloc(64 * 1024);
/** What a copy that compares writes at least where it finds a difference. */
const PIECE_BYTES = 4096;

export class CopySteps {
  /** Set when a leg could not be read or written: the copy ends with it. */
  failure: CopyFailure | null = null;
  readonly #pair: WorkerPair;
  readonly #path: WritePath;
  readonly #counters: CopyCounters;
  readonly #puncher: HolePuncher = new HolePuncher();
  readonly #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #canSeekHoles: boolean = nativeReport().fsExt;
  readonly #capacityBytes: number;
  readonly #stepRegions: number;
  /** The last step ended in a hole, which may go on. */
  #isInHole = true;
  #hasHoles = false;
  /** Where the stretch that was taken last ends. */
  #stretchEnd = 0;
  #copiedBytes: number;
  #skippedBytes: number;
  /** For the target's bytes; made when they are first compared. */
  #present: Buffer | null = null;

  constructor(pair: WorkerPair, path: WritePath, counters: CopyCounters) {
    this.#pair = pair;
    this.#path = path;
    this.#counters = counters;
    this.#capacityBytes = pair.primary.leg.capacityBytes;
    this.#stepRegions = Math.max(1, LOCK_GRANULE_BYTES / pair.dirtyRegionBytes);
    this.#copiedBytes = wideCount(pair.block.words, counters.copied);
    this.#skippedBytes = wideCount(pair.block.words, counters.skipped);
  }

  close(): Promise<void> {
    return this.#puncher.close();
  }

  /** May the copy go on? */
  isWanted(): boolean {
    return Atomics.load(this.#pair.block.words, PAIR.COPY_STOP) === 0 && this.#isCopying();
  }

  #isCopying(): boolean {
    const mode = Atomics.load(this.#pair.block.words, PAIR.MODE);
    return mode === MODE.copying || mode === MODE.restoring;
  }

  legs(): { source: Leg; target: Leg } {
    const { primary, secondary, block } = this.#pair;
    return Atomics.load(block.words, PAIR.MODE) === MODE.restoring
      ? { source: secondary.leg, target: primary.leg }
      : { source: primary.leg, target: secondary.leg };
  }

  /** The next dirty region at or behind `from` in this worker's stretch, or else of one that nobody has taken; `regions` when there is none. */
  next(from: number): number {
    const { words, primary: bits, regions } = this.#pair.block;
    const here = nextSet(bits, from, regions);
    if (here < this.#stretchEnd) return here;
    for (;;) {
      const taken = Atomics.load(words, PAIR.STRETCH);
      const region = nextSet(bits, taken, regions);
      if (region >= regions) return regions;
      const end = Math.min(regions, (Math.floor(region / this.#stepRegions) + STRETCH_STEPS) * this.#stepRegions);
      if (Atomics.compareExchange(words, PAIR.STRETCH, taken, end) !== taken) continue;
      this.#stretchEnd = end;
      return region;
    }
  }

  /** Copies what is dirty in the granule of `first`, or takes the hole that it is in. @returns the region behind it */
  async take(first: number): Promise<number> {
    // Where there was one hole there are more: to know where the next one begins spares reading it.
    if (this.#hasHoles && !this.#isInHole) this.#isInHole = this.#isHoleNext(first * this.#pair.dirtyRegionBytes);
    if (this.#isInHole) {
      const behind = this.#takeHole(first);
      if (behind !== null) {
        this.#hasHoles = true;
        return behind;
      }
      this.#isInHole = false;
    }
    return this.#step(first);
  }

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
    const { source, target } = this.legs();
    for (let at = offset; at < end; ) {
      let length = Math.min(BUFFER_BYTES, end - at);
      if (!source.read(this.#buffer, 0, at, length)) return this.#fail('source', source.failure);
      if (hasZeroPiece(this.#buffer, length)) {
        const data = source.nextData(at, end);
        if (data > at) {
          if (!(await this.#makeHole(target, at, data))) return false;
          at = data;
          this.#isInHole = at === end;
          continue;
        }
        // The data in front of a hole ends there, and the next turn meets the hole.
        length = this.#dataLength(source, at, length);
      }
      if (!this.#put(target, at, length)) return this.#fail('target', target.failure);
      at += length;
      this.#isInHole = at === this.#dataUntil;
    }
    return true;
  }

  async #makeHole(target: Leg, at: number, end: number): Promise<boolean> {
    return (await punchLeg(target, at, end - at, this.#puncher)) || this.#fail('target', target.failure);
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

  /** A hint, which a host may make untrue at once: both a hole that is taken and data that are copied are looked at again. */
  #isHoleNext(at: number): boolean {
    const { source } = this.legs();
    this.#dataLength(source, at, 0);
    return this.#canSeekHoles && this.#dataUntil <= at;
  }

  /** Takes what is a hole on both legs at once. @returns the region behind it, or null when there is none here */
  #takeHole(region: number): number | null {
    if (!this.#canSeekHoles) return null;
    const { block, dirtyRegionBytes, primary } = this.#pair;
    const offset = region * dirtyRegionBytes;
    // No more than the gate's threshold, and one region at least: a holder of range locks has room for so many.
    const ahead = Math.floor(HOLE_BYTES_MIN / dirtyRegionBytes);
    const near = Math.min(block.regions, Math.max(region + 1, Math.min(this.#stretchEnd, region + ahead)));
    const { locks, gate } = this.#path;
    let behind = region;
    let hint = offset;
    locks.acquire(primary.leg.number, offset, Math.min(this.#capacityBytes, near * dirtyRegionBytes) - offset);
    try {
      hint = this.#holeEnd(offset, this.#capacityBytes);
      if (hint - offset < HOLE_BYTES_MIN) behind = this.#clearHole(region, Math.min(near, this.#regionAt(hint)));
    } finally {
      locks.release();
    }
    if (hint - offset >= HOLE_BYTES_MIN) {
      gate.closed(() => {
        behind = this.#clearHole(region, this.#regionAt(this.#holeEnd(offset, hint)));
      });
    }
    // A hole that was taken to its end has data behind it: that need not be asked.
    this.#isInHole = behind < this.#regionAt(hint);
    return behind > region ? behind : null;
  }

  /** Where no host can write now. */
  #clearHole(region: number, end: number): number {
    if (!this.#isCopying() || end <= region) return region;
    clearRange(this.#pair.block.primary, region, end);
    return end;
  }

  /** The region that `byte` is in; of a hole's end, the one that is not whole any more. */
  #regionAt(byte: number): number {
    return byte >= this.#capacityBytes ? this.#pair.block.regions : Math.floor(byte / this.#pair.dirtyRegionBytes);
  }

  #holeEnd(offset: number, end: number): number {
    const { source, target } = this.legs();
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
    storeWide(words, this.#counters.skipped, this.#skippedBytes);
    storeWide(words, this.#counters.copied, this.#copiedBytes);
  }

  #fail(leg: 'source' | 'target', code: string): false {
    this.failure ??= { end: 'failed', leg, code };
    return false;
  }
}

const hasZeroPiece = (buffer: Buffer, bytes: number): boolean => {
  for (let at = 0; at < bytes; at += ZEROS.length) {
    const end = Math.min(bytes, at + ZEROS.length);
    if (buffer.compare(ZEROS, 0, end - at, at, end) === 0) return true;
  }
  return false;
};
