/**
 * Copies and verifies on the main thread: starts them in the worker pool, stops them, and says how far they are.
 */
import { availableParallelism } from 'node:os';
import { setRange } from '../core/dirty-bitmap.ts';
import { TwinvolError } from '../core/faults.ts';
import { LOCK_GRANULE_BYTES } from '../core/units.ts';
import type { VerifyReport } from '../engine/api.ts';
import { CopyHelp } from './copy-help.ts';
import type { HelpResult } from './copy-helper.ts';
import type { CopyResult } from './copy-task.ts';
import type { PairProgress, VerifyProgress } from './plane-api.ts';
import type { PairState, VolumeState } from './plane-state.ts';
import { RateWindow } from './rate-window.ts';
import { PAIR } from './shared-memory.ts';
import type { VerifyResult } from './verify-task.ts';
import type { WorkerSet } from './worker-set.ts';
import type { PictureMessage } from './worker-volumes.ts';
import type { LegFailure } from './write-path.ts';

type Running = {
  readonly pair: PairState;
  ended: Promise<void>;
  send: (message: PictureMessage) => void;
  /** Gives it up while it waits for its turn. */
  cancel: () => void;
  help: CopyHelp | null;
  isStopping: boolean;
  /** Asked for again while it was being stopped. */
  isWanted: boolean;
};

type Verifying = {
  readonly pair: PairState;
  readonly stop: () => void;
  readonly ended: Promise<void>;
  /** As `VerifyTask` has it. */
  readonly control: Int32Array;
  readonly rate: RateWindow;
};

/** So often a copy's worker may die before the copy is given up: another one would hardly fare better. */
const DEATHS_MAX = 3;

export type CopiesPlace = {
  readonly device: Int32Array;
  readonly workers: WorkerSet;
  readonly survivesPowerLoss: () => boolean;
  readonly volume: (number: number) => VolumeState;
  /** Makes every leg durable that writes to the volume reach. */
  readonly flush: (volume: number) => Promise<void>;
  readonly onLegFailed: (failure: LegFailure) => void;
  readonly onDone: (pair: number) => void;
  readonly onFailed: (pair: number, leg: 'source' | 'target' | 'worker', code: string) => void;
};

export class Copies {
  readonly #place: CopiesPlace;
  readonly #running = new Map<number, Running>();
  readonly #verifying = new Set<Verifying>();
  /** How often the worker of a pair's present copy died. */
  readonly #deaths = new Map<number, number>();

  constructor(place: CopiesPlace) {
    this.#place = place;
  }

  /** Starts the pair's copy. One that runs goes on; one that is being stopped starts again when it has ended. */
  start(pair: PairState): void {
    const { id } = pair.spec;
    const known = this.#running.get(id);
    if (known !== undefined) {
      known.isWanted = known.isStopping;
      return;
    }
    Atomics.store(pair.block.words, PAIR.COPY_STOP, 0);
    Atomics.store(pair.block.words, PAIR.COPY_ACTIVE, 1);
    const running: Running = {
      pair,
      send: () => {},
      cancel: () => {},
      help: null,
      ended: Promise.resolve(),
      isStopping: false,
      isWanted: false,
    };
    for (const { help } of this.#running.values()) void help?.end();
    this.#running.set(id, running);
    const task = this.#place.workers.pairTask<CopyResult>(
      (slot) => ({ ...this.#common(pair, slot), kind: 'copy', file: { path: pair.primaryFile.path, fd: pair.primaryFile.fd } }),
      {
        onMessage: (message) => {
          if (message.type === 'leg-failed') this.#place.onLegFailed(message.failure);
          else this.#help(running);
        },
        link: (send) => {
          running.send = send;
        },
        queued: (cancel) => {
          running.cancel = cancel;
        },
      },
    );
    running.ended = task.then(
      async (result) => {
        const failure = await running.help?.end();
        this.#ended(running, result?.end === 'failed' ? result : (failure ?? result ?? { end: 'stopped' }));
      },
      async () => {
        await running.help?.end();
        this.#died(running);
      },
    );
  }

  /** Where several copies run, or there is one processor, the copies keep it busy. */
  #help(running: Running): void {
    const { pair } = running;
    if (this.#running.size > 1 || running.isStopping || availableParallelism() < 2) return;
    running.help = new CopyHelp(pair, (port) =>
      this.#place.workers.helpTask<HelpResult>((slot) => ({ ...this.#common(pair, slot), kind: 'help' }), {
        // A helper writes by no write path that could meet a failing leg.
        onMessage: () => {},
        ...port,
      }),
    );
  }

