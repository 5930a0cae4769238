/**
 * The worker threads of the data plane: lanes, the zero worker and the slow worker as long tasks of one Piscina pool, copy and verify
 * as tasks with an end. Starts them, tells them of volumes and pairs when they need to know, and replaces one that died.
 */
import { Piscina } from 'piscina';
import { workerFile } from '../platform/worker-file.ts';
import type { AsideTask, FromAsideWorker, ToAsideWorker } from './aside-worker.ts';
import type { ClientDeadlines, FromLane, TlsMaterial, ToLane } from './lane-messages.ts';
import type { LaneTask } from './lane-worker.ts';
import type { FromPairWorker, PairTask } from './pair-worker.ts';
import { PlaceQueue } from './place-queue.ts';
import type { PairState, VolumeState } from './plane-state.ts';
import { RangeLocks } from './range-locks.ts';
import { SLOT_COPY_FIRST, SLOT_COPY_HELPER, SLOT_SLOW_WORKER, SLOT_ZERO_WORKER } from './shared-memory.ts';
import { WorkerLink } from './worker-link.ts';
import type { PictureMessage } from './worker-volumes.ts';
import { WriteGate } from './write-gate.ts';

/** From the death of a thread to the start of another one for a task that waits. */
const REVIVE_MS = 200;
const ASIDE_WORKERS = 2;
/** A thread is kept so long for the next copy: to start one takes longer than a small resync. */
const IDLE_MS = 60_000;
/** Copies and verifies that run at once; more wait for their turn. A copy's helper has a place of its own. */
const PAIR_TASKS_MAX = 4;
const HELPERS = 1;

export type LaneLink = WorkerLink<ToLane, FromLane>;
export type AsideLink = WorkerLink<ToAsideWorker, FromAsideWorker>;
export type AnyLink = LaneLink | AsideLink;
/** Workers beside the lanes, by their slots. */
export type AsideSlot = typeof SLOT_ZERO_WORKER | typeof SLOT_SLOW_WORKER;

export type PairTaskPort = {
  readonly onMessage: (message: FromPairWorker) => void;
  /** How to send to it while it runs. */
  readonly link: (send: (message: PictureMessage) => void) => void;
  /** How to give it up while it waits for its turn. */
  readonly queued: (cancel: () => void) => void;
};

export type WorkerSetEvents = {
  readonly fromLane: (lane: number, message: Exclude<FromLane, { type: 'answer' }>) => void;
  readonly fromAsideWorker: (slot: AsideSlot, message: Exclude<FromAsideWorker, { type: 'answer' }>) => void;
  /**
   * A worker died. Called while its locks are still taken and its slot says what it was doing; what it returns is
   * called when they are free, before the worker is started again. `isReplaced`: another one takes over its task.
   */
  readonly lost: (slot: number, name: string, isReplaced: boolean, error: unknown) => () => void;
  /** A thread that had no task failed. */
  readonly threadFailed: (error: unknown) => void;
};

/** What a task is called, and whether another worker takes it over when its own dies. */
const TASKS: Readonly<Record<PairTask['kind'], { readonly name: string; readonly isReplaced: boolean }>> = {
  copy: { name: 'copy worker', isReplaced: true },
  help: { name: 'copy helper', isReplaced: false },
  verify: { name: 'verify worker', isReplaced: false },
};

export class WorkerSet {
  readonly lanes: LaneLink[] = [];
  readonly #aside = new Map<AsideSlot, AsideLink>();
  readonly #pool: Piscina;
  readonly #device: SharedArrayBuffer;
  readonly #events: WorkerSetEvents;
  readonly #canPunch: boolean;
  readonly #deadlines: ClientDeadlines;
  readonly #places = new PlaceQueue(Array.from({ length: PAIR_TASKS_MAX }, (_, index) => SLOT_COPY_FIRST + index));
  readonly #helperPlaces = new PlaceQueue([SLOT_COPY_HELPER]);
  readonly #tasks = new Set<Promise<unknown>>();
  #tls: TlsMaterial | null = null;
  #isStopping = false;

