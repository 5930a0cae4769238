/**
 * The unassigned-region table (specification 2, JP fig. 23): the physical regions that belong to no volume, and the
 * choice of regions for a new owner.
 *
 * The choice is predictable: one contiguous run if any is long enough, the shortest such (best fit), the lowest numbers
 * among equals; else as few runs as possible, which is the longest ones first and best fit for the remainder, given in
 * the order of their numbers. Regions are kept as free runs, twice: by position (to join neighbours) and by length (to
 * choose). There are few different lengths: d of them need d*(d+1)/2 regions, so a sorted array holds them.
 *
 * Invariants: free runs never overlap and never touch (neighbours are joined); `freeRegions` is their sum; every free
 * run lies in a known physical volume. A call that throws has changed nothing.
 * Cost: at 1,000,000 regions in 500,000 free runs (the worst) one call takes some microseconds plus the runs that it
 * returns (20 us for four pieces), and the table takes 30 MB; 10,000 free runs take under 1 MB. Measured on two 2020s cores.
 */
import type { RegionRun } from './rows.ts';
import { isWellFormedRun, overlapIn, positionOf, pvOfPosition, regionOfPosition, sortedRuns } from './runs.ts';
import { SortedMap } from './sorted-map.ts';

const describeRun = (run: RegionRun): string => `regions ${run.start} to ${run.start + run.count - 1} of physical volume ${run.pv}`;

const runAt = (position: number, count: number): RegionRun => ({ pv: pvOfPosition(position), start: regionOfPosition(position), count });

export class UnassignedRegions {
  readonly #regionsOfPv = new Map<number, number>();
  readonly #freeOfPv = new Map<number, number>();
  /** position of a free run -> its length */
  readonly #byPosition = new SortedMap();
  /** length -> positions of the free runs of that length */
  readonly #byLength = new Map<number, SortedMap>();
  /** The keys of #byLength, rising. */
  readonly #lengths: number[] = [];
  #free = 0;
  #total = 0;

  /** Regions that are free. */
  get freeRegions(): number {
    return this.#free;
  }
  /** Regions of all physical volumes. */
  get totalRegions(): number {
    return this.#total;
  }
  get freeRunCount(): number {
    return this.#byPosition.size;
  }
  /** Length of the longest free run, in regions; 0 when there is none. */
  get longestRun(): number {
    return this.#lengths.at(-1) ?? 0;
  }
  freeRegionsOf(pv: number): number {
    return this.#freeOfPv.get(pv) ?? 0;
  }

