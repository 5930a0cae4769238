/**
 * Who gets a lane's large buffers when there are not enough: a queue, first come, first served.
 *
 * A request may need a larger buffer while it holds a smaller one, so everybody could wait for everybody. Therefore one
 * connection at a time may go beyond the budget; it gets to its end and makes room. Holders that do not get on while
 * others wait are cut off by the lane (`isShort`), so that waiting has an end.
 */
import type { BufferPool } from './buffer-pool.ts';
import type { Connection } from './connection.ts';

/** Below this there is no use in waking anybody. */
const ROOM_BYTES_MIN: number = 1024 * 1024;

export class BufferQueue {
  readonly #pool: BufferPool;
  readonly #waiters = new Set<Connection>();
  /** The one that may go beyond the budget. */
  #beyond: Connection | null = null;
  #isWakeDue = false;

  constructor(pool: BufferPool) {
    this.#pool = pool;
    pool.onGiven = () => this.#wakeSoon();
  }

  /** A buffer, or null: then the connection is told to go on (`goOn`) when there may be one. */
  take(connection: Connection, bytes: number): Buffer | null {
    const buffer = this.#pool.take(bytes);
    if (buffer !== null) return buffer;
    if (this.#beyond === null || this.#beyond === connection) {
      this.#beyond = connection;
      return this.#pool.takeBeyond(bytes);
    }
    this.#waiters.add(connection);
    return null;
  }

  /** The connection holds no buffer any more. */
  done(connection: Connection): void {
    if (this.#beyond !== connection) return;
    this.#beyond = null;
    this.#wakeSoon();
  }

  /** The connection is gone. */
  forget(connection: Connection): void {
    this.#waiters.delete(connection);
    this.done(connection);
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
      if (left === 0 || (this.#beyond !== null && !this.#pool.hasRoomFor(ROOM_BYTES_MIN))) return;
      left -= 1;
      this.#waiters.delete(connection);
      connection.goOn();
    }
  }
}
