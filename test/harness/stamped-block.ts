/**
 * Self-describing blocks: each says which volume, which block and which write it is of, and carries a checksum, so that
 * a block that is lost, old, torn or in the wrong place is told from one that is right.
 *
 * Layout of 4 KiB, little endian: 0 magic, 4 CRC-32 of bytes 8 to the end, 8 volume, 12 block number, 16 sequence number
 * of the write (two words), 24 to the end: the sequence number again and again.
 */
import { crc32 } from 'node:zlib';

export const BLOCK_BYTES = 4096;
const MAGIC = 0x4b4c4254;
const ZEROS: Buffer = Buffer.alloc(BLOCK_BYTES);

/** What a block was found to be: `sequence` 0 for zeros, or why it is nothing that was ever written there. */
export type Found = { readonly sequence: number } | { readonly broken: string };

/** `count` blocks of one write, starting with block `first`. */
export const stampedBlocks = (volume: number, first: number, count: number, sequence: number): Buffer => {
  const bytes = Buffer.allocUnsafe(count * BLOCK_BYTES);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  words.fill(sequence >>> 0);
  for (let index = 0; index < count; index += 1) {
    const at = (index * BLOCK_BYTES) / 4;
    words[at] = MAGIC;
    words[at + 2] = volume;
    words[at + 3] = first + index;
    words[at + 4] = sequence >>> 0;
    words[at + 5] = Math.floor(sequence / 2 ** 32);
    words[at + 1] = crc32(bytes.subarray(index * BLOCK_BYTES + 8, (index + 1) * BLOCK_BYTES));
  }
  return bytes;
};

/** Reads the block at `at`, which should be block `block`. `volumes`: whose blocks may be here (a secondary holds its primary's). */
export const blockAt = (bytes: Buffer, at: number, block: number): Found & { readonly volume?: number } => {
  const one = bytes.subarray(at, at + BLOCK_BYTES);
  if (one.compare(ZEROS) === 0) return { sequence: 0 };
  if (one.readUInt32LE(0) !== MAGIC) return { broken: `no block of ours: ${one.subarray(0, 16).toString('hex')}` };
  const sequence = one.readUInt32LE(16) + one.readUInt32LE(20) * 2 ** 32;
  if (crc32(one.subarray(8)) !== one.readUInt32LE(4))
    return { broken: `a torn block: it begins as write ${sequence}, and its checksum is wrong` };
  if (one.readUInt32LE(12) !== block)
    return { broken: `block ${one.readUInt32LE(12)} of volume ${one.readUInt32LE(8)}, write ${sequence}` };
  return { sequence, volume: one.readUInt32LE(8) };
};