  /** Adds a physical volume, all of it free. */
  addPv(pv: number, regions: number): void {
    if (this.#regionsOfPv.has(pv)) throw new Error(`physical volume ${pv} is known already`);
    this.#regionsOfPv.set(pv, regions);
    this.#freeOfPv.set(pv, 0);
    this.#total += regions;
    this.#giveRun({ pv, start: 0, count: regions });
  }

  /** The inverse of `addPv`, for a change that is taken back: the physical volume must be wholly free. */
  removePv(pv: number): void {
    const regions = this.#regionsOfPv.get(pv);
    if (regions === undefined) throw new Error(`physical volume ${pv} is unknown`);
    this.take([{ pv, start: 0, count: regions }]);
    this.#regionsOfPv.delete(pv);
    this.#freeOfPv.delete(pv);
    this.#total -= regions;
  }

  /** True if every region of the run is free. */
  isFree(run: RegionRun): boolean {
    const position = positionOf(run.pv, run.start);
    return this.#byPosition.floor(position) && this.#byPosition.key + this.#byPosition.value >= position + run.count;
  }

  /** True if any region of the run is free. */
  touchesFree(run: RegionRun): boolean {
    const position = positionOf(run.pv, run.start);
    const found = this.#byPosition.floor(position + run.count - 1);
    return found && this.#byPosition.key + this.#byPosition.value > position;
  }

  /**
   * Chooses `count` regions without taking them; null when there are fewer.
   * @param after the last run of a volume that grows: free regions right behind it are used first, as they add no run
   */
  plan(count: number, after?: RegionRun): RegionRun[] | null {
    if (!Number.isSafeInteger(count) || count < 0) throw new Error(`${count} is no number of regions`);
    if (count === 0) return [];
    if (count > this.#free) return null;
    if (after !== undefined) {
      const behind = positionOf(after.pv, after.start + after.count);
      const length = this.#byPosition.get(behind);
      if (length !== undefined) {
        const first = runAt(behind, Math.min(length, count));
        return [first, ...this.#choose(count - first.count, behind)];
      }
    }
    return this.#choose(count, -1);
  }

  /** `plan` and `take` in one. */
  allocate(count: number): RegionRun[] | null {
    const runs = this.plan(count);
    if (runs !== null) this.take(runs);
    return runs;
  }

  /** Takes regions out of the table. @throws Error, with no effect, if one of them is not free */
  take(runs: readonly RegionRun[]): void {
    const overlap = overlapIn(runs);
    if (overlap !== null) throw new Error(`${describeRun(overlap)} are asked for twice`);
    for (const run of runs) {
      if (!isWellFormedRun(run)) throw new Error(`${JSON.stringify(run)} is no run of regions`);
      if (!this.isFree(run)) throw new Error(`${describeRun(run)} are not all unassigned`);
    }
    for (const run of runs) this.#takeRun(run);
  }

  /** Puts regions back. @throws Error, with no effect, if one of them is free already or does not exist */
  give(runs: readonly RegionRun[]): void {
    const overlap = overlapIn(runs);
    if (overlap !== null) throw new Error(`${describeRun(overlap)} are given back twice`);
    for (const run of runs) {
      if (!isWellFormedRun(run)) throw new Error(`${JSON.stringify(run)} is no run of regions`);
      if (run.start + run.count > (this.#regionsOfPv.get(run.pv) ?? 0)) throw new Error(`${describeRun(run)} do not exist`);
      if (this.touchesFree(run)) throw new Error(`${describeRun(run)} are in part unassigned already`);
    }
    for (const run of runs) this.#giveRun(run);
  }

  /** The free runs in the order of their numbers. */
  *runs(): IterableIterator<RegionRun> {
    for (const [position, count] of this.#byPosition.entries()) yield runAt(position, count);
  }

  /** @param exclude position of a free run that is used already, or -1 */
  #choose(count: number, exclude: number): RegionRun[] {
    if (count === 0) return [];
    const used = new Set([exclude]);
    const fitting = this.#bestFit(count, used);
    if (fitting >= 0) return [runAt(fitting, count)];
    const chosen: RegionRun[] = [];
    let wanted = count;
    for (let index = this.#lengths.length - 1; index >= 0; index -= 1) {
      const length = this.#lengths[index] as number;
      for (const position of this.#byLength.get(length)?.keys() ?? []) {
        if (used.has(position)) continue;
        if (length >= wanted) {
          chosen.push(runAt(this.#bestFit(wanted, used), wanted));
          return sortedRuns(chosen);
        }
        used.add(position);
        chosen.push(runAt(position, length));
        wanted -= length;
      }
    }
    throw new Error('the count of free regions is wrong');
  }

  /** Position of the lowest among the shortest free runs of at least `count` regions that is not in `used`, or -1. */
  #bestFit(count: number, used: ReadonlySet<number>): number {
    for (let index = this.#lengthIndex(count); index < this.#lengths.length; index += 1) {
      for (const position of this.#byLength.get(this.#lengths[index] as number)?.keys() ?? []) {
        if (!used.has(position)) return position;
      }
    }
    return -1;
  }

  /** Index of the first length >= `length`. */
  #lengthIndex(length: number): number {
    let low = 0;
    let high = this.#lengths.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#lengths[middle] as number) < length) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insert(position: number, length: number): void {
    this.#byPosition.set(position, length);
    let positions = this.#byLength.get(length);
    if (positions === undefined) {
      positions = new SortedMap();
      this.#byLength.set(length, positions);
      this.#lengths.splice(this.#lengthIndex(length), 0, length);
    }
    positions.set(position, 0);
  }

  #remove(position: number, length: number): void {
    this.#byPosition.delete(position);
    const positions = this.#byLength.get(length);
    positions?.delete(position);
    if (positions?.size === 0) {
      this.#byLength.delete(length);
      this.#lengths.splice(this.#lengthIndex(length), 1);
    }
  }

  #takeRun(run: RegionRun): void {
    const position = positionOf(run.pv, run.start);
    if (!this.#byPosition.floor(position)) throw new Error('take was not validated');
    const { key, value } = this.#byPosition;
    const end = position + run.count;
    this.#remove(key, value);
    if (key < position) this.#insert(key, position - key);
    if (end < key + value) this.#insert(end, key + value - end);
    this.#count(run.pv, -run.count);
  }

  #giveRun(run: RegionRun): void {
    let position = positionOf(run.pv, run.start);
    let length = run.count;
    if (this.#byPosition.floor(position) && this.#byPosition.key + this.#byPosition.value === position) {
      const { key, value } = this.#byPosition;
      this.#remove(key, value);
      position = key;
      length += value;
    }
    const behind = this.#byPosition.get(position + length);
    if (behind !== undefined) {
      this.#remove(position + length, behind);
      length += behind;
    }
    this.#insert(position, length);
    this.#count(run.pv, run.count);
  }

  #count(pv: number, change: number): void {
    this.#free += change;
    this.#freeOfPv.set(pv, this.freeRegionsOf(pv) + change);
  }
}
