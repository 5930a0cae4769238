/**
 * The transmission phase of NBD on the server's side: requests out of a buffer, replies into a buffer (NBD
 * specification, "Transmission", and its extended-headers extension).
 *
 * Made for a loop that handles several hundred thousand requests a second: nothing is allocated, the request is a
 * mutable struct that its owner reuses, a cookie is two signed 32-bit halves (small integers for the engine) that are
 * sent back bit by bit. A 64-bit number of 2^53 or more becomes Infinity, so that every bounds check refuses it.
 */
import type { NbdErrno } from '../core/faults.ts';
import { encodeMessage } from './nbd-handshake.ts';
import * as nbd from './nbd-constants.ts';

/** How requests and replies look on a connection; settled by the handshake. */
export const REPLY_SIMPLE = 0;
export const REPLY_STRUCTURED = 1;
export const REPLY_EXTENDED = 2;
export type ReplyMode = typeof REPLY_SIMPLE | typeof REPLY_STRUCTURED | typeof REPLY_EXTENDED;

export const replyModeOf = (start: { readonly structuredReplies: boolean; readonly extendedHeaders: boolean }): ReplyMode => {
  if (start.extendedHeaders) return REPLY_EXTENDED;
  return start.structuredReplies ? REPLY_STRUCTURED : REPLY_SIMPLE;
};

/** Bytes of a request's header in that mode. */
export const requestHeaderBytes = (mode: ReplyMode): number =>
  mode === REPLY_EXTENDED ? nbd.NBD_EXTENDED_REQUEST_BYTES : nbd.NBD_REQUEST_BYTES;

/** The largest reply header before data: an extended chunk header with the offset of its data. */
export const REPLY_HEADER_BYTES_MAX = 40;
/** Room that an error reply may need: the largest header, errno, message length, the message, an offset. */
export const ERROR_MESSAGE_BYTES_MAX = 512;
export const ERROR_REPLY_BYTES_MAX: number = nbd.NBD_EXTENDED_REPLY_BYTES + 6 + ERROR_MESSAGE_BYTES_MAX + 8;

/** One request. Its owner keeps one and has it filled again and again. */
export class NbdRequest {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** Bytes; Infinity when 2^53 or more: its halves are in `farHigh` and `farLow` then, for the reply, which repeats it. */
  offset = 0;
  farHigh = 0;
  farLow = 0;
  /** Bytes that the command is about: of the payload for a WRITE, else of the export. Infinity when 2^53 or more. */
  length = 0;
  /** Bytes that follow the header. More than the connection's limit: the connection cannot go on. */
  payloadBytes = 0;

  /** The same request, for a reply that comes when this one has been filled again. */
  copy(): NbdRequest {
    const copy = new NbdRequest();
    copy.flags = this.flags;
    copy.type = this.type;
    copy.cookieHigh = this.cookieHigh;
    copy.cookieLow = this.cookieLow;
    copy.offset = this.offset;
    copy.farHigh = this.farHigh;
    copy.farLow = this.farLow;
    copy.length = this.length;
    copy.payloadBytes = this.payloadBytes;
    return copy;
  }
}

const readU32 = (from: Buffer, at: number): number =>
  (((from[at] as number) << 24) | ((from[at + 1] as number) << 16) | ((from[at + 2] as number) << 8) | (from[at + 3] as number)) >>> 0;

const readI32 = (from: Buffer, at: number): number =>
  ((from[at] as number) << 24) | ((from[at + 1] as number) << 16) | ((from[at + 2] as number) << 8) | (from[at + 3] as number);

const readDouble64 = (from: Buffer, at: number): number => {
  const high = readU32(from, at);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + readU32(from, at + 4) : Number.POSITIVE_INFINITY;
};

const writeU16 = (into: Buffer, value: number, at: number): void => {
  into[at] = value >>> 8;
  into[at + 1] = value;
};

const writeU32 = (into: Buffer, value: number, at: number): void => {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
};

const writeDouble64 = (into: Buffer, value: number, at: number): void => {
  const high = Math.floor(value / 0x1_0000_0000);
  writeU32(into, high, at);
  writeU32(into, value - high * 0x1_0000_0000, at + 4);
};

