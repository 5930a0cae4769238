/**
 * The media under the volumes, as the main thread syncs them: one fdatasync for each physical volume, and nobody's error
 * lost on the way. The system tells of a failed write-back once, to whoever syncs next; so a failure is counted for
 * all volumes of that physical volume, and each of them takes notice of it (sync-failures.ts).
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { systemCode } from '../core/faults.ts';
import type { PlaneStore, VolumeState } from './plane-state.ts';
import type { Roster } from './roster.ts';
import { SyncFailures } from './sync-failures.ts';
import type { LegFailure } from './write-path.ts';

const fdatasync = promisify(fs.fdatasync);

export class Media {
  readonly #failures: SyncFailures;
  readonly #store: PlaneStore;
  readonly #roster: Roster;
  readonly #onLegFailed: (failure: LegFailure) => void;

  constructor(device: Int32Array, store: PlaneStore, roster: Roster, onLegFailed: (failure: LegFailure) => void) {
    this.#failures = new SyncFailures(device);
    this.#store = store;
    this.#roster = roster;
    this.#onLegFailed = onLegFailed;
  }

  /** A volume is served from here on. */
  begin(volume: VolumeState): void {
    this.#failures.begin(volume.spec.number, volume.pvs);
  }

  /** A volume has other regions than before. */
  moved(volume: VolumeState, before: readonly number[]): void {
    this.#failures.move(volume.spec.number, before, volume.pvs);
  }

  /** Somebody else's sync of these physical volumes failed. */
  failed(pvs: readonly number[]): void {
    for (const pv of pvs) this.#failures.count(pv);
  }

  /**
   * Syncs a volume and the other legs of its pairs. What a failure may have lost is marked dirty before this throws.
   * @throws an error with the system's code
   */
  async flush(number: number): Promise<void> {
    const legs = this.#roster.legsOf(number);
    const failures = await Promise.all([...new Set(legs.flatMap(({ pvs }) => pvs))].map((pv) => this.#sync(pv)));
    // A sync of somebody else may have had the error that is about this volume.
    const lost = legs.filter(({ spec, pvs }) => this.#failures.take('pairs', spec.number, pvs));
    const failure = failures.find((error) => error !== null) ?? null;
    const code = failure === null ? 'EIO' : systemCode(failure) || 'EIO';
    for (const { spec } of lost) {
      for (const pair of this.#roster.distrust(spec.number)) this.#onLegFailed({ pair: pair.spec.id, leg: 'primary', code });
    }
    if (failure !== null) throw failure;
    if (lost.length > 0) throw Object.assign(new Error(`an earlier sync of volume ${number} failed`), { code });
  }

  /** Flushes every volume that is in a pair. One that fails is marked (see `flush`), and the others go on. */
  async flushPaired(): Promise<void> {
    await Promise.allSettled(this.#roster.pairedVolumes().map((number) => this.flush(number)));
  }

  /** Makes durable what bitmaps, intents and paired volumes have. */
  async syncAll(): Promise<void> {
    const files = [...this.#roster.pairs.values()].flatMap((pair) => [pair.primaryFile, pair.secondaryFile]);
    for (const { intents } of this.#roster.volumes.values()) if (intents !== null) files.push(intents.file);
    await Promise.allSettled(files.map((file) => fdatasync(file.fd)));
    await this.flushPaired();
  }

  async #sync(pv: number): Promise<Error | null> {
    try {
      await fdatasync(this.#store.pvFd(pv));
      return null;
    } catch (error) {
      this.#failures.count(pv);
      return error as Error;
    }
  }
}
