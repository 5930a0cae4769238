/**
 * The data plane on the main thread: the `DataPlane` of plane-api.ts, made of workers, shared memory and bitmap files.
 *
 * It never reads or writes a host's bytes itself. Every change of what writes must do happens at the closed write
 * gate, in memory; what has to be on disk before or after is written by the same call, before it returns.
 */
import { EventEmitter } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { TwinvolError } from '../core/faults.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import type { ClientView } from '../core/views.ts';
import type { FaultRule, VerifyReport } from '../engine/api.ts';
import { nativeReport } from '../platform/native.ts';
import { Copies } from './copies.ts';
import { IntentCleaner } from './intent-cleaner.ts';
import { Clients } from './clients.ts';
import type { FromLane } from './lane-messages.ts';
import type { DataPlane, ExportPolicy, ListenOptions, PairProgress, PairSpec, PairSwitch, PlaneEvents, VolumeSpec } from './plane-api.ts';
import { PairState, type PlaneStore, VolumeState } from './plane-state.ts';
import { DEVICE, deviceBlock, LANE_COUNT_MAX, PAIR, SLOT_MAIN, SLOT_ZERO_WORKER, VOLUME } from './shared-memory.ts';
import { type AnyLink, WorkerSet } from './worker-set.ts';
import { WriteGate } from './write-gate.ts';

const fdatasync = promisify(fs.fdatasync);

export type DataPlaneOptions = {
  readonly store: PlaneStore;
  /** Lanes; default: one for each processor, at most 8. */
  readonly lanes?: number;
  readonly policy: ExportPolicy;
  readonly durability: 'power' | 'process';
};

export const openDataPlane = async (options: DataPlaneOptions): Promise<DataPlane> => {
  for (const folder of ['bitmaps', 'intents']) fs.mkdirSync(join(options.store.directory, folder), { recursive: true, mode: 0o700 });
  const plane = new Plane(options);
  await plane.started();
  return plane;
};

class Plane extends EventEmitter<PlaneEvents> implements DataPlane {
  readonly handover: 'descriptor' | 'own-listener';
  readonly laneCount: number;
  readonly #store: PlaneStore;
  readonly #policy: ExportPolicy;
  readonly #device = deviceBlock();
  readonly #gate = new WriteGate(this.#device, SLOT_MAIN);
  readonly #workers: WorkerSet;
  readonly #volumes = new Map<number, VolumeState>();
  readonly #pairs = new Map<number, PairState>();
  readonly #held = new Map<number, Array<() => void>>();
  readonly #clients: Clients;
  readonly #cleaner: IntentCleaner;
  readonly #copies: Copies;
  /** Jobs that the zero worker has taken and not answered. */
  readonly #zeroJobs = new Map<string, { readonly lane: number; readonly job: number }>();
  #survivesPowerLoss: boolean;
  #isDraining = false;
  #isClosed = false;