/**
 * Reads the request header at `at`; the caller made sure that `requestHeaderBytes(mode)` bytes are there.
 * @returns false when the magic is wrong: the stream cannot be followed any more
 */
export const parseRequest = (from: Buffer, at: number, mode: ReplyMode, into: NbdRequest): boolean => {
  const magic = readU32(from, at);
  into.flags = ((from[at + 4] as number) << 8) | (from[at + 5] as number);
  into.type = ((from[at + 6] as number) << 8) | (from[at + 7] as number);
  into.cookieHigh = readI32(from, at + 8);
  into.cookieLow = readI32(from, at + 12);
  into.offset = readDouble64(from, at + 16);
  if (into.offset === Number.POSITIVE_INFINITY) {
    into.farHigh = readI32(from, at + 16);
    into.farLow = readI32(from, at + 20);
  }
  if (mode === REPLY_EXTENDED) {
    into.length = readDouble64(from, at + 24);
    into.payloadBytes = (into.flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) === 0 ? 0 : into.length;
    return magic === nbd.NBD_EXTENDED_REQUEST_MAGIC;
  }
  into.length = readU32(from, at + 24);
  into.payloadBytes = into.type === nbd.NBD_CMD_WRITE ? into.length : 0;
  return magic === nbd.NBD_REQUEST_MAGIC;
};

/** What a connection's requests are held against; made once, at the end of the handshake. */
export type RequestRules = {
  readonly sizeBytes: number;
  /** As they were sent to the client. */
  readonly transmissionFlags: number;
  readonly mode: ReplyMode;
  readonly metaContextCount: number;
  readonly minimumBytes: number;
  readonly payloadBytesMax: number;
};

/** Command flags that a command may carry, given what was advertised (specification, "Command flags"). */
const allowedFlags = (type: number, rules: RequestRules): number => {
  const advertised = rules.transmissionFlags;
  // FUA is valid with every command once it was offered; where nothing is written it means nothing.
  let allowed = (advertised & nbd.NBD_FLAG_SEND_FUA) === 0 ? 0 : nbd.NBD_CMD_FLAG_FUA;
  switch (type) {
    case nbd.NBD_CMD_READ:
      if ((advertised & nbd.NBD_FLAG_SEND_DF) !== 0) allowed |= nbd.NBD_CMD_FLAG_DF;
      return allowed;
    case nbd.NBD_CMD_WRITE:
      return rules.mode === REPLY_EXTENDED ? allowed | nbd.NBD_CMD_FLAG_PAYLOAD_LEN : allowed;
    case nbd.NBD_CMD_WRITE_ZEROES:
      if ((advertised & nbd.NBD_FLAG_SEND_FAST_ZERO) !== 0) allowed |= nbd.NBD_CMD_FLAG_FAST_ZERO;
      return allowed | nbd.NBD_CMD_FLAG_NO_HOLE;
    case nbd.NBD_CMD_BLOCK_STATUS:
      return allowed | nbd.NBD_CMD_FLAG_REQ_ONE;
    default:
      return allowed;
  }
};

/** The command is known and was offered. */
const isOffered = (type: number, rules: RequestRules): boolean => {
  const advertised = rules.transmissionFlags;
  switch (type) {
    case nbd.NBD_CMD_READ:
    case nbd.NBD_CMD_WRITE:
      return true;
    case nbd.NBD_CMD_FLUSH:
      return (advertised & nbd.NBD_FLAG_SEND_FLUSH) !== 0;
    case nbd.NBD_CMD_TRIM:
      return (advertised & nbd.NBD_FLAG_SEND_TRIM) !== 0;
    case nbd.NBD_CMD_CACHE:
      return (advertised & nbd.NBD_FLAG_SEND_CACHE) !== 0;
    case nbd.NBD_CMD_WRITE_ZEROES:
      return (advertised & nbd.NBD_FLAG_SEND_WRITE_ZEROES) !== 0;
    case nbd.NBD_CMD_BLOCK_STATUS:
      return rules.metaContextCount > 0;
    default:
      return false;
  }
};