  constructor(options: { device: Int32Array; lanes: number; canPunch: boolean; deadlines: ClientDeadlines; events: WorkerSetEvents }) {
    this.#device = options.device.buffer as SharedArrayBuffer;
    this.#events = options.events;
    this.#canPunch = options.canPunch;
    this.#deadlines = options.deadlines;
    const { filename, execArgv } = workerFile('data/lane-worker');
    this.#pool = new Piscina({
      filename,
      execArgv,
      minThreads: options.lanes,
      maxThreads: options.lanes + ASIDE_WORKERS + PAIR_TASKS_MAX + HELPERS,
      idleTimeout: IDLE_MS,
      // Lanes need their event loop while they run.
      atomics: 'disabled',
      recordTiming: false,
    });
    this.#pool.on('error', (error: unknown) => this.#events.threadFailed(error));
    this.#pool.on('workerDestroy', () => this.#reviveSoon());
    for (let lane = 0; lane < options.lanes; lane += 1) this.#startLane(lane);
  }

  /** A thread that dies before it is ready leaves its task in the pool's queue, and the pool starts no other one by itself. */
  #reviveSoon(): void {
    setTimeout(() => {
      if (this.#isStopping || this.#pool.queueSize === 0) return;
      this.#pool.run(undefined, { filename: workerFile('data/idle-worker').filename }).catch(() => undefined);
    }, REVIVE_MS).unref();
  }

  setTls(tls: TlsMaterial): void {
    this.#tls = tls;
    for (const lane of this.lanes) lane.send({ type: 'tls', tls });
  }

  #startLane(lane: number): void {
    const slot = lane + 1;
    const link: LaneLink = new WorkerLink(slot, (message) => this.#events.fromLane(lane, message));
    const task: LaneTask = {
      lane,
      slot,
      device: this.#device,
      tls: this.#tls,
      canPunch: this.#canPunch,
      deadlines: this.#deadlines,
      port: link.remotePort,
    };
    this.lanes[lane] = link;
    this.#long('data/lane-worker', task, link, `lane ${lane}`, () => this.#startLane(lane));
  }

  /** A worker beside the lanes, started when it is first needed. */
  asideWorker(slot: AsideSlot): AsideLink {
    const known = this.#aside.get(slot);
    if (known !== undefined) return known;
    const link: AsideLink = new WorkerLink(slot, (message) => this.#events.fromAsideWorker(slot, message));
    const task: AsideTask = { slot, device: this.#device, port: link.remotePort };
    this.#aside.set(slot, link);
    const name = slot === SLOT_ZERO_WORKER ? 'zero worker' : 'slow worker';
    this.#long('data/aside-worker', task, link, name, () => this.#aside.delete(slot));
    return link;
  }

  #long(file: string, task: LaneTask | AsideTask, link: AnyLink, name: string, restart: () => void): void {
    const run = this.#pool
      .run(task, { filename: workerFile(file).filename, transferList: [task.port] })
      .then(() => link.close())
      .catch((error: unknown) => {
        link.close();
        if (this.#isStopping) return;
        this.#forget(link.slot, name, true, error);
        restart();
      })
      .finally(() => this.#tasks.delete(run));
    this.#tasks.add(run);
  }

  /** Runs a copy or verify to its end, when it is its turn. Null: it was given up before that. */
  pairTask<R>(make: (slot: number) => PairTask, port: PairTaskPort): Promise<R | null> {
    return this.#queuedTask(this.#places, make, port);
  }

  /** The same for a copy's helper. */
  helpTask<R>(make: (slot: number) => PairTask, port: PairTaskPort): Promise<R | null> {
    return this.#queuedTask(this.#helperPlaces, make, port);
  }

  async #queuedTask<R>(places: PlaceQueue, make: (slot: number) => PairTask, port: PairTaskPort): Promise<R | null> {
    const waiting = places.take();
    port.queued(() => waiting.cancel());
    const slot = await waiting.place;
    if (slot === null) return null;
    try {
      return await this.#runPairTask<R>(slot, make, port);
    } finally {
      places.give(slot);
    }
  }

  async #runPairTask<R>(slot: number, make: (slot: number) => PairTask, port: PairTaskPort): Promise<R> {
    const link = new WorkerLink<PictureMessage, FromPairWorker>(slot, port.onMessage);
    const task = { ...make(slot), port: link.remotePort };
    port.link((message) => link.send(message));
    const run = this.#pool.run(task, { filename: workerFile('data/pair-worker').filename, transferList: [link.remotePort] }) as Promise<R>;
    this.#tasks.add(run);
    try {
      return await run;
    } catch (error) {
      link.close();
      const { name, isReplaced } = TASKS[task.kind];
      this.#forget(slot, name, isReplaced, error);
      throw error;
    } finally {
      link.close();
      this.#tasks.delete(run);
    }
  }

  #forget(slot: number, name: string, isReplaced: boolean, error: unknown): void {
    const words = new Int32Array(this.#device);
    const tell = this.#events.lost(slot, name, isReplaced, error);
    RangeLocks.forget(words, slot);
    WriteGate.forget(words, slot);
    tell();
  }

  links(): readonly AnyLink[] {
    return [...this.lanes, ...this.#aside.values()];
  }

  tellVolume(link: AnyLink, volume: VolumeState): void {
    if (link.toldVolumes.has(volume.spec.number)) return;
    link.toldVolumes.add(volume.spec.number);
    link.send(volume.message());
  }

  tellPair(link: AnyLink, pair: PairState, primary: VolumeState, secondary: VolumeState): void {
    this.tellVolume(link, primary);
    this.tellVolume(link, secondary);
    if (link.toldPairs.has(pair.spec.id)) return;
    link.toldPairs.add(pair.spec.id);
    link.send(pair.message());
  }

  broadcast(message: PictureMessage): void {
    for (const link of this.links()) link.send(message);
  }

  /** Resolves when every worker has taken in all that was sent to it before. */
  async barrier(): Promise<void> {
    await Promise.all(this.links().map((link) => link.ask<boolean>((id) => ({ type: 'barrier', id }))));
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const link of this.links()) link.send({ type: 'stop' });
    await Promise.allSettled(this.#tasks);
    await this.#pool.destroy();
  }
}
