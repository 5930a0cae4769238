/**
 * Parts of long ranges of zeros that wait for the zero worker (data/aside-worker.ts).
 *
 * Few of a lane's parts are at the worker at one time, taken from its connections in turn: a client that asks for terabytes
 * keeps nobody waiting for more than some parts, a barrier and the engine's end included, and when it is gone, what has
 * not begun is dropped.
 */
import type { Connection } from './connection.ts';

/** One is carried out while the others are on their way. */
const UNDER_WAY_MAX = 4;

export class ZeroQueue {
  #underWay = 0;
  /** The first has its turn next. */
  readonly #waiting = new Map<Connection, Array<() => void>>();

  /** Calls `start` when it is the connection's turn, or never if that is gone by then. `done` has to follow. */
  add(connection: Connection, start: () => void): void {
    const starts = this.#waiting.get(connection);
    if (starts === undefined) this.#waiting.set(connection, [start]);
    else starts.push(start);
    this.#next();
  }

  done(): void {
    this.#underWay -= 1;
    this.#next();
  }

  forget(connection: Connection): void {
    this.#waiting.delete(connection);
  }

  #next(): void {
    for (const [connection, starts] of this.#waiting) {
      if (this.#underWay === UNDER_WAY_MAX) return;
      this.#waiting.delete(connection);
      const start = starts.shift();
      // Behind all others; the loop meets it again.
      if (starts.length > 0) this.#waiting.set(connection, starts);
      this.#underWay += 1;
      start?.();
    }
  }
}
