/**
 * Drops the marks of extents that went cold, so that what a crash would resync stays bounded by what is hot.
 *
 * In this order: (1) at a closed gate the extent is disarmed, so that no write that saw it armed is still under way and
 * the next one goes through the file lock; (2) the dirty bits of every pair that the volume is in, of both sides (a
 * resync may have moved them), are noted; (3) all legs are synced; (4) the noted bits are written and synced; (5) the
 * mark is taken out of the file, unless somebody armed it again meanwhile.
 *
 * Noted before the legs are synced: a bit that a copy clears later still goes to the file as set, and one that it has
 * cleared before is for data that the sync covers. So no bit is clear on disk whose data may be lost.
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { anySet, clearRange } from '../core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import type { BitmapFile } from '../store/bitmap-file.ts';
import { pageOfBit } from '../wire/bitmap-page.ts';
import { tryLockWord, unlockWord } from './intents.ts';
import type { IntentState, PairState, VolumeState } from './plane-state.ts';
import { SLOT_MAIN, VOLUME } from './shared-memory.ts';
import type { WriteGate } from './write-gate.ts';

const fdatasync = promisify(fs.fdatasync);
const PERIOD_MS = 2000;
/** Extents cleaned in one round of one volume. */
const BATCH = 1024;

export type CleanerView = {
  volumes(): Iterable<VolumeState>;
  /** Pairs that the volume belongs to, on either side. */
  pairsOf(volume: number): readonly PairState[];
  /** Makes every leg durable that writes to the volume reach or reached. */
  flushLegs(volume: number): Promise<void>;
  survivesPowerLoss(): boolean;
};

/** Pages of a bitmap as they were at one moment. */
type Noted = { readonly file: BitmapFile; readonly bits: Int32Array; readonly pages: readonly number[] };

export class IntentCleaner {
  readonly #view: CleanerView;
  readonly #gate: WriteGate;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(view: CleanerView, gate: WriteGate, periodMs: number = PERIOD_MS) {
    this.#view = view;
    this.#gate = gate;
    this.#timer = setInterval(() => void this.round(false), periodMs);
    this.#timer.unref();
  }

  /** No round runs any more when it resolves. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  /** Drops every mark that can be dropped. For the end: no host writes any more. */
  cleanAll(): Promise<void> {
    return this.round(true);
  }

  /** One round, after the one that runs. `all`: also what is not cold. */
  round(all: boolean): Promise<void> {
    this.#running = this.#running.then(async () => {
      for (const volume of [...this.#view.volumes()]) {
        if (volume.intents === null || !volume.mayDropMarks || (this.#isStopped && !all)) continue;
        try {
          await this.#clean(volume, volume.intents, all);
        } catch {
          // A leg or a file failed: the marks stay, which is the safe side.
        }
      }
    });
    return this.#running;
  }

  async #clean(volume: VolumeState, intents: IntentState, all: boolean): Promise<void> {
    const { number } = volume.spec;
    const cold = await this.#takeCold(intents, all);
    if (cold.length === 0) return;
    const locked: PairState[] = [];
    try {
      const noted: Noted[] = [];
      for (const pair of this.#view.pairsOf(number)) {
        if (pair.tryLockFiles()) {
          locked.push(pair);
          noted.push(...noteBits(pair, cold));
        } else if (noteBits(pair, cold).length > 0) {
          // Its files are in use: the extents are disarmed, and their marks stay until the next round.
          return;
        }
      }
      await this.#view.flushLegs(number);
      for (const { file, bits, pages } of noted) {
        for (const page of pages) file.writePages(bits, page, page + 1);
        if (this.#view.survivesPowerLoss()) await fdatasync(file.fd);
      }
      while (!tryLockWord(intents.block.words, VOLUME.FILE_LOCK, SLOT_MAIN)) await pause();
      try {
        if (volume.intents === intents) drop(intents, cold);
        if (volume.intents === intents && all) intents.file.sync();
      } finally {
        unlockWord(intents.block.words, VOLUME.FILE_LOCK);
      }
    } finally {
      for (const pair of locked) pair.unlockFiles();
    }
  }

  /** Disarms marked extents that were not written to since the last round. */
  async #takeCold(intents: IntentState, all: boolean): Promise<readonly number[]> {
    const { disk, armed, recent, extents } = intents.block;
    const cold: number[] = [];
    for (let extent = 0; extent < extents && (all || cold.length < BATCH); extent += 1) {
      if (disk[extent >>> 5] === 0) {
        extent |= 31;
        continue;
      }
      if (!anySet(disk, extent, extent + 1)) continue;
      if (recent[extent] !== 0 && !all) recent[extent] = 0;
      else cold.push(extent);
    }
    if (cold.length > 0) {
      await this.#gate.closedFromMain(() => {
        for (const extent of cold) clearRange(armed, extent, extent + 1);
      });
    }
    return cold;
  }
}

/** The dirty bits of the extents on both sides of a pair, as they are now; empty when there are none. */
const noteBits = (pair: PairState, extents: readonly number[]): Noted[] => {
  const ratio = INTENT_EXTENT_BYTES / pair.spec.dirtyRegionBytes;
  const noted: Noted[] = [];
  for (const [file, live] of [[pair.primaryFile, pair.block.primary] as const, [pair.secondaryFile, pair.block.secondary] as const]) {
    const pages = new Set<number>();
    for (const extent of extents) {
      const first = Math.floor(extent * ratio);
      const end = Math.min(pair.block.regions, Math.max(first + 1, Math.ceil((extent + 1) * ratio)));
      if (first >= end || !anySet(live, first, end)) continue;
      for (let page = pageOfBit(first); page <= pageOfBit(end - 1); page += 1) pages.add(page);
    }
    if (pages.size > 0) noted.push({ file, bits: live.slice(), pages: [...pages] });
  }
  return noted;
};

const drop = (intents: IntentState, cold: readonly number[]): void => {
  const { disk, armed, words } = intents.block;
  const pages = new Set<number>();
  for (const extent of cold) {
    if (anySet(armed, extent, extent + 1)) continue;
    clearRange(disk, extent, extent + 1);
    Atomics.sub(words, VOLUME.MARKED, 1);
    pages.add(pageOfBit(extent));
  }
  for (const page of pages) intents.file.writePages(disk, page, page + 1);
};

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
