/**
 * A long READ, answered in pieces of 192 KiB from a buffer of the pool: the socket writes from the very buffer that the
 * file was read into, and the next piece is read when it has left, so a client that does not read its reply costs one
 * piece and no more.
 *
 * With structured replies each piece is a chunk of its own, and an error is a chunk too. A simple reply, and a
 * structured one with DF, has promised success in its header: an error behind it can only end the connection.
 */
import { nbdErrnoOf } from '../core/faults.ts';
import { NBD_CMD_FLAG_DF, NBD_REPLY_FLAG_DONE } from '../wire/nbd-constants.ts';
import {
  type NbdRequest,
  REPLY_SIMPLE,
  type ReplyMode,
  writeError,
  writeErrorOffset,
  writeOffsetData,
  writeReadHeader,
} from '../wire/nbd-transmission.ts';
import type { Connection } from './connection.ts';
import type { Lane, LaneVolume } from './lane.ts';
import { truthLeg } from './write-path.ts';

/** What a unix socket takes at once: a longer piece leaves a rest for which the lane has to come back. */
const PIECE_BYTES: number = 192 * 1024;

export class StreamedRead {
  readonly #lane: Lane;
  readonly #connection: Connection;
  readonly #volume: LaneVolume;
  readonly #request: NbdRequest;
  readonly #mode: ReplyMode;
  readonly #end: number;
  readonly #isWhole: boolean;
  #next: number;
  #buffer: Buffer | null = null;
  /** When the piece under way was read. */
  #sinceMs = 0;
  /** The slow worker reads the next piece. */
  #isAside = false;

  constructor(lane: Lane, connection: Connection, volume: LaneVolume, request: NbdRequest, mode: ReplyMode) {
    this.#lane = lane;
    this.#connection = connection;
    this.#volume = volume;
    this.#request = request;
    this.#mode = mode;
    this.#next = request.offset;
    this.#end = request.offset + request.length;
    this.#isWhole = mode === REPLY_SIMPLE || (request.flags & NBD_CMD_FLAG_DF) !== 0;
  }

  /** Sends pieces until the socket is full or all is sent. Called again when the socket has drained. */
  pump(): void {
    const connection = this.#connection;
    while (this.#next < this.#end) {
      if (this.#isAside || connection.socket.isBlocked || connection.isGone) return;
      // The slack of the pool's buffers has room for the header.
      this.#buffer ??= this.#lane.buffers.take(connection, PIECE_BYTES);
      if (this.#buffer === null) return;
      this.#sinceMs = this.#lane.nowMs;
      const bytes = Math.min(PIECE_BYTES, this.#end - this.#next);
      if (this.#volume.reads.isSlow) this.#readAside(bytes);
      else this.#piece(this.#buffer, bytes);
    }
    if (connection.socket.isBlocked || connection.isGone) return;
    this.release();
    connection.stream = null;
    this.#lane.outbox.sendWaiting(connection);
    this.#lane.executor.readNextLate(connection);
    if (connection.stream === null) connection.streamEnded();
  }

  /** How long the client has not taken the piece that it holds a buffer for; null when it holds none. */
  heldMs(nowMs: number): number | null {
    return this.#buffer === null ? null : nowMs - this.#sinceMs;
  }

  release(): void {
    if (this.#buffer !== null) this.#lane.pool.give(this.#buffer);
    this.#buffer = null;
  }

  #piece(buffer: Buffer, bytes: number): void {
    const at = this.#head(buffer, bytes);
    const leg = truthLeg(this.#volume);
    const began = performance.now();
    const isRead = leg.read(buffer, at, this.#next, bytes);
    this.#volume.reads.called((performance.now() - began) * 1000, bytes);
    if (isRead) this.#send(buffer, at, bytes);
    else this.#failed(buffer, leg.failure);
  }

  /** The medium keeps its callers waiting: not this lane. */
  #readAside(bytes: number): void {
    this.#isAside = true;
    this.#lane.aside(this.#volume, this.#next, bytes, { kind: 'read' }, ({ code, tookUs, data }) => {
      this.#isAside = false;
      this.#volume.reads.calledAside(tookUs, bytes);
      const buffer = this.#buffer;
      // Its connection may be gone by now, and the buffer given back.
      if (buffer === null) return;
      if (code === '') {
        const at = this.#head(buffer, bytes);
        buffer.set(data, at);
        this.#send(buffer, at, bytes);
      } else this.#failed(buffer, code);
      this.pump();
    });
  }

  /** Writes what comes before the piece. @returns where the piece goes */
  #head(buffer: Buffer, bytes: number): number {
    if (!this.#isWhole) {
      const flags = this.#next + bytes === this.#end ? NBD_REPLY_FLAG_DONE : 0;
      return writeOffsetData(buffer, 0, this.#mode, this.#request, flags, this.#next, bytes);
    }
    return this.#next === this.#request.offset ? writeReadHeader(buffer, 0, this.#mode, this.#request) : 0;
  }

  #send(buffer: Buffer, at: number, bytes: number): void {
    this.#next += bytes;
    this.#sinceMs = this.#lane.nowMs;
    this.#connection.readBytes += bytes;
    this.#connection.socket.writeKept(buffer, 0, at + bytes);
  }

  #failed(buffer: Buffer, code: string): void {
    const isFirst = this.#next === this.#request.offset;
    const errno = nbdErrnoOf({ code });
    const text = `read at ${this.#next} failed: ${code}`;
    if (this.#isWhole && !isFirst) {
      this.#next = this.#end;
      this.#connection.socket.destroy('read-failed-behind-header');
      return;
    }
    const length = this.#isWhole
      ? writeError(buffer, 0, this.#mode, this.#request, errno, text)
      : writeErrorOffset(buffer, 0, this.#mode, this.#request, NBD_REPLY_FLAG_DONE, errno, this.#next, text);
    this.#next = this.#end;
    this.#connection.socket.writeKept(buffer, 0, length);
  }
}