const isWriting = (type: number): boolean => type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES || type === nbd.NBD_CMD_TRIM;

/**
 * Everything that can be wrong with a request, before any effect (specification, "Request types", "Error values").
 * DISC has no reply and is the caller's business; so is a payload beyond the limit.
 * @returns 0, or the error for the reply
 */
export const validateRequest = (request: NbdRequest, rules: RequestRules): 0 | NbdErrno => {
  const { type, flags, offset, length } = request;
  // First, because a read-only export does not offer what writes, and this is the better answer.
  if (isWriting(type) && (rules.transmissionFlags & nbd.NBD_FLAG_READ_ONLY) !== 0) return nbd.NBD_EPERM;
  if (!isOffered(type, rules)) return nbd.NBD_EINVAL;
  if ((flags & ~allowedFlags(type, rules)) !== 0) return nbd.NBD_EINVAL;
  if (type === nbd.NBD_CMD_FLUSH) return offset === 0 && length === 0 ? 0 : nbd.NBD_EINVAL;
  // The specification leaves a length of zero open; refusing it keeps every later loop free of an odd case.
  if (length === 0) return nbd.NBD_EINVAL;
  // Both are below 2^53 or Infinity, so the sum is exact enough to compare.
  if (offset + length > rules.sizeBytes) {
    return type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES ? nbd.NBD_ENOSPC : nbd.NBD_EINVAL;
  }
  if (rules.minimumBytes > 1 && (offset % rules.minimumBytes !== 0 || length % rules.minimumBytes !== 0)) return nbd.NBD_EINVAL;
  if (type === nbd.NBD_CMD_READ && length > rules.payloadBytesMax) return rules.mode === REPLY_SIMPLE ? nbd.NBD_EINVAL : nbd.NBD_EOVERFLOW;
  // With extended headers a WRITE has to say that it brings its payload.
  if (type === nbd.NBD_CMD_WRITE && request.payloadBytes !== length) return nbd.NBD_EINVAL;
  return 0;
};

// Replies. Every writer returns the position behind what it wrote; the caller made sure of the room.

const writeSimple = (into: Buffer, at: number, errno: number, request: NbdRequest): number => {
  writeU32(into, nbd.NBD_SIMPLE_REPLY_MAGIC, at);
  writeU32(into, errno, at + 4);
  writeU32(into, request.cookieHigh, at + 8);
  writeU32(into, request.cookieLow, at + 12);
  return at + nbd.NBD_SIMPLE_REPLY_BYTES;
};

/** The header of one chunk, structured or extended. `payloadBytes` is what follows it. */
export const writeChunkHeader = (
  into: Buffer,
  at: number,
  mode: ReplyMode,
  request: NbdRequest,
  flags: number,
  type: number,
  payloadBytes: number,
): number => {
  writeU16(into, flags, at + 4);
  writeU16(into, type, at + 6);
  writeU32(into, request.cookieHigh, at + 8);
  writeU32(into, request.cookieLow, at + 12);
  if (mode === REPLY_EXTENDED) {
    writeU32(into, nbd.NBD_EXTENDED_REPLY_MAGIC, at);
    if (request.offset === Number.POSITIVE_INFINITY) {
      writeU32(into, request.farHigh, at + 16);
      writeU32(into, request.farLow, at + 20);
    } else writeDouble64(into, request.offset, at + 16);
    writeDouble64(into, payloadBytes, at + 24);
    return at + nbd.NBD_EXTENDED_REPLY_BYTES;
  }
  writeU32(into, nbd.NBD_STRUCTURED_REPLY_MAGIC, at);
  writeU32(into, payloadBytes, at + 16);
  return at + nbd.NBD_STRUCTURED_REPLY_BYTES;
};

/** Success without data: of every command but READ and BLOCK_STATUS. */
export const writeDone = (into: Buffer, at: number, mode: ReplyMode, request: NbdRequest): number =>
  mode === REPLY_EXTENDED
    ? writeChunkHeader(into, at, mode, request, nbd.NBD_REPLY_FLAG_DONE, nbd.NBD_REPLY_TYPE_NONE, 0)
    : writeSimple(into, at, 0, request);

