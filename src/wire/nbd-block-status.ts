/**
 * Writing the reply chunks of BLOCK_STATUS (NBD specification, "NBD_REPLY_TYPE_BLOCK_STATUS"; BLOCK_STATUS_EXT with
 * extended headers).
 *
 * The extents of one context are appended one by one into the connection's reply buffer; neighbours of equal status
 * become one. Invariants: at least one extent; consecutive from the request's offset; none of length zero; only the
 * last may reach beyond what was asked, and with REQ_ONE there is one, that does not; never more extents than room.
 */
import * as nbd from './nbd-constants.ts';
import { REPLY_EXTENDED, writeChunkHeader } from './nbd-transmission.ts';
import type { NbdRequest, ReplyMode } from './nbd-transmission.ts';

/** A compact extent has 32 bits for its length; cut there, on a multiple of 64 KiB. */
const COMPACT_EXTENT_BYTES_MAX = 0xffff_0000;

/** Room for the header of a chunk and its first extent. */
export const BLOCK_STATUS_BYTES_MIN: number = nbd.NBD_EXTENDED_REPLY_BYTES + 8 + 16;

export class BlockStatusWriter {
  #into: Buffer = Buffer.alloc(0);
  #start = 0;
  #at = 0;
  #end = 0;
  #mode: ReplyMode = REPLY_EXTENDED;
  #request: NbdRequest | null = null;
  #contextId = 0;
  #extents = 0;
  #extentsMax = 0;
  #coveredBytes = 0;
  #lastBytes = 0;
  #lastStatus = 0;

  /**
   * Starts the chunk of one context at `at`. It uses no byte at or behind `end`.
   * The chunk's offset is the request's; `mode` is structured or extended.
   */
  begin(into: Buffer, at: number, end: number, mode: ReplyMode, request: NbdRequest, contextId: number): void {
    if (end - at < BLOCK_STATUS_BYTES_MIN) throw new Error('no room for one extent');
    const fixedBytes = mode === REPLY_EXTENDED ? nbd.NBD_EXTENDED_REPLY_BYTES + 8 : nbd.NBD_STRUCTURED_REPLY_BYTES + 4;
    const extentBytes = mode === REPLY_EXTENDED ? 16 : 8;
    this.#into = into;
    this.#start = at;
    this.#at = at + fixedBytes;
    this.#end = end;
    this.#mode = mode;
    this.#request = request;
    this.#contextId = contextId;
    this.#extents = 0;
    const single = (request.flags & nbd.NBD_CMD_FLAG_REQ_ONE) !== 0;
    this.#extentsMax = single ? 1 : Math.min(nbd.NBD_EXTENTS_MAX, Math.floor((this.#end - this.#at) / extentBytes));
    this.#coveredBytes = 0;
    this.#lastBytes = 0;
    this.#lastStatus = 0;
  }

  /** Bytes from the request's offset that the extents describe so far. */
  get coveredBytes(): number {
    return this.#coveredBytes;
  }

  /** @returns false when the chunk takes no more: what was asked is covered, or it is full. */
  add(lengthBytes: number, status: number): boolean {
    const request = this.#request;
    if (request === null || !(lengthBytes > 0)) throw new Error('an extent needs a chunk and a length');
    const single = this.#extentsMax === 1;
    let left = lengthBytes;
    while (left > 0) {
      if (this.#coveredBytes >= request.length) return false;
      const wanted = single ? Math.min(left, request.length - this.#coveredBytes) : left;
      const taken = this.#extents > 0 && this.#lastStatus === status ? this.#grow(wanted) : this.#append(wanted, status);
      if (taken === 0) return false;
      left -= taken;
      this.#coveredBytes += taken;
    }
    return this.#coveredBytes < request.length;
  }

  /** Closes the chunk. @returns the position behind it */
  end(flags: number): number {
    const request = this.#request;
    if (request === null || this.#extents === 0) throw new Error('a block-status chunk has at least one extent');
    this.#put();
    const isExtended = this.#mode === REPLY_EXTENDED;
    const type = isExtended ? nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : nbd.NBD_REPLY_TYPE_BLOCK_STATUS;
    const payloadBytes = isExtended ? 8 + this.#extents * 16 : 4 + this.#extents * 8;
    const payload = writeChunkHeader(this.#into, this.#start, this.#mode, request, flags, type, payloadBytes);
    this.#into.writeUInt32BE(this.#contextId, payload);
    if (isExtended) this.#into.writeUInt32BE(this.#extents, payload + 4);
    this.#request = null;
    return payload + payloadBytes;
  }

  /** Adds to the last extent. @returns the bytes taken; a full compact extent hands over to a new one */
  #grow(lengthBytes: number): number {
    if (this.#mode === REPLY_EXTENDED) {
      this.#lastBytes += lengthBytes;
      return lengthBytes;
    }
    const taken = Math.min(lengthBytes, COMPACT_EXTENT_BYTES_MAX - this.#lastBytes);
    if (taken <= 0) return this.#append(lengthBytes, this.#lastStatus);
    this.#lastBytes += taken;
    return taken;
  }

  #append(lengthBytes: number, status: number): number {
    if (this.#extents === this.#extentsMax) return 0;
    if (this.#extents > 0) this.#put();
    this.#extents += 1;
    this.#lastStatus = status;
    this.#lastBytes = this.#mode === REPLY_EXTENDED ? lengthBytes : Math.min(lengthBytes, COMPACT_EXTENT_BYTES_MAX);
    return this.#lastBytes;
  }

  /** Writes the last extent, which will not grow any more. */
  #put(): void {
    if (this.#mode === REPLY_EXTENDED) {
      const high = Math.floor(this.#lastBytes / 0x1_0000_0000);
      this.#into.writeUInt32BE(high, this.#at);
      this.#into.writeUInt32BE(this.#lastBytes - high * 0x1_0000_0000, this.#at + 4);
      this.#into.writeUInt32BE(0, this.#at + 8);
      this.#into.writeUInt32BE(this.#lastStatus, this.#at + 12);
      this.#at += 16;
    } else {
      this.#into.writeUInt32BE(this.#lastBytes, this.#at);
      this.#into.writeUInt32BE(this.#lastStatus, this.#at + 4);
      this.#at += 8;
    }
  }
}
