/**
 * Drops the marks of extents that went cold, so that what a crash would resync stays bounded by what is hot.
 *
 * In this order: (1) at a closed gate the extent is disarmed, so that no write that saw it armed is still under way and
 * the next one goes through the file lock; (2) all legs are synced, and dirty bits of the extent that are not in their
 * file yet are written and synced; (3) the mark is taken out of the file, unless somebody armed it again meanwhile.
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { anySet, clearRange } from '../core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import { pageOfBit } from '../wire/bitmap-page.ts';
import { tryLockWord, unlockWord } from './intents.ts';
import type { IntentState, PairState, VolumeState } from './plane-state.ts';
import { PAIR, SLOT_MAIN, VOLUME } from './shared-memory.ts';
import type { WriteGate } from './write-gate.ts';

const fdatasync = promisify(fs.fdatasync);
const PERIOD_MS = 2000;
/** Extents cleaned in one round of one volume. */
const BATCH = 1024;

export type CleanerView = {
  volumes(): Iterable<VolumeState>;
  /** Pairs that the volume belongs to, on either side. */
  pairsOf(volume: number): readonly PairState[];
  legFds(volume: number): readonly number[];
  readonly survivesPowerLoss: boolean;
};

export class IntentCleaner {
  readonly #view: CleanerView;
  readonly #gate: WriteGate;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(view: CleanerView, gate: WriteGate) {
    this.#view = view;
    this.#gate = gate;
    this.#timer = setInterval(() => this.#round(false), PERIOD_MS);
    this.#timer.unref();
  }

  #round(all: boolean): void {
    this.#running = this.#running.then(async () => {
      for (const volume of this.#view.volumes()) {
        if (volume.intents === null || (this.#isStopped && !all)) continue;
        try {
          await this.#clean(volume, volume.intents, all);
        } catch {
          // A leg or the file failed: the marks stay, which is the safe side; hosts meet the same error themselves.
        }
      }
    });
  }

  /** Stops the rounds; with `all`, drops every mark that can be dropped (no host writes any more). */
  async stop(all: boolean): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    if (all) this.#round(true);
    await this.#running;
  }

  async #clean(volume: VolumeState, intents: IntentState, all: boolean): Promise<void> {
    const cold = this.#takeCold(intents, all);
    if (cold.length === 0) return;
    const { number } = volume.spec;
    if (this.#view.survivesPowerLoss) await Promise.all([...new Set(this.#view.legFds(number))].map((fd) => fdatasync(fd)));
    for (const pair of this.#view.pairsOf(number)) if (!(await this.#persistBits(pair, number, cold))) return;
    while (!tryLockWord(intents.block.words, VOLUME.FILE_LOCK, SLOT_MAIN)) await pause();
    try {
      if (volume.intents === intents) this.#drop(intents, cold);
    } finally {
      unlockWord(intents.block.words, VOLUME.FILE_LOCK);
    }
    if (all) intents.file.sync();
  }

  /** Disarms marked extents that were not written to since the last round. */
  #takeCold(intents: IntentState, all: boolean): readonly number[] {
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
      this.#gate.closed(() => {
        for (const extent of cold) clearRange(armed, extent, extent + 1);
      });
    }
    return cold;
  }

  /** Dirty bits of the extents, to the file and durable. False: the file is in use, try again in the next round. */
  async #persistBits(pair: PairState, volume: number, cold: readonly number[]): Promise<boolean> {
    const isPrimary = pair.spec.primary === volume;
    const bits = isPrimary ? pair.block.primary : pair.block.secondary;
    const file = isPrimary ? pair.primaryFile : pair.secondaryFile;
    const ratio = INTENT_EXTENT_BYTES / pair.spec.dirtyRegionBytes;
    const pages = new Set<number>();
    for (const extent of cold) {
      const first = Math.floor(extent * ratio);
      const end = Math.min(pair.block.regions, Math.max(first + 1, Math.ceil((extent + 1) * ratio)));
      if (first >= end || !anySet(bits, first, end)) continue;
      for (let page = pageOfBit(first); page <= pageOfBit(end - 1); page += 1) pages.add(page);
    }
    if (pages.size === 0) return true;
    if (!tryLockWord(pair.block.words, PAIR.FILE_LOCK, SLOT_MAIN)) return false;
    try {
      for (const page of pages) file.writePages(bits, page, page + 1);
      if (this.#view.survivesPowerLoss) await fdatasync(file.fd);
      return true;
    } finally {
      unlockWord(pair.block.words, PAIR.FILE_LOCK);
    }
  }

  #drop(intents: IntentState, cold: readonly number[]): void {
    const { disk, armed, words } = intents.block;
    const pages = new Set<number>();
    let dropped = 0;
    for (const extent of cold) {
      if (anySet(armed, extent, extent + 1)) continue;
      clearRange(disk, extent, extent + 1);
      dropped += 1;
      pages.add(pageOfBit(extent));
    }
    for (const page of pages) intents.file.writePages(disk, page, page + 1);
    Atomics.sub(words, VOLUME.MARKED, dropped);
  }
}

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
