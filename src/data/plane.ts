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
import type { ClientView } from '../core/views.ts';
import type { FaultRule, VerifyReport } from '../engine/api.ts';
import { nativeReport } from '../platform/native.ts';
import { Copies } from './copies.ts';
import { IntentCleaner } from './intent-cleaner.ts';
import { Clients } from './clients.ts';
import { countersOf } from './fault-rules.ts';
import { CLIENT_DEADLINES, type ClientDeadlines } from './lane-messages.ts';
import { LaneDesk } from './lane-desk.ts';
import type {
  DataPlane,
  ExportPolicy,
  FaultCounters,
  ListenOptions,
  PairProgress,
  PairSpec,
  PairSwitch,
  PlaneEvents,
  VerifyProgress,
  VolumeSpec,
} from './plane-api.ts';
import { type AttachedPair, type AttachOptions, PairMembership } from './pair-membership.ts';
import { switchPairs } from './pair-switch.ts';
import { Media } from './media.ts';
import { type PlaneStore, VolumeState } from './plane-state.ts';
import { Roster } from './roster.ts';
import { deviceBlock, LANE_COUNT_MAX, PAIR, SLOT_MAIN, SLOT_SLOW_WORKER, SLOT_ZERO_WORKER } from './shared-memory.ts';
import { WorkerSet } from './worker-set.ts';
import { WriteGate } from './write-gate.ts';

