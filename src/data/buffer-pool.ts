/**
 * A lane's buffers for large requests and replies: taken while one is under way, given back after it.
 *
 * Idle connections hold none, and all connections of a lane together hold no more than the budget: whoever comes
 * after that waits, so no client can make the engine take memory without bound. Sizes are powers of two with room for
 * a header and the start of the next request behind a payload.
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

export class BufferPool {
  readonly #budgetBytes: number;
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;
  #takenBytes = 0;

  constructor(budgetBytes: number = 8 * NBD_PAYLOAD_BYTES_MAX) {
    this.#budgetBytes = budgetBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  /** A buffer of at least `bytes` and a little more, or null when the budget is used up. */
  take(bytes: number): Buffer | null {
    const size = sizeFor(bytes) + SLACK_BYTES;
    // One holder always gets what it needs, so that nobody waits for a budget that cannot come.
    if (this.#takenBytes > 0 && this.#takenBytes + size > this.#budgetBytes) return null;
    return this.#takeSize(size);
  }

  /** A buffer for bytes that are here already: their number is bounded by what was read at once. */
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
    if (this.#freeBytes + size > KEEP_BYTES_MAX) return;
    this.#freeBytes += size;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
  }
}
