/**
 * The write path: one host write, from validated request to every leg it has to reach.
 *
 * Order, and why: (1) gate entered, so modes stand still; (2) extents marked as intents, so a crash from here on knows
 * where legs may differ; (3) range locks taken where a second leg is written, so that overlapping writes and copy
 * steps cannot interleave; (4) the truth leg written, that is the leg whose content counts: the primary, or while a
 * pair is restored its secondary; (5) the followers: whole where the pair mirrors, only clean regions while it copies
 * (a dirty region is still to be copied, under the same lock), and only a dirty bit where the pair tracks. Another
 * lane may put a pair from mirroring into tracking in between, so the mode is looked at where it is acted on.
 *
 * An error of a follower sets its dirty bits and puts the pair into `tracking` here and now, before the host hears
 * anything; the engine journals that later. An error of the truth leg is the host's error.
 */
import { anySet, setRange } from '../core/dirty-bitmap.ts';
import { LOCK_GRANULE_BYTES } from '../core/units.ts';
import type { Intents } from './intents.ts';
import type { Leg } from './leg.ts';
import { type RangeExclusion, RangeLocks } from './range-locks.ts';
import { DEVICE, MODE, PAIR, type PairBlock } from './shared-memory.ts';
import { WriteGate } from './write-gate.ts';

/** A volume as a worker knows it. */
export type WorkerVolume = {
  name: string;
  leg: Leg;
  intents: Intents | null;
  /** Pairs whose primary it is. */
  readonly primaryOf: WorkerPair[];
  /** The pair whose secondary it is. */
  secondaryOf: WorkerPair | null;
};

export type WorkerPair = {
  readonly id: number;
  readonly block: PairBlock;
  readonly dirtyRegionBytes: number;
  readonly primary: WorkerVolume;
  readonly secondary: WorkerVolume;
};

export type LegFailure = { readonly pair: number; readonly leg: 'primary' | 'secondary'; readonly code: string };

const secondsNow = (): number => Math.floor(Date.now() / 1000) | 0;

export class WritePath {
  readonly gate: WriteGate;
  readonly locks: RangeExclusion;
  readonly #onLegFailed: (failure: LegFailure) => void;
  readonly #device: Int32Array;
  readonly #slotWord: number;
  #locked = false;

  /** `locks`: others only in a test that shows what they are for. */
  constructor(
    device: Int32Array,
    slot: number,
    onLegFailed: (failure: LegFailure) => void,
    locks: RangeExclusion = new RangeLocks(device, slot),
  ) {
    this.#device = device;
    this.#slotWord = DEVICE.SLOT_FIRST + slot * DEVICE.SLOT_WORDS;
    this.gate = new WriteGate(device, slot);
    this.locks = locks;
    this.#onLegFailed = onLegFailed;
  }

  /** Writes `length` bytes of `buffer` at `at`. An empty string, or the system's code of what failed. */
  write(volume: WorkerVolume, buffer: Uint8Array, at: number, offset: number, length: number): string {
    this.gate.enter();
    try {
      if (volume.primaryOf.length === 0 && volume.secondaryOf === null) {
        return volume.leg.write(buffer, at, offset, length) ? '' : volume.leg.failure;
      }
      return this.#paired(volume, 0, buffer, at, offset, length);
    } finally {
      this.gate.leave();
    }
  }

  /** Makes the range read as zeros; `allocate` also where it is a hole. Meant for short ranges: it takes the lane's time. */
  clear(volume: WorkerVolume, offset: number, length: number, allocate: boolean): string {
    this.gate.enter();
    try {
      return this.#paired(volume, allocate ? 2 : 1, EMPTY, 0, offset, length);
    } finally {
      this.gate.leave();
    }
  }

  #paired(volume: WorkerVolume, kind: number, buffer: Uint8Array, at: number, offset: number, length: number): string {
    const refusal = this.begin(volume, offset, length);
    if (refusal !== '') return refusal;
    try {
      const truth = truthLeg(volume);
      if (!put(truth, kind, buffer, at, offset, length)) return this.truthFailed(volume, offset, length, truth.failure);
      // Each follower gets the write, also behind one whose failure is the host's: no other leg may miss what the truth has.
      let code = '';
      for (const pair of volume.primaryOf) {
        if (!this.#follow(pair, kind, buffer, at, offset, length) && code === '') code = followerLeg(pair).failure;
      }
      return code;
    } catch (error) {
      // A fault of the program, and this worker's end: what it has written so far may be on one leg only.
      this.truthFailed(volume, offset, length, 'EIO');
      throw error;
    } finally {
      this.end();
    }
  }

