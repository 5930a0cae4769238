/**
 * Who gets a lane's large buffers when there are not enough: a queue, first come, first served.
 *
 * A connection holds at most one at a time and needs no other to be done with it, so the queue always moves, unless a
 * client does not send the payload or does not read the data that a buffer is held for: while others wait, the lane
 * cuts off who holds one for too long (`isShort`).
 */
import type { BufferPool } from './buffer-pool.ts';
import type { Connection } from './connection.ts';

export class BufferQueue {
  readonly #pool: BufferPool;
  readonly #waiters = new Set<Connection>();
  #isWakeDue = false;

  constructor(pool: BufferPool) {
    this.#pool = pool;
    pool.onGiven = () => this.#wakeSoon();
  }

  /** A buffer, or null: then the connection is told to go on (`goOn`) when there may be one. */
  take(connection: Connection, bytes: number, ahead?: number): Buffer | null {
    const buffer = this.#pool.take(bytes, ahead);
    if (buffer === null) this.#waiters.add(connection);
    return buffer;
  }

  /** The connection is gone. */
  forget(connection: Connection): void {
    this.#waiters.delete(connection);
  }

  /** Somebody waits. */
  get isShort(): boolean {
    return this.#waiters.size > 0;
  }

  #wakeSoon(): void {
    if (this.#isWakeDue || this.#waiters.size === 0) return;
    this.#isWakeDue = true;
    setImmediate(() => {
      this.#isWakeDue = false;
      this.#wake();
    });
  }

  #wake(): void {
    // Whoever has to wait again stands at the end of the queue, so count: one round.
    let left = this.#waiters.size;
    for (const connection of this.#waiters) {
      if (left === 0 || !this.#pool.hasRoom) return;
      left -= 1;
      this.#waiters.delete(connection);
      connection.goOn();
    }
  }
}
