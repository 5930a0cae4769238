/**
 * Regions for those who need them, and zeros for those who come after.
 *
 * A region that leaves a volume is put into a scrub list in the same journal record, so it belongs to nobody. It is
 * cleared in the background, and only then given to the unassigned-region table; after a crash the list is still there
 * and the work is done again. A list is cleared only when it is `ready`: no lane may still have the old region map.
 *
 * Volume create and grow get physical volumes added when regions are lacking; if those that are being cleared would do,
 * they are waited for first, for a bounded time. Region fitting never adds physical volumes (specification 5).
 */
import type { Logger } from 'pino';
import type { EventLog } from '../core/event-log.ts';
import { TwinvolError } from '../core/faults.ts';
import type { TableOp, VolumeRow } from '../core/rows.ts';
import { countRegions } from '../core/runs.ts';
import type { ScrubRow, Tables } from '../core/tables.ts';
import type { HolePuncher } from '../platform/hole-punch.ts';
import { scrubBehind, scrubRuns } from '../store/scrubber.ts';
import type { Store } from '../store/store.ts';
import { SharingLock } from './sharing-lock.ts';

/** How long a command waits for regions that are being cleared. */
export const SCRUB_WAIT_MS_DEFAULT: number = 10_000;
const SCRUB_RETRY_MS = 5000;
/** Attempts of a command whose regions another one took in between. */
const GROWTH_ATTEMPTS_MAX = 8;

export type RegionSupplyOptions = {
  readonly store: Store;
  /** Closed with this. */
  readonly puncher: HolePuncher;
  readonly log: Logger;
  readonly events: EventLog;
  readonly scrubWaitMs?: number;
  /** Clearing met an error on these physical volumes: a sync may have failed, which says so to one caller only. */
  readonly onMediumFailed?: (pvs: readonly number[]) => void;
};

export class RegionSupply {
  readonly #store: Store;
  readonly #puncher: HolePuncher;
  readonly #log: Logger;
  readonly #events: EventLog;
  readonly #scrubWaitMs: number;
  readonly #onMediumFailed: (pvs: readonly number[]) => void;
  readonly #taking = new SharingLock();
  readonly #ready = new Set<number>();
  readonly #stop = new AbortController();
  #work: Promise<void> | null = null;
  #retryTimer: NodeJS.Timeout | null = null;
  #waiters: Array<() => void> = [];

  constructor(options: RegionSupplyOptions) {
    this.#store = options.store;
    this.#puncher = options.puncher;
    this.#log = options.log;
    this.#events = options.events;
    this.#scrubWaitMs = options.scrubWaitMs ?? SCRUB_WAIT_MS_DEFAULT;
    this.#onMediumFailed = options.onMediumFailed ?? ((): void => undefined);
  }

  /** Regions that left a volume and are not cleared yet. */
  get scrubbingRegions(): number {
    return this.#store.tables.scrubs().reduce((sum, scrub) => sum + countRegions(scrub.runs), 0);
  }

  /** Clears the lists that an earlier run has left. Called once, before volumes are attached. */
  resume(): void {
    for (const scrub of this.#store.tables.scrubs()) this.ready(scrub.id);
  }

  /** No lane has the regions of this list in a map any more: they can be cleared. */
  ready(scrubId: number): void {
    this.#ready.add(scrubId);
    this.#work ??= this.#workOff();
  }

  /**
   * Commits a change that takes up to `regions` regions; physical volumes are added as needed.
   * @throws TwinvolError `REGIONS_MISSING`, `LIMIT`, `STORE_FULL`, `STORE_IO`, or what `change` throws
   */
  async commitGrowing(regions: number, change: (tables: Tables) => readonly TableOp[]): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      if (!this.#has(regions) && this.#store.tables.unassigned.freeRegions + this.scrubbingRegions >= regions)
        await this.waitForCleared(regions);
      await this.#store.ensureUnassigned(regions);
      try {
        return await this.commitTaking(change);
      } catch (error) {
        // Another command took what was there when this one looked.
        if (!(error instanceof TwinvolError) || error.code !== 'REGIONS_MISSING' || attempt >= GROWTH_ATTEMPTS_MAX) throw error;
      }
    }
  }