  /** Steps 2 and 3, inside the gate. An empty string, or why the write cannot be. Then `end` must be called. */
  begin(volume: WorkerVolume, offset: number, length: number): string {
    const pairs = volume.primaryOf;
    let isActive = false;
    let needsLock = false;
    for (let index = 0; index < pairs.length; index += 1) {
      const words = (pairs[index] as WorkerPair).block.words;
      const mode = Atomics.load(words, PAIR.MODE);
      if (mode === MODE.idle) continue;
      if (Atomics.load(words, PAIR.FENCED) !== 0) return 'EIO';
      isActive = true;
      // A copy that a failing leg has just ended may still be in its last step.
      if (mode !== MODE.tracking || Atomics.load(words, PAIR.COPY_ACTIVE) !== 0) needsLock = true;
    }
    const own = volume.secondaryOf;
    if (own !== null) {
      const mode = Atomics.load(own.block.words, PAIR.MODE);
      if (mode !== MODE.tracking && mode !== MODE.idle) return 'EPERM';
      if (mode === MODE.tracking) isActive = true;
    }
    if (!isActive) return '';
    this.#announce(volume.leg.number, offset, length);
    const { intents } = volume;
    if (intents !== null && !intents.mark(offset, length)) return intents.failure;
    if (needsLock) {
      this.locks.acquire(volume.leg.number, offset, length);
      this.#locked = true;
    }
    if (own !== null) markSecondary(own, offset, length);
    return '';
  }

  /** Says what this worker is about to change on several legs, so that its death leaves no region unequal unnoticed. */
  #announce(volume: number, offset: number, length: number): void {
    const at = this.#slotWord;
    this.#device[at + DEVICE.SLOT_VOLUME] = volume;
    this.#device[at + DEVICE.SLOT_FIRST_GRANULE] = Math.floor(offset / LOCK_GRANULE_BYTES);
    this.#device[at + DEVICE.SLOT_LAST_GRANULE] = Math.floor((offset + length - 1) / LOCK_GRANULE_BYTES);
  }

  end(): void {
    if (!this.#locked) return;
    this.#locked = false;
    this.locks.release();
  }

  /** The truth leg failed: what is on it now is unknown, so the followers may differ there. */
  truthFailed(volume: WorkerVolume, offset: number, length: number, code: string): string {
    for (const pair of volume.primaryOf) {
      const mode = Atomics.load(pair.block.words, PAIR.MODE);
      if (mode === MODE.idle) continue;
      markDirty(pair, offset, length);
      if (mode !== MODE.tracking) this.#onLegFailed({ pair: pair.id, leg: mode === MODE.restoring ? 'secondary' : 'primary', code });
    }
    return code;
  }

  /** Calls `visit` for each part of the range that the pair's follower has to be given. */
  eachFollowerPiece(pair: WorkerPair, offset: number, length: number, visit: (offset: number, length: number) => boolean): boolean {
    const mode = Atomics.load(pair.block.words, PAIR.MODE);
    if (mode === MODE.tracking) markDirty(pair, offset, length);
    if (mode === MODE.idle || mode === MODE.tracking) return true;
    const regionBytes = pair.dirtyRegionBytes;
    const bits = pair.block.primary;
    const first = Math.floor(offset / regionBytes);
    const end = Math.floor((offset + length - 1) / regionBytes) + 1;
    if (!anySet(bits, first, end)) return visit(offset, length);
    for (let region = first; region < end; region += 1) {
      if (anySet(bits, region, region + 1)) continue;
      const from = Math.max(offset, region * regionBytes);
      const to = Math.min(offset + length, (region + 1) * regionBytes);
      if (!visit(from, to - from)) return false;
    }
    return true;
  }

  /** A follower failed: the pair tracks from here on. True when the host's write succeeds all the same. */
  followerFailed(pair: WorkerPair, offset: number, length: number): boolean {
    const { words } = pair.block;
    const wasRestoring = Atomics.load(words, PAIR.MODE) === MODE.restoring;
    const hasFence = Atomics.load(words, PAIR.FENCE) !== 0;
    markDirty(pair, offset, length);
    // While restoring, the truth is the secondary: the primary's error is the host's, and reads stay where the truth is.
    if (!wasRestoring) {
      if (hasFence) Atomics.store(words, PAIR.FENCED, 1);
      Atomics.store(words, PAIR.MODE, MODE.tracking);
    }
    this.#onLegFailed({ pair: pair.id, leg: wasRestoring ? 'primary' : 'secondary', code: followerLeg(pair).failure });
    return !hasFence && !wasRestoring;
  }

  #follow(pair: WorkerPair, kind: number, buffer: Uint8Array, at: number, offset: number, length: number): boolean {
    const mode = Atomics.load(pair.block.words, PAIR.MODE);
    if (mode === MODE.tracking) markDirty(pair, offset, length);
    if (mode === MODE.idle || mode === MODE.tracking) return true;
    const leg = followerLeg(pair);
    const regionBytes = pair.dirtyRegionBytes;
    const isClean =
      mode === MODE.mirroring ||
      !anySet(pair.block.primary, Math.floor(offset / regionBytes), Math.floor((offset + length - 1) / regionBytes) + 1);
    const isDone = isClean
      ? put(leg, kind, buffer, at, offset, length)
      : this.eachFollowerPiece(pair, offset, length, (from, bytes) => put(leg, kind, buffer, at + (from - offset), from, bytes));
    return isDone || this.followerFailed(pair, offset, length);
  }
}

