/**
 * Verify: compares the legs of a pair while hosts write (specification 4).
 *
 * No false alarms. A granule is read under its range lock, which mirrored writes and copy steps take too, and a region
 * counts only if it is clean both then and later: then, because a copy may make it equal and clean a moment after; later,
 * because where writes are tracked (split, suspended) hosts take no lock and set the bit at the end of a write, which
 * closing the write gate once waits for. What differs nevertheless is read a second time, because a resync may have
 * begun and ended between the two looks.
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

  /** @param control word 0: 1 stops it; word 1: progress in granules; word 2: dirty regions that differ */
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
        Atomics.store(this.#control, 1, Math.floor(at / LOCK_GRANULE_BYTES));
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
    let suspects = this.#suspects(offset, length);
    if (typeof suspects !== 'string' && suspects.length > 0) {
      const again = this.#suspects(offset, length);
      suspects = typeof again === 'string' ? again : suspects.filter((region) => again.includes(region));
    }
    if (typeof suspects === 'string') return suspects;
    for (const region of suspects) this.#found(region, offset, length);
    return '';
  }

  /** The clean regions of the granule whose legs differ; or the code of the leg that could not be read. */
  #suspects(offset: number, length: number): readonly number[] | string {
    const { primary, secondary } = this.#pair;
    const { locks } = this.#path;
    let differing: number[] = [];
    locks.acquire(primary.leg.number, offset, length);
    try {
      if (!primary.leg.read(this.#left, 0, offset, length)) return primary.leg.failure;
      if (!secondary.leg.read(this.#right, 0, offset, length)) return secondary.leg.failure;
      if (this.#left.compare(this.#right, 0, length, 0, length) === 0) return [];
      differing = this.#differingRegions(offset, length).filter((region) => this.#isClean(region));
    } finally {
      locks.release();
    }
    if (differing.length === 0) return differing;
    // Whoever was inside a write when the granule was read has set his bits after this.
    this.#path.gate.closed(() => {});
    return differing.filter((region) => this.#isClean(region));
  }

  #differingRegions(offset: number, length: number): number[] {
    const { dirtyRegionBytes } = this.#pair;
    const regions: number[] = [];
    const end = Math.floor((offset + length - 1) / dirtyRegionBytes) + 1;
    for (let region = Math.floor(offset / dirtyRegionBytes); region < end; region += 1) {
      const from = Math.max(offset, region * dirtyRegionBytes) - offset;
      const to = Math.min(offset + length, (region + 1) * dirtyRegionBytes) - offset;
      if (this.#left.compare(this.#right, from, to, from, to) !== 0) regions.push(region);
    }
    return regions;
  }

  #isClean(region: number): boolean {
    const { primary, secondary } = this.#pair.block;
    return !anySet(primary, region, region + 1) && !anySet(secondary, region, region + 1);
  }

  /** A region that differs: what of it lies in the granule goes to the report. */
  #found(region: number, offset: number, length: number): void {
    const { block, dirtyRegionBytes } = this.#pair;
    const from = Math.max(offset, region * dirtyRegionBytes);
    const to = Math.min(offset + length, (region + 1) * dirtyRegionBytes);
    this.#differingBytes += to - from;
    Atomics.add(this.#control, 2, 1);
    this.#add(from, to - from);
    if (this.#repair) setRange(block.primary, region, region + 1);
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