  /** Commits a change that may take regions, and adds none. @throws TwinvolError as `Store.commit` */
  commitTaking(change: (tables: Tables) => readonly TableOp[]): Promise<void> {
    return this.#taking.shared(() => this.#store.commit(change));
  }

  /**
   * Waits until no change that takes regions is under way, and keeps others waiting: what the tables say is unassigned
   * stays so until the returned function is called. For a change that is prepared over several steps.
   */
  reserve(): Promise<() => void> {
    return this.#taking.alone();
  }

  /**
   * To be called before a volume gets larger: what a fitting has left behind its end becomes zeros, before anybody sees it.
   * @throws TwinvolError `STORE_FULL`, `STORE_IO`; nothing that anybody can see has changed then
   */
  async clearBehind(row: VolumeRow, nextCapacityBytes: number): Promise<void> {
    if (nextCapacityBytes <= row.capacityBytes) return;
    await scrubBehind(this.#store, row, this.#puncher).catch((error: unknown) => {
      this.#onMediumFailed(row.runs.slice(-1).map(({ pv }) => pv));
      throw error;
    });
  }

  /** Physical volumes that would be added for that many regions. @throws TwinvolError `LIMIT` */
  plannedGrowth(regions: number): number {
    return this.#store.planPvGrowth(regions);
  }

  /** Waits until that many regions are unassigned, nothing is being cleared any more, or the time is over. */
  async waitForCleared(regions: number): Promise<void> {
    const deadlineMs = performance.now() + this.#scrubWaitMs;
    while (!this.#has(regions) && this.#work !== null && performance.now() < deadlineMs) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        timer = setTimeout(resolve, Math.max(1, deadlineMs - performance.now()));
      });
      clearTimeout(timer);
    }
  }

  /** Stops clearing; what is left is cleared by the next run. */
  async close(): Promise<void> {
    this.#stop.abort();
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    await this.#work;
    await this.#puncher.close();
  }

  #has(regions: number): boolean {
    return this.#store.tables.unassigned.freeRegions >= regions;
  }

  async #workOff(): Promise<void> {
    // The lists of this turn of the event loop are seen together.
    await Promise.resolve();
    try {
      for (let scrub = this.#next(); scrub !== undefined; scrub = this.#next()) await this.#clear(scrub);
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#retryLater(error);
    }
    this.#work = null;
    this.#wake();
  }

  #next(): ScrubRow | undefined {
    if (this.#stop.signal.aborted) return undefined;
    return this.#store.tables.scrubs().find((scrub) => this.#ready.has(scrub.id));
  }

  async #clear(scrub: ScrubRow): Promise<void> {
    const started = performance.now();
    const result = await scrubRuns(this.#store, scrub.runs, this.#puncher, this.#stop.signal).catch((error: unknown) => {
      if (!this.#stop.signal.aborted) this.#onMediumFailed([...new Set(scrub.runs.map(({ pv }) => pv))]);
      throw error;
    });
    await this.#store.commit([{ op: 'scrub-delete', id: scrub.id }]);
    this.#ready.delete(scrub.id);
    this.#log.debug(
      { scrub: scrub.id, regions: countRegions(scrub.runs), ...result, tookMs: Math.round(performance.now() - started) },
      'regions were cleared',
    );
    this.#wake();
  }

  #retryLater(error: unknown): void {
    this.#log.warn({ err: error }, 'clearing regions failed; they stay out of use, and it is tried again');
    const code = error instanceof TwinvolError ? error.code : 'INTERNAL';
    this.#events.append('warning', 'device', 'regions', {
      text: 'clearing regions failed; they stay out of use, and it is tried again',
      code,
      regions: this.scrubbingRegions,
    });
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = null;
      this.#work ??= this.#workOff();
    }, SCRUB_RETRY_MS).unref();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}
