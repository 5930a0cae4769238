/**
 * A lane's buffers for large requests and replies: taken while one is under way, given back after it.
 *
 * Idle connections hold none, and all connections of a lane together hold no more than the budget: whoever comes
 * after that waits (data/buffer-queue.ts), so no client can make the engine take memory without bound. Sizes are powers
 * of two with room for a header and the start of the next request behind a payload.
 */
import { MiB, NBD_PAYLOAD_BYTES_MAX } from '../core/units.ts';

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

/** Nobody is judged before. */
const RATE_AGE_MS_MIN = 2000;

/** Bytes a second since a moment, by which holders of buffers are judged when the budget is used up. */
export const rateOf = (bytes: number, sinceMs: number, nowMs: number): number =>
  nowMs - sinceMs < RATE_AGE_MS_MIN ? Number.POSITIVE_INFINITY : (bytes * 1000) / (nowMs - sinceMs);

/** Budgeted buffers have the slack, others are a power of two: the size alone tells them apart. */
const isBudgeted = (size: number): boolean => (size & (size - 1)) !== 0;

export class BufferPool {
  readonly #budgetBytes: number;
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;
  #takenBytes = 0;
  /** Of them, those that count against the budget. */
  #budgetedBytes = 0;
  /** Called when budgeted bytes come back. */
  onGiven: (() => void) | null = null;

  constructor(budgetBytes: number = 8 * NBD_PAYLOAD_BYTES_MAX) {
    this.#budgetBytes = budgetBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  /** Most of the budget is used up: what can be asked for in smaller parts should be. */
  get isScarce(): boolean {
    return this.#budgetedBytes * 2 > this.#budgetBytes;
  }

  /** A buffer of at least `bytes` and a little more, or null when the budget is used up. */
  take(bytes: number): Buffer | null {
    return this.hasRoomFor(bytes) ? this.takeBeyond(bytes) : null;
  }

  hasRoomFor(bytes: number): boolean {
    return this.#budgetedBytes + sizeFor(bytes) + SLACK_BYTES <= this.#budgetBytes;
  }

  /** The same, even if the budget is used up. The caller sees to it that only one does so at a time. */
  takeBeyond(bytes: number): Buffer {
    const size = sizeFor(bytes) + SLACK_BYTES;
    this.#budgetedBytes += size;
    return this.#takeSize(size);
  }

  /** A buffer for bytes that are here already, outside of the budget: their number is bounded by what was read at once. */
  takeAlways(bytes: number): Buffer {
    return this.#takeSize(sizeFor(bytes));
  }

  #takeSize(size: number): Buffer {
    this.#takenBytes += size;
    const kept = this.#free.get(size)?.pop();
    if (kept === undefined) return Buffer.allocUnsafeSlow(size);
    this.#freeBytes -= size;
    return kept;
  }

  give(buffer: Buffer): void {
    const size = buffer.length;
    this.#takenBytes -= size;
    if (isBudgeted(size)) {
      this.#budgetedBytes -= size;
      this.onGiven?.();
    }
    if (this.#freeBytes + size > KEEP_BYTES_MAX) return;
    this.#freeBytes += size;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
  }
}
