/**
 * What failed syncs may have lost, and who has been told of it.
 *
 * When the kernel cannot write a page back, it says so to one sync of the file, marks the page clean, and lets the next
 * sync succeed. All volumes of a physical volume share its descriptor, and lanes, copies and the main thread sync it in
 * turn; so whoever gets the error counts it here, and everybody else compares the count with what he saw last:
 * - hosts: the next flush of each volume on that physical volume fails, once, on whichever connection it comes;
 * - pairs: what is marked of each of them becomes dirty, before any mark is dropped.
 *
 * All of it are words of the device block (data/shared-memory.ts). A count only rises (and wraps around); the sum over
 * a volume's physical volumes changes whenever one of them does.
 */
import { SYNC, VOLUME_SYNC_WORDS } from './shared-memory.ts';

/** Who is told: a volume's hosts by a failed flush, its pairs by dirty bits. */
export type Told = 'hosts' | 'pairs';

const TOLD_AT: Readonly<Record<Told, number>> = { hosts: 0, pairs: 1 };

export class SyncFailures {
  readonly #words: Int32Array;

  constructor(device: Int32Array) {
    this.#words = device;
  }

  /** A sync of the physical volume failed. */
  count(pv: number): void {
    Atomics.add(this.#words, SYNC.PV_FIRST + pv, 1);
  }

  /** Failures of these physical volumes so far. */
  sum(pvs: readonly number[]): number {
    let sum = 0;
    for (const pv of pvs) sum = (sum + Atomics.load(this.#words, SYNC.PV_FIRST + pv)) | 0;
    return sum;
  }

  /** Whether one failed since they were told for the volume last; they count as told from now on. */
  take(told: Told, volume: number, pvs: readonly number[]): boolean {
    const sum = this.sum(pvs);
    const at = SYNC.VOLUME_FIRST + volume * VOLUME_SYNC_WORDS + TOLD_AT[told];
    const seen = Atomics.load(this.#words, at);
    return seen !== sum && Atomics.compareExchange(this.#words, at, seen, sum) === seen;
  }

  /** The volume is new: what failed before is none of its concern. */
  begin(volume: number, pvs: readonly number[]): void {
    this.take('hosts', volume, pvs);
    this.take('pairs', volume, pvs);
  }

  /** The volume lies on other physical volumes now. What it was not told of the ones of before it is told later. */
  move(volume: number, before: readonly number[], after: readonly number[]): void {
    const shift = (this.sum(after) - this.sum(before)) | 0;
    for (const at of Object.values(TOLD_AT)) Atomics.add(this.#words, SYNC.VOLUME_FIRST + volume * VOLUME_SYNC_WORDS + at, shift);
  }
}
