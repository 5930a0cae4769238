/** A pair as the library's users hold it: named by its id, so it follows renames. */
import { TwinvolError } from '../core/faults.ts';
import type { PairState, VolumeAttribute } from '../core/rows.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { Consent, Engine, VerifyReport } from './api.ts';

/** How long `wait` waits when nothing else is said. */
const WAIT_MS_DEFAULT = 60_000;

export type CopyOptions = { readonly consent?: Consent; readonly pace?: number; readonly checksum?: boolean };

export class Pair {
  readonly id: number;
  readonly #engine: Engine;
  readonly #primary: number;
  readonly #secondary: number;

  constructor(engine: Engine, view: PairView) {
    this.#engine = engine;
    this.id = view.id;
    this.#primary = view.primary.number;
    this.#secondary = view.secondary.number;
  }

  /** State, copy pointer, dirty bytes, rate. @throws TwinvolError `PAIR_NOT_FOUND` once it is released */
  status(): PairView {
    const view = this.#engine.pairStatus({ primary: this.#primary }).find((pair) => pair.id === this.id);
    if (view === undefined) throw new TwinvolError('PAIR_NOT_FOUND', `pair ${this.id} was released`);
    return view;
  }

  get state(): PairState {
    return this.#engine.pairStatus().find((pair) => pair.id === this.id)?.state ?? 'simplex';
  }

  /** @throws TwinvolError `TIMEOUT`, `WAIT_IMPOSSIBLE` */
  async wait(state: PairState, options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {}): Promise<this> {
    await this.#engine.pairWait({ ...this.#ref, state, timeoutMs: options.timeoutMs ?? WAIT_MS_DEFAULT }, options.signal);
    return this;
  }

  /** The secondary keeps the image of this moment. @throws TwinvolError `PAIR_STATE` unless duplex */
  async split(): Promise<this> {
    await this.#engine.pairSplit(this.#ref);
    return this;
  }

  /** The same at a later moment; null takes it back. `status().scheduledSplit` tells what became of it. */
  async splitAt(moment: Date | null): Promise<this> {
    await this.#engine.pairSplit({ ...this.#ref, atMs: moment === null ? null : moment.getTime() });
    return this;
  }

  /** Copies what differs to the secondary, and mirrors again. @throws TwinvolError `MOUNTED` while somebody uses it */
  async resync(options: CopyOptions = {}): Promise<this> {
    await this.#engine.pairResync({ ...this.#ref, ...options });
    return this;
  }

  /** Takes the primary back to the secondary's image. @throws TwinvolError `MOUNTED` while somebody uses either */
  async restore(options: CopyOptions = {}): Promise<this> {
    await this.#engine.pairRestore({ ...this.#ref, ...options });
    return this;
  }

  /** What the next resync or restore would copy and destroy. */
  async plan(command: 'resync' | 'restore'): Promise<PlanView> {
    const input = { ...this.#ref, plan: true };
    return (await (command === 'resync' ? this.#engine.pairResync(input) : this.#engine.pairRestore(input))) as PlanView;
  }

  async set(changes: { readonly pace?: number; readonly fence?: 'never' | 'data' }): Promise<this> {
    await this.#engine.pairSet({ ...this.#ref, ...changes });
    return this;
  }

  /** Compares the legs under load; with `repair` what differs is copied again. */
  verify(options: { readonly repair?: boolean; readonly signal?: AbortSignal } = {}): Promise<VerifyReport> {
    const { signal, ...input } = options;
    return this.#engine.pairVerify({ ...this.#ref, ...input }, signal);
  }

  /** Takes the pair apart. @param then the secondary's attribute afterwards; default: the device's setting */
  async release(then?: VolumeAttribute): Promise<void> {
    await this.#engine.pairRelease({ ...this.#ref, ...(then === undefined ? {} : { then }) });
  }

  get #ref(): { readonly primary: number; readonly secondary: number } {
    return { primary: this.#primary, secondary: this.#secondary };
  }
}
