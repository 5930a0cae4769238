/**
 * Takes the reply stream of one connection apart and carries each piece to the call that it belongs to.
 *
 * Driven by pieces of any size. What is small and must be whole (headers, errors, extents) is read in place where it
 * lies in one piece and gathered otherwise; the data of a READ goes straight to its target, and where the stream allows
 * it the socket reads into the target itself (`nextBuffer`).
 *
 * Invariants: nothing is written outside the bounds of the request that it answers; a reply that breaks the protocol
 * ends the connection (`onBroken`), never more; memory is bounded by one block-status chunk.
 */
import * as nbd from '../wire/nbd-constants.ts';
import { NbdReply, parseReply, replyHeaderBytesMin } from '../wire/nbd-client-transmission.ts';
import { decodeString, readU64 } from '../wire/nbd-handshake.ts';
import { REPLY_SIMPLE, type ReplyMode } from '../wire/nbd-transmission.ts';
import type { Call, Extent } from './call.ts';

/** Below this a direct read gains nothing over the copy. */
const DIRECT_BYTES_MIN = 32 * 1024;
const READ_BUFFER_BYTES = 256 * 1024;
/** Fixed part and extents of the largest block-status chunk that a server may send. */
const STATUS_CHUNK_BYTES_MAX: number = 8 + nbd.NBD_EXTENTS_MAX * 16;
/** An error chunk: a message of 4096 bytes, its fixed part, and some room for types that are not known yet. */
const ERROR_CHUNK_BYTES_MAX = 8192;

export type ReceiverOwner = {
  /** The call in flight with that cookie, or null. */
  callOf(cookieHigh: number, cookieLow: number): Call | null;
  /** Its reply is complete; its slot is free. */
  onDone(cookieHigh: number, cookieLow: number): void;
  onBroken(why: string): void;
};

type Stage = 'header' | 'fixed' | 'data' | 'broken';

export class ReplyReceiver {
  readonly #mode: ReplyMode;
  readonly #owner: ReceiverOwner;
  readonly #reply = new NbdReply();
  readonly #common: Buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  #stage: Stage = 'header';
  /** Bytes that the stage needs in one piece, or that are left of the data. */
  #need: number;
  #gathered: Buffer = Buffer.allocUnsafeSlow(64);
  #gatheredBytes = 0;
  #call: Call | null = null;
  /** Where the next byte of data goes in the call's target. */
  #dataAt = 0;
  #direct: Buffer | null = null;

  constructor(mode: ReplyMode, owner: ReceiverOwner) {
    this.#mode = mode;
    this.#owner = owner;
    this.#need = replyHeaderBytesMin(mode);
  }

