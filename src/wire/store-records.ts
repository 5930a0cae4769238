/**
 * The store's own records on disk: the superblock's copies and the journal's frames. Bytes in, values out; no files.
 *
 * Superblock copy, 512 bytes, little endian. The first 16 and the checksum are the same in every format version, so
 * that an older program can tell a newer store from a damaged one:
 *
 *     0  magic "TWINVOL\n"         8   32  generation of the journal    8
 *     8  format version            4   40  sequence of this copy        8
 *    12  reserved, zero            4   48  region size in bytes         8
 *    16  uuid                     16   56  physical volume size, bytes  8   ... zeros ...  508  CRC-32 of 0 to 507
 *
 * Journal frame: a header of 32 bytes and a payload of JSON in UTF-8. The magic has bytes that UTF-8 never has, so a
 * payload cannot contain it.
 *
 *     0  magic F7 'T' 'V' 'J'      4   16  generation of the journal    8
 *     4  payload length in bytes   4   24  reserved, zero               4
 *     8  sequence                  8   28  CRC-32 of 0 to 27 and the payload
 *
 * 64-bit numbers stay below 2^53. A file is written by one version only; the reader of another knows it by the superblock.
 */
import { crc32 } from 'node:zlib';

export const SUPERBLOCK_BYTES: number = 512;
export const FRAME_HEADER_BYTES: number = 32;
/** Far above any real table (a million runs take about 40 MB), and below what one string can hold. */
export const PAYLOAD_BYTES_MAX: number = 256 * 1024 * 1024;

const MAGIC_TEXT = 'TWINVOL\n';
const CHECKSUM_OFFSET = SUPERBLOCK_BYTES - 4;
const FRAME_MAGIC = Buffer.of(0xf7, 0x54, 0x56, 0x4a);

export type Superblock = {
  readonly formatVersion: number;
  readonly uuid: string;
  /** Number of the journal file that is valid. */
  readonly generation: number;
  /** Rises with each write of a copy; the valid copy with the highest one counts. */
  readonly sequence: number;
  readonly regionBytes: number;
  readonly pvBytes: number;
};

/** `empty`: nothing but zeros, or no bytes: never written. `newer`: sound, of a version above `versionMax`. */
export type SuperblockRead =
  | { readonly kind: 'ok'; readonly superblock: Superblock }
  | { readonly kind: 'newer'; readonly formatVersion: number }
  | { readonly kind: 'empty' | 'damaged' | 'foreign' };

const uuidBytes = (uuid: string): Buffer => {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  if (bytes.length !== 16) throw new Error(`${uuid} is no uuid`);
  return bytes;
};

const uuidText = (bytes: Buffer): string => bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export const encodeSuperblock = (superblock: Superblock): Buffer => {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  bytes.write(MAGIC_TEXT, 0, 'latin1');
  bytes.writeUInt32LE(superblock.formatVersion, 8);
  uuidBytes(superblock.uuid).copy(bytes, 16);
  bytes.writeBigUInt64LE(BigInt(superblock.generation), 32);
  bytes.writeBigUInt64LE(BigInt(superblock.sequence), 40);
  bytes.writeBigUInt64LE(BigInt(superblock.regionBytes), 48);
  bytes.writeBigUInt64LE(BigInt(superblock.pvBytes), 56);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CHECKSUM_OFFSET)), CHECKSUM_OFFSET);
  return bytes;
};

/**
 * @param input one copy, SUPERBLOCK_BYTES or fewer (a short file)
 * @param versionMax the newest format version that the caller understands
 */
export const decodeSuperblock = (input: Uint8Array, versionMax: number): SuperblockRead => {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  if (bytes.every((byte) => byte === 0)) return { kind: 'empty' };
  const magic = bytes.toString('latin1', 0, MAGIC_TEXT.length);
  if (bytes.length < SUPERBLOCK_BYTES) return { kind: MAGIC_TEXT.startsWith(magic) ? 'damaged' : 'foreign' };
  const isSound = crc32(bytes.subarray(0, CHECKSUM_OFFSET)) === bytes.readUInt32LE(CHECKSUM_OFFSET);
  if (magic !== MAGIC_TEXT) return { kind: 'foreign' };
  if (!isSound) return { kind: 'damaged' };
  const formatVersion = bytes.readUInt32LE(8);
  if (formatVersion > versionMax) return { kind: 'newer', formatVersion };
  return {
    kind: 'ok',
    superblock: {
      formatVersion,
      uuid: uuidText(bytes.subarray(16, 32)),
      generation: Number(bytes.readBigUInt64LE(32)),
      sequence: Number(bytes.readBigUInt64LE(40)),
      regionBytes: Number(bytes.readBigUInt64LE(48)),
      pvBytes: Number(bytes.readBigUInt64LE(56)),
    },
  };
};

export type Frame = {
  readonly sequence: number;
  readonly generation: number;
  readonly payload: Buffer;
  /** Header and payload. */
  readonly byteLength: number;
};

export const encodeFrame = (sequence: number, generation: number, payload: Buffer): Buffer => {
  if (payload.length > PAYLOAD_BYTES_MAX) throw new Error(`a record of ${payload.length} bytes`);
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  FRAME_MAGIC.copy(frame, 0);
  frame.writeUInt32LE(payload.length, 4);
  frame.writeBigUInt64LE(BigInt(sequence), 8);
  frame.writeBigUInt64LE(BigInt(generation), 16);
  payload.copy(frame, FRAME_HEADER_BYTES);
  frame.writeUInt32LE(crc32(payload, crc32(frame.subarray(0, 28))), 28);
  return frame;
};

/** The frame that begins at `offset`, or null when there is no whole and sound one. */
export const decodeFrame = (bytes: Buffer, offset: number): Frame | null => {
  if (offset + FRAME_HEADER_BYTES > bytes.length || bytes.compare(FRAME_MAGIC, 0, 4, offset, offset + 4) !== 0) return null;
  const length = bytes.readUInt32LE(offset + 4);
  const byteLength = FRAME_HEADER_BYTES + length;
  if (length > PAYLOAD_BYTES_MAX || offset + byteLength > bytes.length) return null;
  const payload = bytes.subarray(offset + FRAME_HEADER_BYTES, offset + byteLength);
  if (crc32(payload, crc32(bytes.subarray(offset, offset + 28))) !== bytes.readUInt32LE(offset + 28)) return null;
  return {
    sequence: Number(bytes.readBigUInt64LE(offset + 8)),
    generation: Number(bytes.readBigUInt64LE(offset + 16)),
    payload,
    byteLength,
  };
};

/** Offset of the next sound frame at or behind `offset`, or -1. */
export const findFrame = (bytes: Buffer, offset: number): number => {
  for (let at = bytes.indexOf(FRAME_MAGIC, offset); at >= 0; at = bytes.indexOf(FRAME_MAGIC, at + 1)) {
    if (decodeFrame(bytes, at) !== null) return at;
  }
  return -1;
};
