/**
 * The write gate: the consistency point of every change of what a write must do (form, split, suspend, resync).
 *
 * A worker says "inside" in its own slot before it looks at any pair's mode, and "outside" when the write is on all
 * of its legs. Whoever changes a mode closes the gate, waits until every slot is outside, changes, and opens: no
 * write is half under the old rule and half under the new one. Both sides write their own word first and read the
 * other's second (Atomics are sequentially consistent), so at least one of them sees the other.
 *
 * A worker is inside for microseconds, on a slow disk for longer, and never waits for the main thread there. A worker
 * thread may therefore wait for it on the spot (`closed`). The main thread must not: a worker can die inside, and only
 * the main thread's event loop hears of that. It waits a moment on the spot and then between turns of its event loop
 * (`closedFromMain`), with the gate closed all the while.
 */
import { DEVICE, SLOT_COUNT } from './shared-memory.ts';

/** Waits are bounded and repeated, so that a lost wake-up costs a millisecond and never a hang. */
const WAIT_MS = 1;
/** How long the main thread waits on the spot for all workers together before it lets its event loop turn. */
const SPOT_MS = 3;

const insideAt = (slot: number): number => DEVICE.SLOT_FIRST + slot * DEVICE.SLOT_WORDS + DEVICE.SLOT_INSIDE;

export class WriteGate {
  readonly #words: Int32Array;
  readonly #slot: number;
  readonly #inside: number;
  /** Ends when the main thread's change before this one has ended. */
  #turn: Promise<void> = Promise.resolve();

  constructor(device: Int32Array, slot: number) {
    this.#words = device;
    this.#slot = slot;
    this.#inside = insideAt(slot);
  }

  enter(): void {
    const words = this.#words;
    for (;;) {
      Atomics.store(words, this.#inside, 1);
      const closer = Atomics.load(words, DEVICE.GATE);
      if (closer === 0) return;
      Atomics.store(words, this.#inside, 0);
      Atomics.notify(words, this.#inside);
      Atomics.wait(words, DEVICE.GATE, closer, WAIT_MS);
    }
  }

  leave(): void {
    Atomics.store(this.#words, this.#inside, 0);
    if (Atomics.load(this.#words, DEVICE.GATE) !== 0) Atomics.notify(this.#words, this.#inside);
  }

  /**
   * Runs `change` while no worker is inside; for worker threads. Not re-entrant; `change` must not wait for anything.
   * @returns milliseconds for which the gate was closed
   */
  closed(change: () => void): number {
    const words = this.#words;
    const mine = this.#slot + 1;
    for (;;) {
      const holder = Atomics.compareExchange(words, DEVICE.GATE, 0, mine);
      if (holder === 0) break;
      Atomics.wait(words, DEVICE.GATE, holder, WAIT_MS);
    }
    const startedMs = performance.now();
    try {
      for (let slot = 0; slot < SLOT_COUNT; slot += 1) {
        if (slot === this.#slot) continue;
        while (Atomics.load(words, insideAt(slot)) !== 0) Atomics.wait(words, insideAt(slot), 1, WAIT_MS);
      }
      change();
    } finally {
      Atomics.store(words, DEVICE.GATE, 0);
      Atomics.notify(words, DEVICE.GATE);
    }
    return performance.now() - startedMs;
  }

  /**
   * The same for the main thread: changes run one after another, in the order of the calls.
   * @returns milliseconds for which the gate was closed
   */
  closedFromMain(change: () => void): Promise<number> {
    const closing = this.#turn.then(() => this.#closeFromMain(change));
    this.#turn = closing.then(
      () => undefined,
      () => undefined,
    );
    return closing;
  }

  async #closeFromMain(change: () => void): Promise<number> {
    const words = this.#words;
    while (Atomics.compareExchange(words, DEVICE.GATE, 0, this.#slot + 1) !== 0) await oneTurn();
    const startedMs = performance.now();
    try {
      for (let slot = 0; slot < SLOT_COUNT; slot += 1) {
        while (slot !== this.#slot && Atomics.load(words, insideAt(slot)) !== 0) {
          if (performance.now() - startedMs < SPOT_MS) Atomics.wait(words, insideAt(slot), 1, WAIT_MS);
          else await oneTurn();
        }
      }
      change();
    } finally {
      Atomics.store(words, DEVICE.GATE, 0);
      Atomics.notify(words, DEVICE.GATE);
    }
    return performance.now() - startedMs;
  }

  /** Clears what a dead worker left behind: its slot, and the gate if it had closed it. */
  static forget(device: Int32Array, slot: number): void {
    Atomics.store(device, insideAt(slot), 0);
    Atomics.notify(device, insideAt(slot));
    if (Atomics.compareExchange(device, DEVICE.GATE, slot + 1, 0) === slot + 1) Atomics.notify(device, DEVICE.GATE);
  }
}

const oneTurn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, WAIT_MS));
