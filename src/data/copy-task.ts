/**
 * A copy: takes every dirty region of a pair to the leg that follows (initial copy, resync, restore), step by step
 * (copy-steps.ts). This is its lead, which goes to the end; a helper (copy-helper.ts) may share the steps. Whatever the helper leaves
 * undone, the lead finds dirty and does.
 *
 * Durability: a cleared bit reaches the bitmap's file only after the follower was synced; until then a crash copies
 * those regions again. The source is synced once, at the start: what was written before the pair was formed has no mark,
 * and must not be lost while the follower keeps it. If a sync of a leg fails, here or for somebody else (the system
 * tells it only once), everything copied since the last good sync is dirty again; therefore a helper begins only after the lead
 * has noted what was dirty, and the lead alone writes the bitmap's file. The copy pointer never goes back within one copy.
 */
import fs from 'node:fs';
import { bitmapWords, countSet, mergeInto, nextSet, setRange } from '../core/dirty-bitmap.ts';
import { systemCode } from '../core/faults.ts';
import { MiB } from '../core/units.ts';
import type { BitmapFile } from '../store/bitmap-file.ts';
import { pagesOf } from '../wire/bitmap-page.ts';
import { CopyPace } from './copy-pace.ts';
import { type CopyFailure, CopySteps, LEAD_COUNTERS } from './copy-steps.ts';
import { lockWord, unlockWord } from './intents.ts';
import type { Leg } from './leg.ts';
import { PAIR } from './shared-memory.ts';
import { SyncFailures } from './sync-failures.ts';
import type { WorkerPair, WritePath } from './write-path.ts';

export type CopyResult = { readonly end: 'done' | 'stopped' } | CopyFailure;

const PERSIST_MS = 2000;
/** Help is asked for when a copy has been at work for so long and so much is left: a helper's thread takes longer to start than most copies. */
const HELP_AFTER_MS = 10;
const HELP_BYTES_MIN: number = 64 * MiB;

export class CopyTask {
  readonly #pair: WorkerPair;
  readonly #device: Int32Array;
  readonly #slot: number;
  readonly #file: BitmapFile;
  readonly #survivesPowerLoss: () => boolean;
  readonly #steps: CopySteps;
  /** Null: it was asked for, or nobody could help. */
  #askForHelp: (() => void) | null;
  /**
   * What was dirty at the last good sync: everything that is not in here is durable on the follower. At first also what the bitmap's
   * file has: a lead before this one may have copied that, and died before its sync.
   */
  #undurable: Int32Array;
  readonly #failures: SyncFailures;
  #persistedMs = 0;
  #failure: CopyFailure | null = null;

  constructor(
    pair: WorkerPair,
    file: BitmapFile,
    place: { device: Int32Array; slot: number; path: WritePath; survivesPowerLoss: () => boolean; askForHelp?: () => void },
  ) {
    this.#pair = pair;
    this.#file = file;
    this.#device = place.device;
    this.#slot = place.slot;
    this.#survivesPowerLoss = place.survivesPowerLoss;
    this.#askForHelp = place.askForHelp ?? null;
    this.#steps = new CopySteps(pair, place.path, LEAD_COUNTERS);
    this.#persistedMs = performance.now();
    const { words, primary } = pair.block;
    this.#undurable = primary.slice();
    mergeFile(this.#undurable, pair.block.regions, file);
    this.#failures = new SyncFailures(place.device);
    // A lead that died may have had no time to hear of a failure: what it copied is copied again.
    this.#takeFailures(PAIR.SEEN_SYNC_FAILURES, Atomics.load(words, PAIR.SYNC_FAILURES));
    for (const { leg } of [pair.primary, pair.secondary]) this.#takeFailures(this.#seenAt(leg), this.#failures.sum(leg.pvs));
    Atomics.store(words, PAIR.STRETCH, 0);
  }

  /** Runs to the end. `between` is called after each step: messages that came meanwhile take effect there. */
  async run(between: () => void): Promise<CopyResult> {
    try {
      if (!this.#sync(this.#steps.legs().source)) return this.#failure ?? { end: 'stopped' };
      const result = await this.#walk(between);
      return this.#persist() ? result : (this.#failure ?? result);
    } finally {
      await this.#steps.close();
    }
  }

  async #walk(between: () => void): Promise<CopyResult> {
    const { words, primary: bits, regions } = this.#pair.block;
    const steps = this.#steps;
    const pace = new CopyPace(this.#device, words);
    const beganMs = performance.now();
    let region = 0;
    for (;;) {
      between();
      if (!steps.isWanted()) return { end: 'stopped' };
      region = steps.next(region);
      if (region >= regions) {
        // A failed host write, or a helper that ended, may have left a dirty region behind; one that is at work has its own.
        region = nextSet(bits, 0, regions);
        if (region >= regions) break;
      }
      const startedMs = performance.now();
      region = await steps.take(region);
      if (steps.failure !== null) return steps.failure;
      if (region > Atomics.load(words, PAIR.POINTER)) Atomics.store(words, PAIR.POINTER, region);
      const nowMs = performance.now();
      if (this.#askForHelp !== null && nowMs - beganMs > HELP_AFTER_MS) this.#considerHelp();
      if (nowMs - this.#persistedMs > PERSIST_MS && !this.#persist() && this.#failure !== null) return this.#failure;
      pace.rest(nowMs - startedMs);
    }
    Atomics.store(words, PAIR.POINTER, regions);
    return { end: 'done' };
  }

  #considerHelp(): void {
    const { block, dirtyRegionBytes } = this.#pair;
    if (countSet(block.primary) * dirtyRegionBytes >= HELP_BYTES_MIN) this.#askForHelp?.();
    this.#askForHelp = null;
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
      if (!this.#sync(this.#steps.legs().target)) return false;
      if (this.#takeFailures(PAIR.SEEN_SYNC_FAILURES, Atomics.load(block.words, PAIR.SYNC_FAILURES))) return false;
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
      // Somebody else's sync may have had the error that is about what was copied.
      if (!this.#takeFailures(this.#seenAt(leg), this.#failures.sum(leg.pvs))) return true;
      throw Object.assign(new Error('an earlier sync failed'), { code: 'EIO' });
    } catch (error) {
      mergeInto(this.#pair.block.primary, this.#undurable);
      return this.#fail(leg === this.#steps.legs().source ? 'source' : 'target', systemCode(error) || 'EIO');
    }
  }

  /** The word of the pair that says which failed syncs of the leg's physical volumes its copies have taken in. */
  #seenAt(leg: Leg): number {
    return leg === this.#pair.primary.leg ? PAIR.SEEN_PRIMARY : PAIR.SEEN_SECONDARY;
  }

  /** True: there were more since they were taken in last, and what was not durable yet is dirty again. */
  #takeFailures(seenAt: number, count: number): boolean {
    const { words, primary } = this.#pair.block;
    if (Atomics.load(words, seenAt) === count) return false;
    // In this order: whoever dies in between leaves the next one to do it again.
    mergeInto(primary, this.#undurable);
    Atomics.store(words, seenAt, count);
    return true;
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

const mergeFile = (bits: Int32Array, regions: number, file: BitmapFile): void => {
  const filed = file.read();
  if (filed === null) setRange(bits, 0, regions);
  else mergeInto(bits, filed);
};
