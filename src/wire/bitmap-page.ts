/**
 * On-disk form of dirty-region bitmaps and intents: a header sector and pages of one sector each.
 *
 * A page is 512 bytes because media write a sector whole or not at all: a page is never half old and half new. What
 * was damaged all the same (its checksum says so) counts as "all of its regions are dirty", never as clean, and so
 * does a page that is missing from a file that should hold it. Layout, little endian:
 *
 *   header  0: magic "TWVB", 4: format version, 8: bits (two words, low first), 16: bytes per bit (two words),
 *           24: owner (pair id or volume number), 508: CRC-32 of bytes 0 to 507
 *   page    0: page number, 4: zero, 8 to 507: 125 words of bits, 508: CRC-32 of bytes 0 to 507
 */
import { crc32 } from 'node:zlib';

export const PAGE_BYTES = 512;
export const PAGE_WORDS = 125;
/** Regions of one page: 4,000. */
export const PAGE_BITS: number = PAGE_WORDS * 32;
const MAGIC = 0x42565754;
const VERSION = 1;
const CRC_AT = 508;

export type BitmapHeader = { readonly bits: number; readonly bytesPerBit: number; readonly owner: number };

export const pagesOf = (bits: number): number => Math.ceil(bits / PAGE_BITS);
export const pageOfBit = (bit: number): number => Math.floor(bit / PAGE_BITS);
/** Where page `page` starts in the file. */
export const pageOffset = (page: number): number => PAGE_BYTES * (1 + page);

export const encodeHeader = (header: BitmapHeader): Buffer => {
  const out = Buffer.alloc(PAGE_BYTES);
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt32LE(VERSION, 4);
  out.writeUInt32LE(header.bits >>> 0, 8);
  out.writeUInt32LE(Math.floor(header.bits / 2 ** 32), 12);
  out.writeUInt32LE(header.bytesPerBit >>> 0, 16);
  out.writeUInt32LE(Math.floor(header.bytesPerBit / 2 ** 32), 20);
  out.writeUInt32LE(header.owner, 24);
  out.writeUInt32LE(crc32(out.subarray(0, CRC_AT)), CRC_AT);
  return out;
};

/** The header, or null when it is not one of ours or is damaged. */
export const decodeHeader = (bytes: Buffer): BitmapHeader | null => {
  if (bytes.length < PAGE_BYTES || bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(4) !== VERSION) return null;
  if (crc32(bytes.subarray(0, CRC_AT)) !== bytes.readUInt32LE(CRC_AT)) return null;
  return {
    bits: bytes.readUInt32LE(8) + bytes.readUInt32LE(12) * 2 ** 32,
    bytesPerBit: bytes.readUInt32LE(16) + bytes.readUInt32LE(20) * 2 ** 32,
    owner: bytes.readUInt32LE(24),
  };
};

/** Writes page `page` of `words` into `out` at `at`. Words past the end of the bitmap are written as zeros. */
export const encodePage = (words: Int32Array, page: number, out: Buffer, at: number): void => {
  out.writeUInt32LE(page, at);
  out.writeUInt32LE(0, at + 4);
  const first = page * PAGE_WORDS;
  for (let index = 0; index < PAGE_WORDS; index += 1) {
    const word = first + index;
    out.writeInt32LE(word < words.length ? Atomics.load(words, word) : 0, at + 8 + index * 4);
  }
  out.writeUInt32LE(crc32(out.subarray(at, at + CRC_AT)), at + CRC_AT);
};

/** Reads page `page` at `at` into `words`. False, and the words untouched, when the page is damaged or another one. */
export const decodePage = (bytes: Buffer, at: number, page: number, words: Int32Array): boolean => {
  if (at + PAGE_BYTES > bytes.length || bytes.readUInt32LE(at) !== page) return false;
  if (crc32(bytes.subarray(at, at + CRC_AT)) !== bytes.readUInt32LE(at + CRC_AT)) return false;
  const first = page * PAGE_WORDS;
  for (let index = 0; index < PAGE_WORDS && first + index < words.length; index += 1) {
    words[first + index] = bytes.readInt32LE(at + 8 + index * 4);
  }
  return true;
};
