/**
 * A lane's replies: gathered in one buffer while a connection's requests are executed, then written at once.
 *
 * One connection at a time owns the buffer (`begin` to `finish`). A reply that is ready at another moment goes out by
 * itself, or waits in its connection while the socket is full or a long read is on its way: replies may change places,
 * bytes of two replies never mix.
 */
import type { Connection } from './connection.ts';

const OUT_BYTES: number = 1024 * 1024;

export class Outbox {
  readonly buffer: Buffer = Buffer.allocUnsafeSlow(OUT_BYTES);
  /** Where the next reply starts. */
  at = 0;
  #owner: Connection | null = null;

  begin(connection: Connection): void {
    if (this.#owner !== null) throw new Error('two connections cannot gather replies at once');
    this.#owner = connection;
    this.at = 0;
  }

  finish(connection: Connection): void {
    this.flush(connection);
    this.#owner = null;
  }

  /** Makes room for `bytes`. False: the socket is full, nothing more can be executed now. */
  reserve(connection: Connection, bytes: number): boolean {
    if (this.at + bytes <= this.buffer.length) return true;
    this.flush(connection);
    return connection.stopped === '';
  }

  flush(connection: Connection): void {
    if (this.at === 0) return;
    const end = this.at;
    this.at = 0;
    connection.socket.write(this.buffer, 0, end);
    if (connection.socket.isBlocked) connection.stop('socket-full');
  }

  /** Sends a reply that became ready outside of its turn; the bytes are copied where they have to wait. */
  sendLate(connection: Connection, bytes: Buffer, length: number): void {
    if (connection.isGone) return;
    if (this.#owner === connection) {
      if (!this.reserve(connection, length)) {
        connection.waitingReplies.push(Buffer.from(bytes.subarray(0, length)));
        return;
      }
      this.at += bytes.copy(this.buffer, this.at, 0, length);
      return;
    }
    if (connection.socket.isBlocked || connection.stream !== null || connection.waitingReplies.length > 0) {
      connection.waitingReplies.push(Buffer.from(bytes.subarray(0, length)));
      return;
    }
    connection.socket.write(bytes, 0, length);
    if (connection.socket.isBlocked) connection.stop('socket-full');
  }

  /** Sends what waits, as far as the socket takes it. True when nothing waits any more. */
  sendWaiting(connection: Connection): boolean {
    const { waitingReplies, socket } = connection;
    while (waitingReplies.length > 0 && !socket.isBlocked) {
      const bytes = waitingReplies.shift() as Buffer;
      socket.write(bytes, 0, bytes.length);
    }
    if (waitingReplies.length > 0 || socket.isBlocked) return false;
    connection.deferred.settle();
    return true;
  }
}