/** The end of a structured or extended reply whose other chunks were sent. */
export const writeNone = (into: Buffer, at: number, mode: ReplyMode, request: NbdRequest): number =>
  writeChunkHeader(into, at, mode, request, nbd.NBD_REPLY_FLAG_DONE, nbd.NBD_REPLY_TYPE_NONE, 0);

/** What goes before the `length` bytes of a READ that is answered in one piece, in any mode: 16, 28 or 40 bytes. */
export const writeReadHeader = (into: Buffer, at: number, mode: ReplyMode, request: NbdRequest): number =>
  mode === REPLY_SIMPLE
    ? writeSimple(into, at, 0, request)
    : writeOffsetData(into, at, mode, request, nbd.NBD_REPLY_FLAG_DONE, request.offset, request.length);

/** Bytes of what `writeReadHeader` writes. */
export const readHeaderBytes = (mode: ReplyMode): number => {
  if (mode === REPLY_SIMPLE) return nbd.NBD_SIMPLE_REPLY_BYTES;
  return (mode === REPLY_EXTENDED ? nbd.NBD_EXTENDED_REPLY_BYTES : nbd.NBD_STRUCTURED_REPLY_BYTES) + 8;
};

/** A chunk of data; `dataBytes` bytes follow. `dataOffset` counts from the start of the export. */
export const writeOffsetData = (
  into: Buffer,
  at: number,
  mode: ReplyMode,
  request: NbdRequest,
  flags: number,
  dataOffset: number,
  dataBytes: number,
): number => {
  const payload = writeChunkHeader(into, at, mode, request, flags, nbd.NBD_REPLY_TYPE_OFFSET_DATA, dataBytes + 8);
  writeDouble64(into, dataOffset, payload);
  return payload + 8;
};

/** A chunk that stands for `holeBytes` zeros (below 2^32, not 0). */
export const writeOffsetHole = (
  into: Buffer,
  at: number,
  mode: ReplyMode,
  request: NbdRequest,
  flags: number,
  holeOffset: number,
  holeBytes: number,
): number => {
  const payload = writeChunkHeader(into, at, mode, request, flags, nbd.NBD_REPLY_TYPE_OFFSET_HOLE, 12);
  writeDouble64(into, holeOffset, payload);
  writeU32(into, holeBytes, payload + 8);
  return payload + 12;
};

/** The error of a whole request, with a message for people where the mode has room for one. Needs ERROR_REPLY_BYTES_MAX. */
export const writeError = (into: Buffer, at: number, mode: ReplyMode, request: NbdRequest, errno: number, message = ''): number => {
  if (mode === REPLY_SIMPLE) return writeSimple(into, at, errno, request);
  const text = encodeMessage(message, ERROR_MESSAGE_BYTES_MAX);
  const payload = writeChunkHeader(into, at, mode, request, nbd.NBD_REPLY_FLAG_DONE, nbd.NBD_REPLY_TYPE_ERROR, 6 + text.length);
  writeU32(into, errno, payload);
  writeU16(into, text.length, payload + 4);
  into.set(text, payload + 6);
  return payload + 6 + text.length;
};

/** An error at one place of the export. Structured or extended only. Needs ERROR_REPLY_BYTES_MAX. */
export const writeErrorOffset = (
  into: Buffer,
  at: number,
  mode: ReplyMode,
  request: NbdRequest,
  flags: number,
  errno: number,
  errorOffset: number,
  message = '',
): number => {
  const text = encodeMessage(message, ERROR_MESSAGE_BYTES_MAX);
  const payload = writeChunkHeader(into, at, mode, request, flags, nbd.NBD_REPLY_TYPE_ERROR_OFFSET, 14 + text.length);
  writeU32(into, errno, payload);
  writeU16(into, text.length, payload + 4);
  into.set(text, payload + 6);
  writeDouble64(into, errorOffset, payload + 6 + text.length);
  return payload + 14 + text.length;
};