  constructor(options: DataPlaneOptions) {
    super();
    this.#store = options.store;
    this.#policy = options.policy;
    this.#survivesPowerLoss = options.durability === 'power';
    this.handover = nativeReport().fsExt ? 'descriptor' : 'own-listener';
    // Without a way to hand a descriptor to another thread, one lane listens itself.
    const wanted = options.lanes ?? Math.min(8, os.availableParallelism());
    this.laneCount = this.handover === 'own-listener' ? 1 : Math.min(LANE_COUNT_MAX, Math.max(1, wanted));
    this.#workers = new WorkerSet({
      device: this.#device,
      lanes: this.laneCount,
      canPunch: nativeReport().spaceReclaim !== 'none',
      events: {
        fromLane: (lane, message) => this.#fromLane(lane, message),
        fromZeroWorker: (message) => {
          if (message.type === 'leg-failed') this.#legFailed(message.failure);
          else this.#zeroed(message.lane, message.job, message.code);
        },
        lost: (slot, name, error) => this.#lost(slot, name, error),
      },
    });
    this.#clients = new Clients(this.#workers, this.handover);
    const view = this;
    this.#cleaner = new IntentCleaner(
      {
        volumes: () => this.#volumes.values(),
        pairsOf: (volume) => this.#pairsOf(volume),
        legFds: (volume) => this.#legFds(volume),
        get survivesPowerLoss() {
          return view.#survivesPowerLoss;
        },
      },
      this.#gate,
    );
    this.#copies = new Copies({
      device: this.#device,
      workers: this.#workers,
      survivesPowerLoss: () => this.#survivesPowerLoss,
      volume: (number) => this.#volume(number),
      onLegFailed: (failure) => this.#legFailed(failure),
      onDone: (pair) => this.emit('copyDone', { pair }),
      onFailed: (pair, leg, code) => this.emit('copyFailed', { pair, leg, code, message: `the copy's ${leg} failed: ${code}` }),
    });
  }

  async started(): Promise<void> {
    await this.setDurabilityOnWorkers();
  }

  async setDurabilityOnWorkers(): Promise<void> {
    this.#workers.broadcast({ type: 'durability', survivesPowerLoss: this.#survivesPowerLoss });
    await this.#workers.barrier();
  }

  // Volumes

  async volumeAttach(spec: VolumeSpec): Promise<void> {
    this.#volumes.set(spec.number, new VolumeState(spec, this.#store));
  }

  async volumeReplace(spec: VolumeSpec): Promise<void> {
    const volume = this.#volume(spec.number);
    volume.spec = spec;
    await this.#tellAgain(volume);
  }

  async volumeDetach(number: number): Promise<void> {
    const volume = this.#volumes.get(number);
    if (volume === undefined) return;
    this.#volumes.delete(number);
    volume.closeIntents(true);
    for (const link of this.#workers.links()) link.toldVolumes.delete(number);
    this.#workers.broadcast({ type: 'volume-gone', number });
    await this.#workers.barrier();
  }

  async volumeHold(number: number): Promise<void> {
    if (this.#held.has(number)) throw new TwinvolError('VOLUME_HELD', `volume ${number} is held by another command`);
    this.#held.set(number, []);
    await Promise.all(this.#workers.lanes.map((lane) => lane.ask((id) => ({ type: 'hold', id, volume: number }))));
  }

  async volumeUnhold(number: number): Promise<void> {
    const waiting = this.#held.get(number) ?? [];
    this.#held.delete(number);
    for (const lane of this.#workers.lanes) lane.send({ type: 'unhold', volume: number });
    await this.#workers.barrier();
    for (const find of waiting) find();
  }

  async volumeFlush(number: number): Promise<void> {
    if (this.#survivesPowerLoss) await Promise.all([...new Set(this.#legFds(number))].map((fd) => fdatasync(fd)));
  }

  /** Sends a changed volume to every worker that knows it, and waits until they have taken it in. */
  async #tellAgain(volume: VolumeState): Promise<void> {
    for (const link of this.#workers.links()) if (link.toldVolumes.has(volume.spec.number)) link.send(volume.message());
    this.#copies.tell(volume.spec.number, volume.message());
    await this.#workers.barrier();
  }

  // Pairs

  async pairAttach(spec: PairSpec, options: { readonly fresh: boolean }): Promise<{ readonly recoveredBytes: number; readonly dirtyBytes: number }> {
    const primary = this.#volume(spec.primary);
    const secondary = this.#volume(spec.secondary);
    primary.openIntents(options.fresh);
    secondary.openIntents(options.fresh);
    const pair = new PairState(spec, primary, this.#store, options.fresh);
    let recovered = 0;
    if (!options.fresh) {
      recovered = pair.addIntents(primary.intents, 'primary') + pair.addIntents(secondary.intents, 'secondary');
      if (recovered > 0) pair.persist();
    }
    this.#pairs.set(spec.id, pair);
    for (const link of this.#workers.links()) {
      this.#workers.tellPair(link, pair, primary, secondary);
      // Told before without intents: tell again.
      link.send(primary.message());
      link.send(secondary.message());
    }
    await this.#workers.barrier();
    return { recoveredBytes: Math.min(pair.capacityBytes * 2, recovered * spec.dirtyRegionBytes), dirtyBytes: pair.dirtyBytes().union };
  }

  async pairsSwitch(switches: readonly PairSwitch[]): Promise<{ readonly switched: boolean; readonly pauseMs: number }> {
    const pairs = switches.map((change) => ({ change, pair: this.#pair(change.id) }));
    let switched = true;
    const pauseMs = this.#gate.closed(() => {
      switched = pairs.every(({ change, pair }) => change.onlyIfClean !== true || pair.dirtyBytes().union === 0);
      if (!switched) return;
      for (const { change, pair } of pairs) pair.apply(change.mode, change.dirty);
    });
    if (switched) for (const { change, pair } of pairs) if (change.dirty === 'merge' || change.dirty === 'all') pair.persist();
    return { switched, pauseMs };
  }

  pairConfigure(id: number, changes: { readonly pace?: number; readonly fenceData?: boolean }): void {
    const { words } = this.#pair(id).block;
    if (changes.pace !== undefined) Atomics.store(words, PAIR.PACE, changes.pace);
    if (changes.fenceData === undefined) return;
    Atomics.store(words, PAIR.FENCE, changes.fenceData ? 1 : 0);
    if (!changes.fenceData) Atomics.store(words, PAIR.FENCED, 0);
  }

  async pairDetach(id: number): Promise<void> {
    const pair = this.#pairs.get(id);
    if (pair === undefined) return;
    await this.copyStop(id);
    this.#gate.closed(() => pair.apply('idle', 'keep'));
    this.#pairs.delete(id);
    for (const link of this.#workers.links()) link.toldPairs.delete(id);
    this.#workers.broadcast({ type: 'pair-gone', id });
    await this.#workers.barrier();
    pair.close(true);
    for (const number of [pair.spec.primary, pair.spec.secondary]) {
      const volume = this.#volumes.get(number);
      if (volume === undefined || this.#pairsOf(number).length > 0 || volume.intents === null) continue;
      const { intents } = volume;
      volume.intents = null;
      await this.#tellAgain(volume);
      intents.file.remove();
    }
  }

  pairProgress(id: number): PairProgress {
    return this.#copies.progress(this.#pair(id));
  }

  async pairMarkFrom(into: number, from: number): Promise<void> {
    const target = this.#pair(into);
    const source = this.#pair(from);
    const ratio = source.spec.dirtyRegionBytes / target.spec.dirtyRegionBytes;
    this.#copies.markFrom(target, source, ratio);
    target.persist();
  }

  // Copies

  copyStart(id: number): void {
    this.#copies.start(this.#pair(id));
  }

  copyStop(id: number): Promise<void> {
    return this.#copies.stop(id);
  }

  verify(id: number, options: { readonly repair: boolean; readonly signal?: AbortSignal }): Promise<Omit<VerifyReport, 'repaired'>> {
    return this.#copies.verify(this.#pair(id), options);
  }

  // Faults on purpose

  faultsSet(number: number, rules: readonly FaultRule[]): void {
    const volume = this.#volume(number);
    volume.setFaults(rules);
    void this.#tellAgain(volume);
  }

  faultHits(id: number): number {
    for (const volume of this.#volumes.values()) {
      for (const fault of volume.faults) if (fault.rule.id === id) return Atomics.load(new Int32Array(fault.counters), 1);
    }
    return 0;
  }

  // Clients

  listen(options: ListenOptions): Promise<readonly string[]> {
    return this.#clients.listen(options);
  }

  clients(): Promise<readonly ClientView[]> {
    return this.#clients.views();
  }

  clientsEnd(which: { readonly client?: number; readonly volume?: number }): Promise<number> {
    return this.#clients.end(which);
  }

  clientCount(volume?: number): number {
    return this.#clients.count(volume);
  }

  #fromLane(lane: number, message: Exclude<FromLane, { type: 'answer' }>): void {
    switch (message.type) {
      case 'ready':
        return;
      case 'find':
        return this.#find(lane, message);
      case 'list':
        return this.#workers.lanes[lane]?.send({ type: 'listed', ask: message.ask, entries: this.#isDraining ? [] : this.#policy.list(message.peer) });
      case 'opened':
        this.#clients.opened(lane, message);
        this.emit('clientOpened', { id: message.id, volume: message.volume, peer: message.peer });
        return;
      case 'closed':
        this.#clients.closed(lane, message.id);
        this.emit('clientClosed', { id: message.id, volume: message.volume, peer: message.peer, reason: message.reason });
        return;
      case 'leg-failed':
        return this.#legFailed(message.failure);
      case 'zero': {
        const zero = this.#workers.zeroWorker();
        this.#tellAll(zero, message.job.volume);
        this.#zeroJobs.set(`${lane}:${message.job.job}`, { lane, job: message.job.job });
        return zero.send({ type: 'zero', lane, job: message.job });
      }
    }
  }

  #zeroed(lane: number, job: number, code: string): void {
    this.#zeroJobs.delete(`${lane}:${job}`);
    this.#workers.lanes[lane]?.send({ type: 'zeroed', job, code });
  }

  #find(lane: number, message: Extract<FromLane, { type: 'find' }>): void {
    const link = this.#workers.lanes[lane];
    if (link === undefined) return;
    if (this.#isDraining) return link.send({ type: 'found', ask: message.ask, answer: { refused: 'shutdown', message: 'the engine is stopping' } });
    const answer = this.#policy.find(message.name, message.peer);
    if (!('refused' in answer)) {
      const held = this.#held.get(answer.volume);
      if (held !== undefined) {
        held.push(() => this.#find(lane, message));
        return;
      }
      this.#tellAll(link, answer.volume);
    }
    link.send({ type: 'found', ask: message.ask, answer });
  }

  /** Tells a worker of a volume and of the pairs that it is in. */
  #tellAll(link: AnyLink, number: number): void {
    const volume = this.#volumes.get(number);
    if (volume === undefined) return;
    this.#workers.tellVolume(link, volume);
    for (const pair of this.#pairsOf(number)) {
      this.#workers.tellPair(link, pair, this.#volume(pair.spec.primary), this.#volume(pair.spec.secondary));
    }
  }

  // Failures

  #legFailed(failure: { readonly pair: number; readonly leg: 'primary' | 'secondary'; readonly code: string }): void {
    if (!this.#pairs.has(failure.pair)) return;
    this.emit('legFailed', { ...failure, message: `a host's write or flush failed on the ${failure.leg}: ${failure.code}` });
  }

  /** A worker died inside of whatever it did: what it was writing may be on one leg only. */
  #lost(slot: number, name: string, error: unknown): void {
    const words = this.#device;
    const at = DEVICE.SLOT_FIRST + slot * DEVICE.SLOT_WORDS;
    const message = error instanceof Error ? error.message : String(error);
    if (words[at + DEVICE.SLOT_INSIDE] !== 0) {
      const volume = words[at + DEVICE.SLOT_VOLUME] as number;
      for (const pair of this.#pairsOf(volume)) {
        this.#copies.markGranules(pair, words[at + DEVICE.SLOT_FIRST_GRANULE] as number, words[at + DEVICE.SLOT_LAST_GRANULE] as number);
        if (pair.mode !== 'idle' && pair.mode !== 'tracking') this.emit('legFailed', { pair: pair.spec.id, leg: 'primary', code: 'EIO', message: `${name} died in a write` });
      }
    }
    for (const { block } of this.#pairs.values()) releaseWord(block.words, PAIR.FILE_LOCK, slot);
    for (const { intents } of this.#volumes.values()) if (intents !== null) releaseWord(intents.block.words, VOLUME.FILE_LOCK, slot);
    for (const client of this.#clients.laneLost(slot - 1)) this.emit('clientClosed', { ...client, reason: `${name} died` });
    if (slot === SLOT_ZERO_WORKER) for (const { lane, job } of [...this.#zeroJobs.values()]) this.#zeroed(lane, job, 'EIO');
    this.emit('workerLost', { worker: name, message });
    // A lane that comes back has to know what the dead one knew; the message arrives at the new one's start.
    setImmediate(() => void this.#retell(slot - 1));
  }

  async #retell(lane: number): Promise<void> {
    const link = this.#workers.lanes[lane];
    if (link === undefined || this.#isClosed) return;
    link.send({ type: 'durability', survivesPowerLoss: this.#survivesPowerLoss });
    for (const pair of this.#pairs.values()) this.#workers.tellPair(link, pair, this.#volume(pair.spec.primary), this.#volume(pair.spec.secondary));
    for (const volume of this.#held.keys()) await link.ask((id) => ({ type: 'hold', id, volume }));
  }

  // Bounds

  resyncBoundBytes(): number {
    let extents = 0;
    for (const { intents } of this.#volumes.values()) if (intents !== null) extents += Atomics.load(intents.block.words, VOLUME.MARKED);
    return extents * INTENT_EXTENT_BYTES;
  }

  setDurability(level: 'power' | 'process'): void {
    this.#survivesPowerLoss = level === 'power';
    void this.setDurabilityOnWorkers();
  }

  // End

  async drain(): Promise<void> {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#clients.stopListening();
    await this.clientsEnd({});
    await Promise.all([...this.#volumes.keys()].filter((number) => this.#pairsOf(number).length > 0).map((number) => this.volumeFlush(number)));
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.drain();
    this.#isClosed = true;
    await this.#copies.stopAll();
    await this.#workers.stop();
    for (const pair of this.#pairs.values()) pair.persist();
    await this.#cleaner.stop(true);
    for (const pair of this.#pairs.values()) pair.close(false);
    for (const volume of this.#volumes.values()) volume.closeIntents(false);
    this.#clients.removeSockets();
  }

  #volume(number: number): VolumeState {
    const volume = this.#volumes.get(number);
    if (volume === undefined) throw new TwinvolError('VOLUME_NOT_FOUND', `volume ${number} is not known to the data plane`);
    return volume;
  }

  #pair(id: number): PairState {
    const pair = this.#pairs.get(id);
    if (pair === undefined) throw new TwinvolError('PAIR_NOT_FOUND', `pair ${id} is not known to the data plane`);
    return pair;
  }

  #pairsOf(volume: number): PairState[] {
    return [...this.#pairs.values()].filter(({ spec }) => spec.primary === volume || spec.secondary === volume);
  }

  /** Descriptors of all legs that writes to the volume reach or reached. */
  #legFds(volume: number): number[] {
    const numbers = new Set([volume]);
    for (const { spec } of this.#pairsOf(volume)) {
      numbers.add(spec.primary);
      numbers.add(spec.secondary);
    }
    return [...numbers].flatMap((number) => this.#volumes.get(number)?.fds ?? []);
  }
}

const releaseWord = (words: Int32Array, index: number, slot: number): void => {
  if (Atomics.compareExchange(words, index, slot + 1, 0) === slot + 1) Atomics.notify(words, index);
};