export type DataPlaneOptions = {
  readonly store: PlaneStore;
  /** Lanes; default: one for each processor, at most 8. */
  readonly lanes?: number;
  readonly policy: ExportPolicy;
  readonly durability: 'power' | 'process';
  /** Shorter ones than usual, for tests. */
  readonly deadlines?: Partial<ClientDeadlines>;
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
  readonly #damage = new Set<string>();
  readonly #workers: WorkerSet;
  readonly #roster = new Roster();
  readonly #media: Media;
  readonly #clients: Clients;
  readonly #desk: LaneDesk;
  readonly #cleaner: IntentCleaner;
  readonly #copies: Copies;
  readonly #membership: PairMembership;
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
      deadlines: { ...CLIENT_DEADLINES, ...options.deadlines },
      events: {
        fromLane: (lane, message) => this.#desk.message(lane, message),
        fromAsideWorker: (slot, message) => {
          if (message.type === 'leg-failed') this.#legFailed(message.failure);
          else this.#desk.done(slot, message.done);
        },
        lost: (slot, name, isReplaced, error) => this.#lost(slot, name, isReplaced, error),
        threadFailed: (error) => this.#tellLost('worker thread', true, error),
      },
    });
    this.#media = new Media(this.#device, this.#store, this.#roster, (failure) => this.#legFailed(failure));
    this.#clients = new Clients(this.#workers, this.handover);
    this.#desk = new LaneDesk({
      workers: this.#workers,
      roster: this.#roster,
      clients: this.#clients,
      policy: this.#policy,
      onOpened: (client) => this.emit('clientOpened', client),
      onClosed: (client) => this.emit('clientClosed', client),
      onLegFailed: (failure) => this.#legFailed(failure),
    });
    this.#cleaner = new IntentCleaner(
      {
        volumes: () => this.#roster.volumes.values(),
        pairsOf: (volume) => this.#roster.pairsOf(volume),
        flushLegs: (volume) => this.volumeFlush(volume),
        survivesPowerLoss: () => this.#survivesPowerLoss,
      },
      this.#gate,
    );
    this.#copies = new Copies({
      device: this.#device,
      workers: this.#workers,
      survivesPowerLoss: () => this.#survivesPowerLoss,
      volume: (number) => this.#roster.volume(number),
      flush: (volume) => this.volumeFlush(volume),
      onLegFailed: (failure) => this.#legFailed(failure),
      onDone: (pair) => this.emit('copyDone', { pair }),
      onFailed: (pair, leg, code) => this.emit('copyFailed', { pair, leg, code, message: `the copy's ${leg} failed: ${code}` }),
    });
    this.#membership = new PairMembership({
      store: this.#store,
      roster: this.#roster,
      workers: this.#workers,
      gate: this.#gate,
      copies: this.#copies,
      tellAgain: (volume) => this.#tellAgain(volume),
      onDamage: (text) => this.#damage.add(text),
    });
  }

  async started(): Promise<void> {
    await this.setDurabilityOnWorkers();
  }

  async setDurabilityOnWorkers(): Promise<void> {
    this.#workers.broadcast({ type: 'durability', survivesPowerLoss: this.#survivesPowerLoss });
    this.#copies.tellDurability(this.#survivesPowerLoss);
    await this.#workers.barrier();
  }

  // Volumes

  async volumeAttach(spec: VolumeSpec): Promise<void> {
    const volume = new VolumeState(spec, this.#store);
    this.#roster.volumes.set(spec.number, volume);
    this.#media.begin(volume);
  }

  async volumeReplace(spec: VolumeSpec): Promise<void> {
    const volume = this.#roster.volume(spec.number);
    const before = volume.pvs;
    volume.spec = spec;
    this.#media.moved(volume, before);
    await this.#tellAgain(volume);
  }

  async volumeDetach(number: number): Promise<void> {
    const volume = this.#roster.volumes.get(number);
    if (volume === undefined) return;
    this.#roster.volumes.delete(number);
    for (const link of this.#workers.links()) link.toldVolumes.delete(number);
    this.#workers.broadcast({ type: 'volume-gone', number });
    await this.#workers.barrier();
    volume.closeIntents(true);
  }

  volumeHold(number: number): Promise<void> {
    return this.#desk.hold(number);
  }

  volumeUnhold(number: number): Promise<void> {
    return this.#desk.unhold(number);
  }

  async volumeFlush(number: number): Promise<void> {
    if (this.#survivesPowerLoss) await this.#media.flush(number);
  }

  fileDamage(): readonly string[] {
    return [...this.#damage];
  }

  mediumFailed(pvs: readonly number[]): void {
    this.#media.failed(pvs);
  }

  /** Sends a changed volume to every worker that knows it, and waits until they have taken it in. */
  async #tellAgain(volume: VolumeState): Promise<void> {
    for (const link of this.#workers.links()) if (link.toldVolumes.has(volume.spec.number)) link.send(volume.message());
    this.#copies.tell(volume.spec.number, volume.message());
    await this.#workers.barrier();
  }

  // Pairs

  pairAttach(spec: PairSpec, options: AttachOptions): Promise<AttachedPair> {
    return this.#membership.attach(spec, options);
  }

  async pairsSwitch(switches: readonly PairSwitch[]): Promise<{ readonly switched: boolean; readonly pauseMs: number }> {
    const pairs = switches.map((change) => ({ change, pair: this.#roster.pair(change.id) }));
    const done = await switchPairs(this.#gate, pairs);
    if (done.switched)
      for (const { pair } of pairs)
        for (const number of [pair.spec.primary, pair.spec.secondary]) this.#roster.volume(number).mayDropMarks = true;
    return done;
  }

  pairConfigure(id: number, changes: { readonly pace?: number; readonly fenceData?: boolean; readonly isFenced?: boolean }): void {
    const { words } = this.#roster.pair(id).block;
    if (changes.isFenced !== undefined) Atomics.store(words, PAIR.FENCED, changes.isFenced ? 1 : 0);
    if (changes.pace !== undefined) Atomics.store(words, PAIR.PACE, changes.pace);
    if (changes.fenceData === undefined) return;
    Atomics.store(words, PAIR.FENCE, changes.fenceData ? 1 : 0);
    if (!changes.fenceData) Atomics.store(words, PAIR.FENCED, 0);
  }

  pairDetach(id: number): Promise<void> {
    return this.#membership.detach(id);
  }

  pairProgress(id: number): PairProgress {
    return this.#copies.progress(this.#roster.pair(id));
  }

  async pairMarkFrom(into: number, from: number): Promise<void> {
    const target = this.#roster.pair(into);
    const source = this.#roster.pair(from);
    const ratio = source.spec.dirtyRegionBytes / target.spec.dirtyRegionBytes;
    await target.persistLive(
      () => this.#copies.markFrom(target, source, ratio),
      () => this.volumeFlush(target.spec.primary),
    );
  }

  // Copies

  copyStart(id: number, { checksum = false }: { readonly checksum?: boolean } = {}): void {
    const pair = this.#roster.pair(id);
    if (checksum) Atomics.store(pair.block.words, PAIR.COMPARE, 1);
    this.#copies.start(pair);
  }

  copySkippedBytes(id: number): number {
    return this.#roster.pair(id).skippedBytes();
  }

  copyStop(id: number): Promise<void> {
    return this.#copies.stop(id);
  }

  verify(
    id: number,
    options: { readonly repair: boolean; readonly signal?: AbortSignal },
  ): Promise<Omit<VerifyReport, 'repaired' | 'dirtyBytes'>> {
    return this.#copies.verify(this.#roster.pair(id), options);
  }

  verifyProgress(id: number): VerifyProgress | null {
    return this.#copies.verifyProgress(this.#roster.pair(id));
  }

  // Faults on purpose

  faultsSet(number: number, rules: readonly FaultRule[]): Promise<void> {
    const volume = this.#roster.volume(number);
    volume.setFaults(rules);
    return this.#tellAgain(volume);
  }

  faultCounters(id: number): FaultCounters {
    for (const volume of this.#roster.volumes.values()) {
      for (const { rule, counters } of volume.faults) if (rule.id === id) return countersOf(new Int32Array(counters));
    }
    return { hits: 0, left: 0 };
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

  // Failures

  #legFailed(failure: { readonly pair: number; readonly leg: 'primary' | 'secondary'; readonly code: string }): void {
    if (!this.#roster.pairs.has(failure.pair)) return;
    this.emit('legFailed', { ...failure, message: `a host's write or flush failed on the ${failure.leg}: ${failure.code}` });
  }

  /**
   * A worker died inside of whatever it did: what it was writing may be on one leg only. Marks that here and now, while
   * the dead one's locks still keep others out.
   * @returns what tells the rest of it, when the locks are free: whoever hears of it may close the gate
   */
  #lost(slot: number, name: string, isReplaced: boolean, error: unknown): () => void {
    const unequal = this.#roster.forgetWorker(this.#device, slot);
    return () => {
      for (const pair of unequal)
        this.emit('legFailed', { pair: pair.spec.id, leg: 'primary', code: 'EIO', message: `${name} died in a write` });
      for (const client of this.#clients.laneLost(slot - 1)) this.emit('clientClosed', { ...client, reason: `${name} died` });
      if (slot === SLOT_ZERO_WORKER || slot === SLOT_SLOW_WORKER) this.#desk.asideWorkerLost(slot);
      this.#tellLost(name, isReplaced, error);
      // A lane that comes back knows no volume: it hears of each with the first client that asks for it.
      setImmediate(() => void this.#retell(slot - 1));
    };
  }

  #tellLost(worker: string, isReplaced: boolean, error: unknown): void {
    this.emit('workerLost', { worker, isReplaced, message: error instanceof Error ? error.message : String(error) });
  }

  async #retell(lane: number): Promise<void> {
    const link = this.#workers.lanes[lane];
    if (link === undefined || this.#isClosed) return;
    link.send({ type: 'durability', survivesPowerLoss: this.#survivesPowerLoss });
    await this.#desk.holdAgain(link);
    await this.#listenAgain();
  }

  async #listenAgain(): Promise<void> {
    if (this.#isDraining) return;
    try {
      await this.#clients.listenAgain();
    } catch (error) {
      this.#tellLost('listener', false, error);
    }
  }

  // Bounds

  resyncBoundBytes(): number {
    return this.#roster.markedBytes();
  }

  async setDurability(level: 'power' | 'process'): Promise<void> {
    const isRaised = level === 'power' && !this.#survivesPowerLoss;
    this.#survivesPowerLoss = level === 'power';
    await this.setDurabilityOnWorkers();
    // Marks and bits that are in their files only so far become durable, and the legs too.
    if (isRaised) await this.#media.syncAll();
  }

  // End

  async drain(): Promise<void> {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#desk.drain();
    this.#clients.stopListening();
    await this.clientsEnd({});
    if (this.#survivesPowerLoss) await this.#media.flushPaired();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.drain();
    this.#isClosed = true;
    await this.#copies.stopAll();
    await this.#workers.stop();
    await this.#cleaner.stop();
    // A copy may have written since; bits are clear on disk only over data that is durable. A leg that failed is marked.
    if (this.#survivesPowerLoss) await this.#media.flushPaired();
    for (const pair of this.#roster.pairs.values()) pair.persistAtEnd();
    await this.#cleaner.cleanAll();
    for (const pair of this.#roster.pairs.values()) pair.close(false);
    for (const volume of this.#roster.volumes.values()) volume.closeIntents(false);
    this.#clients.removeSockets();
  }
}
