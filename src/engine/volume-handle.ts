/** A volume as the library's users hold it: named by its number, so it follows renames. */
import type { VolumeAttribute } from '../core/rows.ts';
import { parseSize } from '../core/units.ts';
import type { CandidateView, VolumeView } from '../core/views.ts';
import { connect } from '../nbd-client/nbd-client.ts';
import type { ConnectOptions } from '../nbd-client/connect-options.ts';
import type { NbdClient } from '../nbd-client/nbd-client.ts';
import type { Consent, Engine, PairCreateInput } from './api.ts';
import { Pair } from './pair-handle.ts';

/** Bytes, or a size as people type it: `64M`. */
export type Size = number | string;

export const bytesOf = (size: Size): number => (typeof size === 'number' ? size : parseSize(size));

export type PairOptions = Omit<PairCreateInput, 'primary' | 'secondary' | 'plan'> & { readonly consent?: Consent };

export class Volume {
  readonly number: number;
  readonly #engine: Engine;

  constructor(engine: Engine, view: VolumeView) {
    this.#engine = engine;
    this.number = view.number;
  }

  /** @throws TwinvolError `VOLUME_NOT_FOUND` once it is deleted */
  info(): VolumeView {
    return this.#engine.volumeShow(this.number);
  }
  get name(): string {
    return this.info().name;
  }
  /** Where NBD clients reach it. */
  get uri(): string {
    return this.#engine.uri(this.number);
  }

  /** A connection of our own NBD client; `await using` closes it. */
  connect(options: Omit<ConnectOptions, 'uri'> = {}): Promise<NbdClient> {
    return connect({ ...options, uri: this.uri });
  }

  /**
   * Forms a pair with this volume as the primary, and starts the initial copy.
   * @param secondary left out: the device chooses one from the pool
   */
  async pair(secondary?: Volume, options: PairOptions = {}): Promise<Pair> {
    const named = secondary === undefined ? {} : { secondary: secondary.number };
    const view = await this.#engine.pairCreate({ primary: this.number, ...named, ...options });
    if ('plan' in view) throw new Error('a plan was not asked for');
    return new Pair(this.#engine, view);
  }

  /** The pairs that this volume is in. */
  pairs(): readonly Pair[] {
    return this.#engine.pairStatus({ primary: this.number }).map((view) => new Pair(this.#engine, view));
  }

  /** Volumes that can be its secondary; with `explain` all volumes, and why one is not. */
  candidates(options: { readonly explain?: boolean } = {}): readonly CandidateView[] {
    return this.#engine.poolCandidates({ primary: this.number, ...options });
  }

  async rename(name: string): Promise<this> {
    await this.#engine.volumeRename({ volume: this.number, name });
    return this;
  }
  async grow(size: Size): Promise<this> {
    await this.#engine.volumeGrow({ volume: this.number, sizeBytes: bytesOf(size) });
    return this;
  }
  async set(changes: { readonly attribute?: VolumeAttribute; readonly protected?: boolean; readonly consent?: Consent }): Promise<this> {
    await this.#engine.volumeSet({ volume: this.number, ...changes });
    return this;
  }
  async delete(options: { readonly consent?: Consent } = {}): Promise<void> {
    await this.#engine.volumeDelete({ volume: this.number, ...options });
  }
}
