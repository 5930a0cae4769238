/**
 * The transmission phase of NBD on the client's side: requests into a buffer, reply headers out of one (NBD
 * specification, "Transmission"; extended headers). The counterpart of nbd-transmission.ts, as free of allocation.
 *
 * A cookie is two signed 32-bit halves, which the server gives back bit by bit.
 */
import * as nbd from './nbd-constants.ts';
import { REPLY_EXTENDED, REPLY_SIMPLE, type ReplyMode, requestHeaderBytes } from './nbd-transmission.ts';

/** The header of one reply or of one chunk of it; filled again and again. */
export class NbdReply {
  /** A whole reply without chunks. Its data, of a READ without error, follows it and has no length of its own. */
  isSimple = false;
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** Of a simple reply. */
  errno = 0;
  /** Bytes that follow the header of a chunk; Infinity when 2^53 or more. */
  payloadBytes = 0;
}

const readI32 = (from: Buffer, at: number): number =>
  ((from[at] as number) << 24) | ((from[at + 1] as number) << 16) | ((from[at + 2] as number) << 8) | (from[at + 3] as number);

const readU32 = (from: Buffer, at: number): number => readI32(from, at) >>> 0;

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
 * Writes a request's header. `lengthBytes` is below 2^32 unless headers are extended; the payload of a WRITE follows.
 * @returns the position behind it
 */
export const writeRequest = (
  into: Buffer,
  at: number,
  mode: ReplyMode,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  lengthBytes: number,
): number => {
  const isExtended = mode === REPLY_EXTENDED;
  const sent = isExtended && type === nbd.NBD_CMD_WRITE ? flags | nbd.NBD_CMD_FLAG_PAYLOAD_LEN : flags;
  writeU32(into, isExtended ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC, at);
  writeU32(into, sent * 0x1_0000 + type, at + 4);
  writeU32(into, cookieHigh, at + 8);
  writeU32(into, cookieLow, at + 12);
  writeDouble64(into, offset, at + 16);
  if (isExtended) writeDouble64(into, lengthBytes, at + 24);
  else writeU32(into, lengthBytes, at + 24);
  return at + requestHeaderBytes(mode);
};

/** Bytes that have to be there before `parseReply` can say more. */
export const replyHeaderBytesMin = (mode: ReplyMode): number =>
  mode === REPLY_EXTENDED ? nbd.NBD_EXTENDED_REPLY_BYTES : nbd.NBD_SIMPLE_REPLY_BYTES;

/**
 * Reads the header at `at`, of which `available` bytes are there, at least `replyHeaderBytesMin(mode)`.
 * @returns its size; the negative size when more bytes than `available` are needed; 0 when it has no business here
 */
export const parseReply = (from: Buffer, at: number, available: number, mode: ReplyMode, into: NbdReply): number => {
  const magic = readU32(from, at);
  into.cookieHigh = readI32(from, at + 8);
  into.cookieLow = readI32(from, at + 12);
  if (mode !== REPLY_EXTENDED && magic === nbd.NBD_SIMPLE_REPLY_MAGIC) {
    into.isSimple = true;
    into.errno = readU32(from, at + 4);
    into.payloadBytes = 0;
    return nbd.NBD_SIMPLE_REPLY_BYTES;
  }
  into.isSimple = false;
  into.errno = 0;
  into.flags = ((from[at + 4] as number) << 8) | (from[at + 5] as number);
  into.type = ((from[at + 6] as number) << 8) | (from[at + 7] as number);
  if (mode === REPLY_EXTENDED) {
    if (magic !== nbd.NBD_EXTENDED_REPLY_MAGIC) return 0;
    const high = readU32(from, at + 24);
    into.payloadBytes = high < 0x20_0000 ? high * 0x1_0000_0000 + readU32(from, at + 28) : Number.POSITIVE_INFINITY;
    return nbd.NBD_EXTENDED_REPLY_BYTES;
  }
  if (mode === REPLY_SIMPLE || magic !== nbd.NBD_STRUCTURED_REPLY_MAGIC) return 0;
  if (available < nbd.NBD_STRUCTURED_REPLY_BYTES) return -nbd.NBD_STRUCTURED_REPLY_BYTES;
  into.payloadBytes = readU32(from, at + 16);
  return nbd.NBD_STRUCTURED_REPLY_BYTES;
};