const EMPTY: Uint8Array = new Uint8Array(0);

const put = (leg: Leg, kind: number, buffer: Uint8Array, at: number, offset: number, length: number): boolean => {
  if (kind === 0) return leg.write(buffer, at, offset, length);
  return kind === 1 ? leg.clear(offset, length) : leg.writeZeros(offset, length);
};

/** The leg whose content counts for a volume's hosts. */
export const truthLeg = (volume: WorkerVolume): Leg => {
  const pairs = volume.primaryOf;
  for (let index = 0; index < pairs.length; index += 1) {
    const pair = pairs[index] as WorkerPair;
    if (Atomics.load(pair.block.words, PAIR.MODE) === MODE.restoring) return pair.secondary.leg;
  }
  return volume.leg;
};

/** Does a write to the volume go to a second leg too, now or while a copy runs? */
export const isFollowed = ({ primaryOf, secondaryOf }: WorkerVolume): boolean => {
  if (secondaryOf !== null && hasFollower(secondaryOf)) return true;
  for (let index = 0; index < primaryOf.length; index += 1) if (hasFollower(primaryOf[index] as WorkerPair)) return true;
  return false;
};

const hasFollower = ({ block }: WorkerPair): boolean => {
  const mode = Atomics.load(block.words, PAIR.MODE);
  return mode !== MODE.idle && mode !== MODE.tracking;
};

/** The leg that follows the truth: the secondary, or the primary while the pair is restored. */
export const followerLeg = (pair: WorkerPair): Leg =>
  Atomics.load(pair.block.words, PAIR.MODE) === MODE.restoring ? pair.primary.leg : pair.secondary.leg;

/** Sets the dirty bits of the range on the primary's side; bytes past the end of the pair do not count. */
export const markDirty = (pair: WorkerPair, offset: number, length: number): void => {
  const first = Math.floor(offset / pair.dirtyRegionBytes);
  const end = Math.min(pair.block.regions, Math.floor((offset + length - 1) / pair.dirtyRegionBytes) + 1);
  if (first < end) setRange(pair.block.primary, first, end);
};

const markSecondary = (pair: WorkerPair, offset: number, length: number): void => {
  const { words, secondary, regions } = pair.block;
  const first = Math.floor(offset / pair.dirtyRegionBytes);
  const end = Math.min(regions, Math.floor((offset + length - 1) / pair.dirtyRegionBytes) + 1);
  if (first < end) setRange(secondary, first, end);
  const now = secondsNow();
  if (words[PAIR.SECONDARY_FIRST_S] === 0) Atomics.store(words, PAIR.SECONDARY_FIRST_S, now);
  if (words[PAIR.SECONDARY_LAST_S] !== now) Atomics.store(words, PAIR.SECONDARY_LAST_S, now);
};
