/**
 * Verify: compares the legs of a pair while hosts write (specification 4).
 *
 * No false alarms: where legs are mirrored, a granule is compared under its range lock. Where writes are tracked
 * (split, suspended) no lock is taken by hosts, so a difference counts only if the region's bits are clear after every
 * write that was under way has ended, which closing the write gate once makes sure of.
 */
import { anySet, setRange } from '../core/dirty-bitmap.ts';
import { LOCK_GRANULE_BYTES } from '../core/units.ts';
import type { Leg } from './leg.ts';
import type { WorkerPair, WritePath } from './write-path.ts';
import { CopyPace } from './copy-pace.ts';

export type VerifyResult = {
  readonly end: 'done' | 'stopped' | 'failed';
  readonly code: string;
  readonly checkedBytes: number;
  readonly differingBytes: number;
  readonly differing: ReadonlyArray<{ readonly offset: number; readonly length: number }>;
};

/** Ranges that a report lists; more are counted only. */
const RANGES_MAX = 10_000;

export class VerifyTask {
  readonly #pair: WorkerPair;
  readonly #path: WritePath;
  readonly #device: Int32Array;
  readonly #control: Int32Array;
  readonly #repair: boolean;
  readonly #left: Buffer = Buffer.allocUnsafeSlow(LOCK_GRANULE_BYTES);
  readonly #right: Buffer = Buffer.allocUnsafeSlow(LOCK_GRANULE_BYTES);
  readonly #differing: Array<{ offset: number; length: number }> = [];
  #differingBytes = 0;

  /** @param control word 0: 1 stops it; word 1: progress in granules */
  constructor(pair: WorkerPair, path: WritePath, device: Int32Array, control: Int32Array, repair: boolean) {
    this.#pair = pair;
    this.#path = path;
    this.#device = device;
    this.#control = control;
    this.#repair = repair;
  }

  run(): VerifyResult {
    const { primary, secondary, block } = this.#pair;
    const pace = new CopyPace(this.#device, block.words);
    const capacityBytes = primary.leg.capacityBytes;
    let at = 0;
    let end: VerifyResult['end'] = 'done';
    let code = '';
    while (at < capacityBytes) {
      if (Atomics.load(this.#control, 0) !== 0) {
        end = 'stopped';
        break;
      }
      const startedMs = performance.now();
      const next = Math.min(capacityBytes, nextGranule(primary.leg, secondary.leg, at, capacityBytes));
      if (next > at) {
        at = next;
        continue;
      }
      const length = Math.min(LOCK_GRANULE_BYTES, capacityBytes - at);
      code = this.#granule(at, length);
      if (code !== '') {
        end = 'failed';
        break;
      }
      at += length;
      Atomics.store(this.#control, 1, Math.floor(at / LOCK_GRANULE_BYTES));
      pace.rest(performance.now() - startedMs);
    }
    return { end, code, checkedBytes: at, differingBytes: this.#differingBytes, differing: this.#differing };
  }

  #granule(offset: number, length: number): string {
    const { primary, secondary } = this.#pair;
    const { locks } = this.#path;
    locks.acquire(primary.leg.number, offset, length);
    let isEqual = false;
    try {
      if (!primary.leg.read(this.#left, 0, offset, length)) return primary.leg.failure;
      if (!secondary.leg.read(this.#right, 0, offset, length)) return secondary.leg.failure;
      isEqual = this.#left.compare(this.#right, 0, length, 0, length) === 0;
    } finally {
      locks.release();
    }
    if (!isEqual) this.#regions(offset, length);
    return '';
  }

  /** Which dirty regions of the granule differ although nobody says that they may. */
  #regions(offset: number, length: number): void {
    const { block, dirtyRegionBytes } = this.#pair;
    // Whoever was inside a write when the granule was read has set his bits after this.
    this.#path.gate.closed(() => {});
    const first = Math.floor(offset / dirtyRegionBytes);
    const end = Math.floor((offset + length - 1) / dirtyRegionBytes) + 1;
    for (let region = first; region < end; region += 1) {
      const from = Math.max(offset, region * dirtyRegionBytes);
      const to = Math.min(offset + length, (region + 1) * dirtyRegionBytes);
      if (anySet(block.primary, region, region + 1) || anySet(block.secondary, region, region + 1)) continue;
      if (this.#left.compare(this.#right, from - offset, to - offset, from - offset, to - offset) === 0) continue;
      this.#differingBytes += to - from;
      this.#add(from, to - from);
      if (this.#repair) setRange(block.primary, region, region + 1);
    }
  }

  #add(offset: number, length: number): void {
    const last = this.#differing.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else if (this.#differing.length < RANGES_MAX) this.#differing.push({ offset, length });
  }
}

/** The start of the granule in which either leg has data next. */
const nextGranule = (left: Leg, right: Leg, offset: number, end: number): number => {
  const data = right.nextData(offset, left.nextData(offset, end));
  return data >= end ? end : Math.floor(data / LOCK_GRANULE_BYTES) * LOCK_GRANULE_BYTES;
};

