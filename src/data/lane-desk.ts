/**
 * What lanes ask the main thread, and its answers: which export a name is, what there is to list, what a worker beside
 * them should do;
 * and the holds, behind which new connections to a volume wait for their answer.
 */
import { TwinvolError } from '../core/faults.ts';
import { AsideDesk } from './aside-desk.ts';
import type { Clients } from './clients.ts';
import type { AsideDone, FromLane } from './lane-messages.ts';
import type { ExportPolicy, PlaneEvents } from './plane-api.ts';
import type { Roster } from './roster.ts';
import { SLOT_SLOW_WORKER, SLOT_ZERO_WORKER } from './shared-memory.ts';
import type { AnyLink, AsideSlot, LaneLink, WorkerSet } from './worker-set.ts';
import type { LegFailure } from './write-path.ts';

export type LaneDeskOptions = {
  readonly workers: WorkerSet;
  readonly roster: Roster;
  readonly clients: Clients;
  readonly policy: ExportPolicy;
  readonly onOpened: (...client: PlaneEvents['clientOpened']) => void;
  readonly onClosed: (...client: PlaneEvents['clientClosed']) => void;
  readonly onLegFailed: (failure: LegFailure) => void;
};

export class LaneDesk {
  readonly #options: LaneDeskOptions;
  /** Held volume -> those who wait for its end. */
  readonly #held = new Map<number, Array<() => void>>();
  readonly #aside: Readonly<Record<AsideSlot, AsideDesk>> = { [SLOT_ZERO_WORKER]: new AsideDesk(), [SLOT_SLOW_WORKER]: new AsideDesk() };
  #isDraining = false;

  constructor(options: LaneDeskOptions) {
    this.#options = options;
  }

  /** Nobody new is let in from here on. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Resolves when no write to the volume is under way any more; later ones wait, and so do new connections. @throws VOLUME_HELD */
  async hold(number: number): Promise<void> {
    if (this.#held.has(number)) throw new TwinvolError('VOLUME_HELD', `volume ${number} is held by another command`);
    this.#held.set(number, []);
    await Promise.all(this.#options.workers.lanes.map((lane) => lane.ask((id) => ({ type: 'hold', id, volume: number }))));
  }

  async unhold(number: number): Promise<void> {
    const waiting = this.#held.get(number) ?? [];
    this.#held.delete(number);
    const { workers } = this.#options;
    for (const lane of workers.lanes) lane.send({ type: 'unhold', volume: number });
    await workers.barrier();
    for (const find of waiting) find();
  }

  /** A lane that comes back hears of the holds there are. */
  async holdAgain(link: LaneLink): Promise<void> {
    for (const volume of this.#held.keys()) await link.ask((id) => ({ type: 'hold', id, volume }));
  }

  message(lane: number, message: Exclude<FromLane, { type: 'answer' }>): void {
    const { workers, clients, policy, onOpened, onClosed, onLegFailed } = this.#options;
    switch (message.type) {
      case 'ready':
        return;
      case 'find':
        return this.#find(workers.lanes[lane] as LaneLink, message);
      case 'list':
        return workers.lanes[lane]?.send({
          type: 'listed',
          ask: message.ask,
          entries: this.#isDraining ? [] : policy.list(message.peer),
        });
      case 'opened':
        clients.opened(lane, message);
        return onOpened({ id: message.id, volume: message.volume, peer: message.peer });
      case 'closed':
        clients.closed(lane, message.id);
        return onClosed({ id: message.id, volume: message.volume, peer: message.peer, reason: message.reason });
      case 'leg-failed':
        return onLegFailed(message.failure);
      case 'aside': {
        const { job } = message;
        const slot = job.kind === 'zero' ? SLOT_ZERO_WORKER : SLOT_SLOW_WORKER;
        const link = workers.asideWorker(slot);
        this.#tellAll(link, job.volume);
        const taken = this.#aside[slot].take(workers.lanes[lane] as LaneLink, job);
        return link.send({ type: 'job', job: taken }, job.kind === 'write' ? [job.payload.buffer as ArrayBuffer] : []);
      }
    }
  }

  /** A worker beside the lanes has done a job. */
  done(slot: AsideSlot, done: AsideDone): void {
    this.#aside[slot].answer(done);
  }

  asideWorkerLost(slot: AsideSlot): void {
    this.#aside[slot].failAll('EIO');
  }

  /** `link` is the lane that asked; one that died since gets no answer, its successor numbers its questions anew. */
  #find(link: LaneLink, message: Extract<FromLane, { type: 'find' }>): void {
    if (this.#isDraining)
      return link.send({ type: 'found', ask: message.ask, answer: { refused: 'shutdown', message: 'the engine is stopping' } });
    const answer = this.#options.policy.find(message.name, message.peer);
    if (!('refused' in answer)) {
      const held = this.#held.get(answer.volume);
      if (held !== undefined) {
        held.push(() => this.#find(link, message));
        return;
      }
      this.#tellAll(link, answer.volume);
    }
    link.send({ type: 'found', ask: message.ask, answer });
  }

  /** Tells a worker of a volume and of the pairs that it is in. */
  #tellAll(link: AnyLink, number: number): void {
    const { workers, roster } = this.#options;
    const volume = roster.volumes.get(number);
    if (volume === undefined) return;
    workers.tellVolume(link, volume);
    for (const pair of roster.pairsOf(number)) {
      workers.tellPair(link, pair, roster.volume(pair.spec.primary), roster.volume(pair.spec.secondary));
    }
  }
}
