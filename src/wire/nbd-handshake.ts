/**
 * The messages of the NBD handshake, both directions (NBD specification, "Fixed newstyle negotiation" and "Values").
 *
 * Encoders build one whole message; decoders take the data part of one whole message and return null when it is not
 * well formed, never throw. Whoever owns the byte stream (the server's or the client's negotiation) does the framing.
 */
import * as nbd from './nbd-constants.ts';

/** Bytes of the server's greeting, of an option's header, of an option reply's header. */
export const GREETING_BYTES = 18;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
/** The reserved zeros after the reply to EXPORT_NAME, unless NO_ZEROES was agreed on. */
export const EXPORT_NAME_ZEROES_BYTES = 124;
export const EXPORT_NAME_REPLY_BYTES = 10;

/** Size constraints of an export in bytes (NBD specification, "Size constraints"). */
export type BlockSizes = {
  readonly minimumBytes: number;
  readonly preferredBytes: number;
  /** The largest payload of one request. */
  readonly maximumBytes: number;
};

/** What holds when a server says nothing about sizes. */
export const BLOCK_SIZES_DEFAULT: BlockSizes = { minimumBytes: 1, preferredBytes: 4096, maximumBytes: 33_554_432 };

/** A metadata context as it was selected: the id stands in every block-status chunk. */
export type MetaContext = { readonly id: number; readonly name: string };

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A protocol string, or null: it must be UTF-8 without NUL, and at most 4096 bytes (specification, "Conventions"). */
export const decodeString = (bytes: Buffer): string | null => {
  if (bytes.length > nbd.NBD_STRING_BYTES_MAX || bytes.includes(0)) return null;
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
};

/** A text for people, cut to what the protocol carries without breaking a character. */
export const encodeMessage = (text: string, bytesMax: number = nbd.NBD_STRING_BYTES_MAX): Buffer => {
  const bytes = Buffer.from(text.replaceAll('\0', ' '), 'utf8');
  if (bytes.length <= bytesMax) return bytes;
  let end = bytesMax;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
};

const putU64 = (into: Buffer, value: number, at: number): void => {
  into.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at);
  into.writeUInt32BE(value % 0x1_0000_0000, at + 4);
};

/** An unsigned 64-bit number as a double; Infinity when it is 2^53 or more and so would lose bits. */
export const readU64 = (from: Buffer, at: number): number => {
  const high = from.readUInt32BE(at);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + from.readUInt32BE(at + 4) : Number.POSITIVE_INFINITY;
};

// The server's messages.

export const encodeGreeting = (handshakeFlags: number): Buffer => {
  const bytes = Buffer.alloc(GREETING_BYTES);
  bytes.writeUInt32BE(nbd.NBD_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(nbd.NBD_MAGIC_LOW, 4);
  bytes.writeUInt32BE(nbd.NBD_OPTION_MAGIC_HIGH, 8);
  bytes.writeUInt32BE(nbd.NBD_OPTION_MAGIC_LOW, 12);
  bytes.writeUInt16BE(handshakeFlags, 16);
  return bytes;
};

export const encodeOptionReply = (option: number, type: number, data: Buffer | null = null): Buffer => {
  const bytes = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + (data?.length ?? 0));
  bytes.writeUInt32BE(nbd.NBD_OPTION_REPLY_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(nbd.NBD_OPTION_REPLY_MAGIC_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data?.length ?? 0, 16);
  data?.copy(bytes, OPTION_REPLY_HEADER_BYTES);
  return bytes;
};

/** The end of the handshake with EXPORT_NAME. */
export const encodeExportNameReply = (sizeBytes: number, transmissionFlags: number, noZeroes: boolean): Buffer => {
  const bytes = Buffer.alloc(EXPORT_NAME_REPLY_BYTES + (noZeroes ? 0 : EXPORT_NAME_ZEROES_BYTES));
  putU64(bytes, sizeBytes, 0);
  bytes.writeUInt16BE(transmissionFlags, 8);
  return bytes;
};

/** One export of a LIST reply: the name, and a description for people. */
export const encodeServerEntry = (name: string, description: string): Buffer => {
  const nameBytes = encodeMessage(name);
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(nameBytes.length, 0);
  return Buffer.concat([bytes, nameBytes, encodeMessage(description)]);
};

export const encodeInfoExport = (sizeBytes: number, transmissionFlags: number): Buffer => {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(nbd.NBD_INFO_EXPORT, 0);
  putU64(bytes, sizeBytes, 2);
  bytes.writeUInt16BE(transmissionFlags, 10);
  return bytes;
};

/** INFO_NAME or INFO_DESCRIPTION. */
export const encodeInfoText = (type: number, text: string): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(type, 0);
  return Buffer.concat([bytes, encodeMessage(text)]);
};

export const encodeInfoBlockSize = (sizes: BlockSizes): Buffer => {
  const bytes = Buffer.alloc(14);
  bytes.writeUInt16BE(nbd.NBD_INFO_BLOCK_SIZE, 0);
  bytes.writeUInt32BE(sizes.minimumBytes, 2);
  bytes.writeUInt32BE(sizes.preferredBytes, 6);
  bytes.writeUInt32BE(sizes.maximumBytes, 10);
  return bytes;
};

export const encodeMetaContext = (id: number, name: string): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(id, 0);
  return Buffer.concat([bytes, encodeMessage(name)]);
};

// The client's messages, decoded by the server.

/** Data of INFO and GO. */
export type InfoRequest = { readonly name: Buffer; readonly wanted: ReadonlySet<number> };

