/**
 * A lane's buffers for large requests and replies: taken while one is under way, given back after it.
 *
 * Idle connections hold none, and all connections of a lane together hold no more than the budget: whoever comes
 * after that waits (data/buffer-queue.ts), so no client can make the engine take memory without bound. Sizes are powers
 * of two with room for a header and the start of the next request behind a payload.
 */
import { MiB } from '../core/units.ts';

/** All large buffers of a lane: enough for more than a hundred transfers at one time. */
const BUDGET_BYTES: number = 128 * MiB;
/** The largest buffer: one piece of a long read or write. */
const PIECE_BYTES: number = MiB;
/** Room behind a payload of a power of two. */
const SLACK_BYTES: number = 64 * 1024;
const CLASS_BYTES_MIN: number = 4 * 1024;
/** Free buffers kept for reuse, in all. */
const KEEP_BYTES_MAX: number = 8 * MiB;

const sizeFor = (bytes: number): number => {
  let size = CLASS_BYTES_MIN;
  while (size < bytes) size *= 2;
  return size;
};

export class BufferPool {
  readonly #budgetBytes: number;
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;
  #takenBytes = 0;
  /** Of them, those that count against the budget. */
  #budgetedBytes = 0;
  /** Called when budgeted bytes come back. */
  onGiven: (() => void) | null = null;

  constructor(budgetBytes: number = BUDGET_BYTES) {
    this.#budgetBytes = budgetBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  get budgetedBytes(): number {
    return this.#budgetedBytes;
  }

  /** Most of the budget is used up: what can be asked for in smaller parts should be. */
  get isScarce(): boolean {
    return this.#budgetedBytes * 2 > this.#budgetBytes;
  }

  /** There is one more for a piece. */
  get hasRoom(): boolean {
    return this.#budgetedBytes + PIECE_BYTES + SLACK_BYTES <= this.#budgetBytes;
  }

  /** A buffer of at least `bytes` and a little more, or as much as `ahead` while there is plenty; null when the budget is used up. */
  take(bytes: number, ahead: number = SLACK_BYTES): Buffer | null {
    // The slack has room for the header before a payload of a power of two.
    const size = sizeFor(bytes - SLACK_BYTES / 2) + (this.isScarce ? SLACK_BYTES : ahead);
    if (this.#budgetedBytes + size > this.#budgetBytes) return null;
    this.#budgetedBytes += size;
    return this.#takeSize(size);
  }

  give(buffer: Buffer): void {
    this.#budgetedBytes -= buffer.length;
    this.#giveSize(buffer);
    this.onGiven?.();
  }

  /** A buffer for bytes that are here already, outside of the budget: their number is bounded by what was read at once. */
  takeRest(bytes: number): Buffer {
    return this.#takeSize(sizeFor(bytes));
  }

  giveRest(buffer: Buffer): void {
    this.#giveSize(buffer);
  }

  #takeSize(size: number): Buffer {
    this.#takenBytes += size;
    const kept = this.#free.get(size)?.pop();
    if (kept === undefined) return Buffer.allocUnsafeSlow(size);
    this.#freeBytes -= size;
    return kept;
  }

  #giveSize(buffer: Buffer): void {
    const size = buffer.length;
    this.#takenBytes -= size;
    if (this.#freeBytes + size > KEEP_BYTES_MAX) return;
    this.#freeBytes += size;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
  }
}