  #common(pair: PairState, slot: number) {
    const { volume, device, survivesPowerLoss } = this.#place;
    return {
      slot,
      device: device.buffer as SharedArrayBuffer,
      volumes: [volume(pair.spec.primary).message(), volume(pair.spec.secondary).message()],
      pair: pair.message(),
      survivesPowerLoss: survivesPowerLoss(),
      // Replaced by the pool's end of the port.
      port: undefined as never,
    };
  }

  /** Its thread is gone, which the operators were told. What it had not copied is dirty, so another one can go on. */
  #died(running: Running): void {
    const { id } = running.pair.spec;
    const deaths = (this.#deaths.get(id) ?? 0) + 1;
    if (running.isStopping) return this.#ended(running, { end: 'stopped' });
    if (deaths >= DEATHS_MAX) {
      this.#letGo(running);
      return this.#place.onFailed(id, 'worker', 'WORKER_DIED');
    }
    this.#running.delete(id);
    this.#deaths.set(id, deaths);
    this.start(running.pair);
  }

  #letGo({ pair }: Running): void {
    this.#running.delete(pair.spec.id);
    this.#deaths.delete(pair.spec.id);
    Atomics.store(pair.block.words, PAIR.COPY_ACTIVE, 0);
  }

  #ended(running: Running, result: CopyResult): void {
    const { pair, isWanted } = running;
    const { id } = pair.spec;
    this.#letGo(running);
    if (result.end === 'done') this.#place.onDone(id);
    else if (result.end === 'failed') this.#place.onFailed(id, result.leg, result.code);
    else if (isWanted) this.start(pair);
  }

  /** Resolves when the copy has let go of the pair. */
  async stop(id: number): Promise<void> {
    const running = this.#running.get(id);
    if (running === undefined) return;
    running.isStopping = true;
    running.isWanted = false;
    running.cancel();
    Atomics.store(running.pair.block.words, PAIR.COPY_STOP, 1);
    Atomics.notify(running.pair.block.words, PAIR.COPY_STOP);
    await running.ended;
  }

  /** Resolves when nobody verifies the pair any more. */
  async stopVerify(id: number): Promise<void> {
    const ours = [...this.#verifying].filter(({ pair }) => pair.spec.id === id);
    for (const { stop } of ours) stop();
    await Promise.all(ours.map(({ ended }) => ended));
  }

  async stopAll(): Promise<void> {
    for (const { stop } of this.#verifying) stop();
    await Promise.all([...this.#running.keys()].map((id) => this.stop(id)));
  }

  /** Tells running copies of the device's durability level. */
  tellDurability(survivesPowerLoss: boolean): void {
    for (const { send } of this.#running.values()) send({ type: 'durability', survivesPowerLoss });
  }

  /** Tells running copies of a changed volume. */
  tell(volume: number, message: PictureMessage): void {
    for (const { pair, send, help } of this.#running.values()) {
      if (pair.spec.primary !== volume && pair.spec.secondary !== volume) continue;
      send(message);
      help?.send(message);
    }
  }

  async verify(
    pair: PairState,
    options: { readonly repair: boolean; readonly signal?: AbortSignal },
  ): Promise<Omit<VerifyReport, 'repaired' | 'dirtyBytes'>> {
    const startedMs = performance.now();
    const control = new Int32Array(new SharedArrayBuffer(12));
    let cancel = (): void => {};
    const stop = (): void => {
      Atomics.store(control, 0, 1);
      cancel();
    };
    const task = this.#place.workers.pairTask<VerifyResult>(
      (slot) => ({ ...this.#common(pair, slot), kind: 'verify', control: control.buffer, repair: options.repair }),
      {
        onMessage: (message) => {
          if (message.type === 'leg-failed') this.#place.onLegFailed(message.failure);
        },
        link: () => {},
        queued: (give) => {
          cancel = give;
        },
      },
    );
    const work = task.then(async (result) => {
      // What it found is no host's write and has no mark: it is written at once.
      const isFound = result !== null && options.repair && result.differingBytes > 0;
      if (isFound)
        await pair.persistLive(
          () => {},
          () => this.#place.flush(pair.spec.primary),
        );
      return result;
    });
    const verifying: Verifying = {
      pair,
      stop,
      control,
      rate: new RateWindow(),
      ended: work.then(
        () => undefined,
        () => undefined,
      ),
    };
    this.#verifying.add(verifying);
    options.signal?.addEventListener('abort', stop);
    if (options.signal?.aborted === true) stop();
    try {
      const result = await work.catch((error: unknown) => {
        throw new TwinvolError('INTERNAL', `the verify's worker died: ${error instanceof Error ? error.message : String(error)}`, {
          remedy: 'start it again',
          cause: error,
        });
      });
      if (result?.end === 'failed')
        throw new TwinvolError('STORE_IO', `verify could not read a leg: ${result.code}`, {
          details: { checkedBytes: result.checkedBytes },
        });
      if (result === null || result.end === 'stopped')
        throw new TwinvolError('TIMEOUT', `verify was stopped after ${result?.checkedBytes ?? 0} bytes`, { remedy: 'start it again' });
      const { checkedBytes, differingBytes, differing } = result;
      return { checkedBytes, differingBytes, differing, durationMs: performance.now() - startedMs };
    } finally {
      this.#verifying.delete(verifying);
      options.signal?.removeEventListener('abort', stop);
    }
  }

  progress(pair: PairState): PairProgress {
    const { regions } = pair.block;
    const dirtyBytes = pair.dirtyBytes();
    const isCopying = pair.mode === 'copying' || pair.mode === 'restoring';
    const copiedBytes = pair.copiedBytes();
    if (!isCopying) {
      const isWhole = pair.mode === 'mirroring';
      const percent = isWhole ? 100 : Math.floor((1 - dirtyBytes.union / pair.capacityBytes) * 1000) / 10;
      return {
        pointer: { region: isWhole ? regions : 0, regions, percent },
        dirtyBytes,
        copiedBytes,
        rateBytesPerSecond: null,
        etaMs: null,
        secondaryWritten: pair.secondaryWritten(),
      };
    }
    const doneBytes = Math.max(0, pair.copyTotalBytes - dirtyBytes.primary);
    const percent = pair.copyTotalBytes === 0 ? 100 : Math.min(100, Math.floor((doneBytes / pair.copyTotalBytes) * 1000) / 10);
    const rate = pair.rate.sample(doneBytes);
    return {
      pointer: { region: Atomics.load(pair.block.words, PAIR.POINTER), regions, percent },
      dirtyBytes,
      copiedBytes,
      rateBytesPerSecond: rate,
      etaMs: rate === null || rate === 0 ? null : Math.ceil((dirtyBytes.primary / rate) * 1000),
      secondaryWritten: pair.secondaryWritten(),
    };
  }

  /** Of the pair's verify that began last; null when there is none. */
  verifyProgress(pair: PairState): VerifyProgress | null {
    const verifying = [...this.#verifying].filter((one) => one.pair === pair).at(-1);
    if (verifying === undefined) return null;
    const { control, rate } = verifying;
    const { capacityBytes, spec } = pair;
    const checkedBytes = Math.min(capacityBytes, Atomics.load(control, 1) * LOCK_GRANULE_BYTES);
    const bytesPerSecond = rate.sample(checkedBytes);
    return {
      checkedBytes,
      totalBytes: capacityBytes,
      differingBytes: Math.min(capacityBytes, Atomics.load(control, 2) * spec.dirtyRegionBytes),
      rateBytesPerSecond: bytesPerSecond,
      etaMs: bytesPerSecond === null || bytesPerSecond === 0 ? null : Math.ceil(((capacityBytes - checkedBytes) / bytesPerSecond) * 1000),
    };
  }

  /** ORs one pair's primary bits into another's, whose regions may have another size. */
  markFrom(target: PairState, source: PairState, ratio: number): void {
    for (let region = 0; region < source.block.regions; region += 1) {
      const word = source.block.primary[region >>> 5] as number;
      if (word === 0) {
        region |= 31;
        continue;
      }
      if (((word >>> (region & 31)) & 1) === 0) continue;
      const first = Math.floor(region * ratio);
      const end = Math.min(target.block.regions, Math.max(first + 1, Math.ceil((region + 1) * ratio)));
      if (first < end) setRange(target.block.primary, first, end);
    }
  }
}
