/**
 * A connection's requests whose reply comes later (flush, trim, a slow medium, a delay on purpose), and the bytes that
 * they hold until then: bounded for each connection, and for all of a lane beyond one request each.
 */
import type { Lane } from './lane.ts';

const REQUESTS_MAX = 256;
const BYTES_MAX: number = 32 * 1024 * 1024;
const LANE_BYTES_MAX: number = 96 * 1024 * 1024;

export class DeferredRequests {
  count = 0;
  /** Writes among them: a hold waits for these. */
  writes = 0;
  #bytes = 0;
  /** Bytes of replies that are ready and have not left: the client does not read. */
  #owedBytes = 0;
  readonly #lane: Lane;

  constructor(lane: Lane) {
    this.#lane = lane;
  }

  /** @returns whether the connection may take more requests */
  add(isWrite: boolean, heldBytes: number): boolean {
    this.count += 1;
    if (isWrite) this.writes += 1;
    this.#bytes += heldBytes;
    this.#lane.deferredBytes += heldBytes;
    const isLaneFull = heldBytes > 0 && this.#lane.deferredBytes >= LANE_BYTES_MAX;
    return !isLaneFull && this.count < REQUESTS_MAX && this.#bytes < BYTES_MAX;
  }

  /** @param isOut false: its reply waits, and its bytes count until `settle` */
  remove(isWrite: boolean, heldBytes: number, isOut: boolean): void {
    this.count -= 1;
    if (isWrite) this.writes -= 1;
    if (isOut) this.#free(heldBytes);
    else this.#owedBytes += heldBytes;
  }

  /** Every reply that was ready has left, or never will. */
  settle(): void {
    this.#free(this.#owedBytes);
    this.#owedBytes = 0;
  }

  #free(bytes: number): void {
    this.#bytes -= bytes;
    this.#lane.deferredBytes -= bytes;
  }

  /** May a connection that had to wait go on? Each has one request under way at least, so that each goes on when that one is answered. */
  get hasRoom(): boolean {
    if (this.count === 0) return true;
    return this.#bytes < BYTES_MAX && this.#lane.deferredBytes < LANE_BYTES_MAX && this.count < REQUESTS_MAX / 2;
  }
}
