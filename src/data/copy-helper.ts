/**
 * The helper of a copy: a second thread that takes stretches of its steps (copy-steps.ts) while hosts are quiet. One thread
 * reads and writes in turn; two use a second processor. It decides nothing: it begins when the lead has asked for it, and it may end, or
 * die, at any moment, because what it has not copied is dirty.
 */
import { CopyPace } from './copy-pace.ts';
import { type CopyFailure, CopySteps, HELPER_COUNTERS } from './copy-steps.ts';
import { PAIR } from './shared-memory.ts';
import type { WorkerPair, WritePath } from './write-path.ts';

export type HelpResult = { readonly end: 'helped' } | CopyFailure;

/** Waits are bounded and repeated, so that a lost wake-up costs a moment and never a hang. */
const WAIT_MS = 20;

export class CopyHelper {
  readonly #pair: WorkerPair;
  readonly #device: Int32Array;
  readonly #steps: CopySteps;

  constructor(pair: WorkerPair, place: { device: Int32Array; path: WritePath }) {
    this.#pair = pair;
    this.#device = place.device;
    this.#steps = new CopySteps(pair, place.path, HELPER_COUNTERS);
  }

  /** Helps until nothing is left to take, or until it is told to end. `between` is called after each step, as for `CopyTask`. */
  async run(between: () => void): Promise<HelpResult> {
    const { words, regions } = this.#pair.block;
    const steps = this.#steps;
    const pace = new CopyPace(this.#device, words);
    try {
      for (let region = 0; ; ) {
        between();
        if (Atomics.load(words, PAIR.HELPER_END) !== 0 || !steps.isWanted()) return { end: 'helped' };
        if (pace.hostsAreAtWork()) {
          Atomics.wait(words, PAIR.HELPER_END, 0, WAIT_MS);
          continue;
        }
        region = steps.next(region);
        if (region >= regions) return { end: 'helped' };
        region = await steps.take(region);
        if (steps.failure !== null) return steps.failure;
      }
    } finally {
      await steps.close();
    }
  }
}