export const decodeInfoRequest = (data: Buffer): InfoRequest | null => {
  if (data.length < 6) return null;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 6) return null;
  const count = data.readUInt16BE(4 + nameBytes);
  if (data.length !== 6 + nameBytes + count * 2) return null;
  const wanted = new Set<number>();
  for (let index = 0; index < count; index += 1) wanted.add(data.readUInt16BE(6 + nameBytes + index * 2));
  return { name: data.subarray(4, 4 + nameBytes), wanted };
};

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export type MetaContextRequest = { readonly name: Buffer; readonly queries: readonly string[] };

/** @returns null when a length leads beyond the data, bytes are left over, or a query is no protocol string. */
export const decodeMetaContextRequest = (data: Buffer): MetaContextRequest | null => {
  if (data.length < 8) return null;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 8) return null;
  const count = data.readUInt32BE(4 + nameBytes);
  const queries: string[] = [];
  let at = 8 + nameBytes;
  for (let index = 0; index < count; index += 1) {
    if (data.length - at < 4) return null;
    const queryBytes = data.readUInt32BE(at);
    at += 4;
    if (queryBytes > data.length - at) return null;
    const query = decodeString(data.subarray(at, at + queryBytes));
    if (query === null) return null;
    queries.push(query);
    at += queryBytes;
  }
  return at === data.length ? { name: data.subarray(4, 4 + nameBytes), queries } : null;
};

// The client's messages, as the client builds them.

export const encodeClientFlags = (flags: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(flags, 0);
  return bytes;
};

export const encodeOption = (option: number, data: Buffer | null = null): Buffer => {
  const bytes = Buffer.alloc(OPTION_HEADER_BYTES + (data?.length ?? 0));
  bytes.writeUInt32BE(nbd.NBD_OPTION_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(nbd.NBD_OPTION_MAGIC_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data?.length ?? 0, 12);
  data?.copy(bytes, OPTION_HEADER_BYTES);
  return bytes;
};

export const encodeInfoRequest = (name: string, wanted: readonly number[]): Buffer => {
  const nameBytes = Buffer.from(name, 'utf8');
  const bytes = Buffer.alloc(6 + nameBytes.length + wanted.length * 2);
  bytes.writeUInt32BE(nameBytes.length, 0);
  nameBytes.copy(bytes, 4);
  bytes.writeUInt16BE(wanted.length, 4 + nameBytes.length);
  wanted.forEach((type, index) => bytes.writeUInt16BE(type, 6 + nameBytes.length + index * 2));
  return bytes;
};

export const encodeMetaContextRequest = (name: string, queries: readonly string[]): Buffer => {
  const parts: Buffer[] = [];
  const putText = (text: string): void => {
    const textBytes = Buffer.from(text, 'utf8');
    parts.push(encodeClientFlags(textBytes.length), textBytes);
  };
  putText(name);
  parts.push(encodeClientFlags(queries.length));
  queries.forEach(putText);
  return Buffer.concat(parts);
};

// The server's replies, as the client reads them.

export type OptionReplyHeader = { readonly option: number; readonly type: number; readonly dataBytes: number };

/** @param header exactly OPTION_REPLY_HEADER_BYTES; null when the magic is wrong. */
export const decodeOptionReplyHeader = (header: Buffer): OptionReplyHeader | null => {
  if (header.readUInt32BE(0) !== nbd.NBD_OPTION_REPLY_MAGIC_HIGH || header.readUInt32BE(4) !== nbd.NBD_OPTION_REPLY_MAGIC_LOW) return null;
  return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), dataBytes: header.readUInt32BE(16) };
};

export const decodeServerEntry = (data: Buffer): { readonly name: string; readonly description: string } | null => {
  if (data.length < 4) return null;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 4) return null;
  const name = decodeString(data.subarray(4, 4 + nameBytes));
  const description = decodeString(data.subarray(4 + nameBytes));
  return name === null || description === null ? null : { name, description };
};

/** What one REP_INFO says; `ignored` for a type that is not known, as the specification asks. */
export type InfoReply =
  | { readonly kind: 'export'; readonly sizeBytes: number; readonly transmissionFlags: number }
  | { readonly kind: 'name' | 'description'; readonly text: string }
  | { readonly kind: 'block-size'; readonly sizes: BlockSizes }
  | { readonly kind: 'ignored' };

export const decodeInfoReply = (data: Buffer): InfoReply | null => {
  if (data.length < 2) return null;
  const type = data.readUInt16BE(0);
  switch (type) {
    case nbd.NBD_INFO_EXPORT:
      return data.length === 12 ? { kind: 'export', sizeBytes: readU64(data, 2), transmissionFlags: data.readUInt16BE(10) } : null;
    case nbd.NBD_INFO_NAME:
    case nbd.NBD_INFO_DESCRIPTION: {
      const text = decodeString(data.subarray(2));
      return text === null ? null : { kind: type === nbd.NBD_INFO_NAME ? 'name' : 'description', text };
    }
    case nbd.NBD_INFO_BLOCK_SIZE:
      if (data.length !== 14) return null;
      return {
        kind: 'block-size',
        sizes: { minimumBytes: data.readUInt32BE(2), preferredBytes: data.readUInt32BE(6), maximumBytes: data.readUInt32BE(10) },
      };
    default:
      return { kind: 'ignored' };
  }
};

export const decodeMetaContext = (data: Buffer): MetaContext | null => {
  if (data.length < 4) return null;
  const name = decodeString(data.subarray(4));
  return name === null ? null : { id: data.readUInt32BE(0), name };
};
