/**
 * Pace of a copy: how much time it leaves to hosts after each step. It gives way only while hosts are at work.
 *
 * At pace p a step of t milliseconds is followed by a rest of t x (15 - p) / p x 1.8: nothing at 15, one and a half times as
 * long as the step at 8 (medium), seven times at 3 (slow), 25 times at 1. On one processor a host at depth 1 keeps
 * some 0.65 of its rate at medium pace; with rests as long as the steps it was about half, now and then less.
 */
import { DEVICE, PAIR, SLOT_COUNT } from './shared-memory.ts';

const REST_FACTOR = 1.8;
/** Hosts count as at work for so long after their last request. */
const ACTIVE_MS = 100;
const REST_MS_MAX = 100;

export class CopyPace {
  readonly #device: Int32Array;
  readonly #pair: Int32Array;
  #seen = 0;
  #activeUntilMs = 0;

  constructor(device: Int32Array, pair: Int32Array) {
    this.#device = device;
    this.#pair = pair;
    this.#seen = this.#requests();
  }

  /** Rests after a step; a stop of the copy ends the rest. */
  rest(stepMs: number): void {
    if (!this.hostsAreAtWork()) return;
    const pace = Math.min(15, Math.max(1, Atomics.load(this.#pair, PAIR.PACE)));
    const restMs = Math.min(REST_MS_MAX, ((stepMs * (15 - pace)) / pace) * REST_FACTOR);
    if (restMs > 0) Atomics.wait(this.#pair, PAIR.COPY_STOP, 0, restMs);
  }

  /** Has a host asked for anything lately? */
  hostsAreAtWork(): boolean {
    const nowMs = performance.now();
    const requests = this.#requests();
    if (requests !== this.#seen) this.#activeUntilMs = nowMs + ACTIVE_MS;
    this.#seen = requests;
    return nowMs < this.#activeUntilMs;
  }

  #requests(): number {
    let sum = 0;
    for (let slot = 0; slot < SLOT_COUNT; slot += 1) {
      sum = (sum + (this.#device[DEVICE.SLOT_FIRST + slot * DEVICE.SLOT_WORDS + DEVICE.SLOT_REQUESTS] as number)) | 0;
    }
    return sum;
  }
}
