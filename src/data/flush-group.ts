/**
 * Group commit of flushes: one fdatasync for all who wait, the legs in parallel.
 *
 * A flush covers every write that was answered before it came, on any connection: writes are system calls that have
 * returned, so a sync that starts later covers them. Whoever comes while a sync of the file runs waits for the next.
 * The sync runs on libuv's threads; the lane goes on meanwhile.
 *
 * A failed sync is counted for its physical volume (data/sync-failures.ts): a flush also fails if somebody else's sync
 * failed since the volume's hosts were told last. And it fails when the file has no name any more: what is in it is
 * gone with the process, however often it is synced.
 */
import fs from 'node:fs';
import { countSet, setRange } from '../core/dirty-bitmap.ts';
import { systemCode } from '../core/faults.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import { faultError } from './fault-rules.ts';
import type { Leg } from './leg.ts';
import { MODE, PAIR } from './shared-memory.ts';
import { SyncFailures } from './sync-failures.ts';
import { type LegFailure, truthLeg, type WorkerPair, type WorkerVolume } from './write-path.ts';

type Done = (code: string) => void;
type FileState = { running: boolean; waiting: Done[] };

export class FlushGroup {
  readonly #files = new Map<number, FileState>();
  readonly #failures: SyncFailures;
  readonly #onLegFailed: (failure: LegFailure) => void;
  /** False at durability level `process`: a flush has nothing to do. */
  survivesPowerLoss = true;

  constructor(device: Int32Array, onLegFailed: (failure: LegFailure) => void) {
    this.#failures = new SyncFailures(device);
    this.#onLegFailed = onLegFailed;
  }

  /** Makes all answered writes of the volume durable on every leg; `done` gets an empty string or the system's code. */
  flush(volume: WorkerVolume, done: Done): void {
    const followers = volume.primaryOf.filter((pair) => {
      const mode = Atomics.load(pair.block.words, PAIR.MODE);
      return mode !== MODE.idle && mode !== MODE.tracking;
    });
    const truth = truthLeg(volume);
    let left = 1 + followers.length;
    let code = '';
    const arrived = (failure: string): void => {
      if (failure !== '') code = failure;
      left -= 1;
      if (left === 0) done(code);
    };
    this.#leg(truth, (failure) => {
      if (failure !== '') this.#truthFailed(volume, failure);
      arrived(failure);
    });
    for (const pair of followers) {
      const other = truth === pair.primary.leg ? pair.secondary.leg : pair.primary.leg;
      this.#leg(other, (failure) => arrived(failure === '' || this.#followerFailed(pair, other, failure) ? '' : failure));
    }
  }

  #leg(leg: Leg, done: Done): void {
    const struck = leg.faults === null ? '' : faultError(leg.faults, 'flush', 0, 0);
    if (struck !== '') return done(struck);
    if (!this.survivesPowerLoss) return done('');
    let left = leg.fds.length;
    let code = '';
    const arrived = (failure: string): void => {
      if (failure !== '') code = failure;
      left -= 1;
      if (left > 0) return;
      const isLost = this.#failures.take('hosts', leg.number, leg.pvs);
      done(code === '' && isLost ? 'EIO' : code);
    };
    leg.fds.forEach((fd, index) => this.#file(fd, leg.pvs[index] as number, arrived));
  }

  #file(fd: number, pv: number, done: Done): void {
    let state = this.#files.get(fd);
    if (state === undefined) {
      state = { running: false, waiting: [] };
      this.#files.set(fd, state);
    }
    state.waiting.push(done);
    if (!state.running) this.#run(fd, pv, state);
  }

  #run(fd: number, pv: number, state: FileState): void {
    const served = state.waiting;
    state.waiting = [];
    state.running = true;
    fs.fdatasync(fd, (error) => {
      const code = error === null ? unlinkedCode(fd) : systemCode(error) || 'EIO';
      if (error !== null) this.#failures.count(pv);
      state.running = false;
      if (state.waiting.length > 0) this.#run(fd, pv, state);
      for (const done of served) done(code);
    });
  }

  /** What the truth leg lost is unknown, and no later sync will say so again: the followers may hold what it has not. */
  #truthFailed(volume: WorkerVolume, code: string): void {
    for (const pair of volume.primaryOf) {
      const mode = Atomics.load(pair.block.words, PAIR.MODE);
      if (mode === MODE.idle) continue;
      distrust(pair);
      if (mode !== MODE.tracking) this.#onLegFailed({ pair: pair.id, leg: mode === MODE.restoring ? 'secondary' : 'primary', code });
    }
  }

  /** True when the host's flush succeeds all the same. What the leg lost is unknown: all that is marked is dirty. */
  #followerFailed(pair: WorkerPair, leg: Leg, code: string): boolean {
    const { words } = pair.block;
    const isPrimary = leg === pair.primary.leg;
    distrust(pair);
    if (isPrimary) {
      this.#onLegFailed({ pair: pair.id, leg: 'primary', code });
      return false;
    }
    const hasFence = Atomics.load(words, PAIR.FENCE) !== 0;
    // The sync took its time outside of the gate: the pair may have been switched since.
    const mode = Atomics.load(words, PAIR.MODE);
    if (mode !== MODE.copying && mode !== MODE.mirroring) return !hasFence;
    if (hasFence) Atomics.store(words, PAIR.FENCED, 1);
    Atomics.compareExchange(words, PAIR.MODE, mode, MODE.tracking);
    this.#onLegFailed({ pair: pair.id, leg: 'secondary', code });
    return !hasFence;
  }
}

/** The code for a file that was deleted while it was open, or an empty string. */
const unlinkedCode = (fd: number): string => {
  try {
    return fs.fstatSync(fd).nlink === 0 ? 'ESTALE' : '';
  } catch (error) {
    return systemCode(error) || 'EIO';
  }
};

/** A sync of a leg failed: everything that is marked, or that a copy brought over since its last sync, may differ. */
const distrust = (pair: WorkerPair): void => {
  const { words, primary: bits, regions } = pair.block;
  const { intents } = pair.primary;
  Atomics.add(words, PAIR.SYNC_FAILURES, 1);
  if (intents === null || countSet(intents.block.disk) === 0) return;
  const ratio = INTENT_EXTENT_BYTES / pair.dirtyRegionBytes;
  for (let extent = 0; extent < intents.block.extents; extent += 1) {
    if ((((intents.block.disk[extent >>> 5] as number) >>> (extent & 31)) & 1) === 0) continue;
    const first = Math.floor(extent * ratio);
    if (first < regions) setRange(bits, first, Math.min(regions, Math.max(first + 1, Math.ceil((extent + 1) * ratio))));
  }
};