  /**
   * Memory for the socket's next read: the target itself in the middle of a large payload. Not where the caller can
   * take its buffer back at any moment (a call with a signal): a read may be under way then.
   */
  nextBuffer(): Buffer {
    this.#direct = null;
    const call = this.#stage === 'data' ? this.#call : null;
    if (call === null || call.target === null || call.isAbortable || this.#need < DIRECT_BYTES_MIN) return this.#common;
    this.#direct = call.target.subarray(this.#dataAt, this.#dataAt + this.#need);
    return this.#direct;
  }

  receive(bytes: Buffer, length: number): void {
    if (bytes === this.#direct) {
      this.#skipData(length);
      return;
    }
    let at = 0;
    while (at < length && this.#stage !== 'broken') at += this.#consume(bytes, at, length - at);
  }

  /** Uses some of the `available` bytes at `at`. @returns how many, at least 1 */
  #consume(bytes: Buffer, at: number, available: number): number {
    if (this.#stage === 'data') {
      const taken = Math.min(available, this.#need);
      const target = this.#call?.target ?? null;
      if (target !== null) bytes.copy(target, this.#dataAt, at, at + taken);
      this.#skipData(taken);
      return taken;
    }
    if (this.#gatheredBytes === 0 && available >= this.#need) {
      const used = this.#onWhole(bytes, at, available);
      if (used > 0) return used;
      this.#need = -used;
    }
    const taken = this.#gather(bytes, at, available);
    if (this.#gatheredBytes === this.#need) {
      const used = this.#onWhole(this.#gathered, 0, this.#gatheredBytes);
      if (used > 0) this.#gatheredBytes = 0;
      else this.#need = -used;
    }
    return taken;
  }

  #gather(bytes: Buffer, at: number, available: number): number {
    if (this.#gathered.length < this.#need) {
      const larger = Buffer.allocUnsafeSlow(this.#need);
      this.#gathered.copy(larger, 0, 0, this.#gatheredBytes);
      this.#gathered = larger;
    }
    const taken = Math.min(available, this.#need - this.#gatheredBytes);
    bytes.copy(this.#gathered, this.#gatheredBytes, at, at + taken);
    this.#gatheredBytes += taken;
    return taken;
  }

  /** A header or the fixed part of a chunk is there. @returns its size, or the negative size if more is needed */
  #onWhole(bytes: Buffer, at: number, available: number): number {
    if (this.#stage === 'fixed') {
      const fixedBytes = this.#need;
      this.#onFixed(bytes, at, fixedBytes);
      return fixedBytes;
    }
    const headerBytes = parseReply(bytes, at, available, this.#mode, this.#reply);
    if (headerBytes > 0) this.#onHeader();
    if (headerBytes !== 0) return headerBytes;
    this.#break('a reply does not start with its magic');
    return available;
  }

  #onHeader(): void {
    const reply = this.#reply;
    const call = this.#owner.callOf(reply.cookieHigh, reply.cookieLow);
    this.#call = call;
    if (call === null) return this.#break('a reply to a request that was never made');
    if (reply.isSimple) return this.#onSimple(call);
    if (reply.type >= nbd.NBD_REPLY_TYPE_ERROR_BIT) {
      if (reply.payloadBytes < 6 || reply.payloadBytes > ERROR_CHUNK_BYTES_MAX) return this.#break('an error chunk of an impossible size');
      return this.#expect('fixed', reply.payloadBytes);
    }
    switch (reply.type) {
      case nbd.NBD_REPLY_TYPE_NONE:
        if (reply.payloadBytes !== 0 || (reply.flags & nbd.NBD_REPLY_FLAG_DONE) === 0)
          return this.#break('an empty chunk that is not the last');
        return this.#endChunk();
      case nbd.NBD_REPLY_TYPE_OFFSET_DATA:
        if (call.type !== nbd.NBD_CMD_READ || reply.payloadBytes <= 8 || reply.payloadBytes > call.length + 8)
          return this.#break('data that was not asked for');
        return this.#expect('fixed', 8);
      case nbd.NBD_REPLY_TYPE_OFFSET_HOLE:
        if (call.type !== nbd.NBD_CMD_READ || reply.payloadBytes !== 12) return this.#break('a hole that was not asked for');
        return this.#expect('fixed', 12);
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS:
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        if (call.type !== nbd.NBD_CMD_BLOCK_STATUS || reply.payloadBytes < 12 || reply.payloadBytes > STATUS_CHUNK_BYTES_MAX) {
          return this.#break('a block status that was not asked for');
        }
        return this.#expect('fixed', reply.payloadBytes);
      default:
        return this.#break(`a chunk of the unknown type ${reply.type}`);
    }
  }

  #onSimple(call: Call): void {
    const { errno } = this.#reply;
    const brings = call.type === nbd.NBD_CMD_READ || call.type === nbd.NBD_CMD_BLOCK_STATUS;
    if (brings && this.#mode !== REPLY_SIMPLE) return this.#break(`a simple reply to a ${call.name}`);
    if (errno !== 0) call.fail(errno, '');
    if (errno !== 0 || !brings) return this.#endReply();
    this.#dataAt = 0;
    this.#expect('data', call.length);
  }

  #onFixed(bytes: Buffer, at: number, length: number): void {
    const call = this.#call;
    if (call === null) return this.#break('no call');
    const { type, payloadBytes } = this.#reply;
    if (type >= nbd.NBD_REPLY_TYPE_ERROR_BIT) return this.#onError(call, bytes.subarray(at, at + length));
    if (type === nbd.NBD_REPLY_TYPE_BLOCK_STATUS || type === nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT)
      return this.#onStatus(call, bytes, at, length);
    const start = readU64(bytes, at) - call.offset;
    const span = type === nbd.NBD_REPLY_TYPE_OFFSET_HOLE ? bytes.readUInt32BE(at + 8) : payloadBytes - 8;
    if (start < 0 || span === 0 || start + span > call.length) return this.#break('data outside of what was asked for');
    call.receivedBytes += span;
    if (type === nbd.NBD_REPLY_TYPE_OFFSET_HOLE) {
      call.target?.fill(0, start, start + span);
      return this.#endChunk();
    }
    this.#dataAt = start;
    this.#expect('data', span);
  }

  #onError(call: Call, chunk: Buffer): void {
    const messageBytes = chunk.readUInt16BE(4);
    if (messageBytes > chunk.length - 6) return this.#break('an error message that leads beyond its chunk');
    call.fail(chunk.readUInt32BE(0), decodeString(chunk.subarray(6, 6 + messageBytes)) ?? '');
    this.#endChunk();
  }

  #onStatus(call: Call, bytes: Buffer, at: number, length: number): void {
    const isExtended = this.#reply.type === nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    const fixedBytes = isExtended ? 8 : 4;
    const extentBytes = isExtended ? 16 : 8;
    const count = (length - fixedBytes) / extentBytes;
    if (count < 1 || !Number.isInteger(count) || (isExtended && bytes.readUInt32BE(at + 4) !== count))
      return this.#break('a block status of an impossible size');
    const extents: Extent[] = [];
    let offset = call.offset;
    for (let from = at + fixedBytes; from < at + length; from += extentBytes) {
      const extentLength = isExtended ? readU64(bytes, from) : bytes.readUInt32BE(from);
      const flags = isExtended ? readU64(bytes, from + 8) : bytes.readUInt32BE(from + 4);
      if (extentLength === 0 || !Number.isSafeInteger(offset + extentLength)) return this.#break('an extent of an impossible length');
      extents.push({ offset, length: extentLength, flags });
      offset += extentLength;
    }
    call.extents ??= new Map();
    call.extents.set(bytes.readUInt32BE(at), extents);
    this.#endChunk();
  }

  #skipData(bytes: number): void {
    this.#dataAt += bytes;
    this.#need -= bytes;
    if (this.#need > 0) return;
    if (this.#reply.isSimple && this.#call !== null) {
      this.#call.receivedBytes = this.#call.length;
      this.#endReply();
    } else {
      this.#endChunk();
    }
  }

  #endChunk(): void {
    if ((this.#reply.flags & nbd.NBD_REPLY_FLAG_DONE) !== 0) return this.#endReply();
    this.#call = null;
    this.#expect('header', replyHeaderBytesMin(this.#mode));
  }

  #endReply(): void {
    const call = this.#call;
    this.#call = null;
    this.#expect('header', replyHeaderBytesMin(this.#mode));
    if (call === null) return;
    if (call.errno === 0 && call.type === nbd.NBD_CMD_READ && call.receivedBytes !== call.length)
      return this.#break('a read that was not answered in full');
    if (call.errno === 0 && call.type === nbd.NBD_CMD_BLOCK_STATUS && call.extents === null)
      return this.#break('a block status without extents');
    this.#owner.onDone(this.#reply.cookieHigh, this.#reply.cookieLow);
  }

  #expect(stage: 'header' | 'fixed' | 'data', bytes: number): void {
    this.#stage = stage;
    this.#need = bytes;
  }

  #break(why: string): void {
    this.#stage = 'broken';
    this.#call = null;
    this.#owner.onBroken(why);
  }
}
