/**
 * What a verifying run knows about every block it wrote, and the self-describing blocks themselves.
 *
 * Each sector of 512 bytes says which run wrote it, for which offset, with which sequence number, and carries a checksum
 * of all that. So a block that is read shows by itself whether it is torn (sectors of two writes), stale (an older write
 * than one that was acknowledged), of another place, or damaged; and no second copy of the data is kept.
 *
 *     0  magic "TVBENCH1"   8    16  offset of the sector, bytes  8    28  CRC-32 of all but itself  4
 *     8  run                8    24  sequence of the write        4    32  filler
 *
 * Invariants: a block has one request in flight at most (`claim`), so what it must hold is always known exactly, or known
 * to be unknown (after a write that failed: either content is right). The numbers of one run only rise.
 */
import { crc32 } from 'node:zlib';
import { TwinvolError } from '../core/faults.ts';
import { formatSize, SECTOR_BYTES } from '../core/units.ts';

export type MismatchKind = 'foreign' | 'misplaced' | 'stale' | 'torn' | 'damaged';
export type Mismatch = {
  /** Bytes from the start of the export. */
  readonly offset: number;
  readonly kind: MismatchKind;
  /** Sequence of the write that was acknowledged last, and the one that was found; null where there is none. */
  readonly expectedSequence: number;
  readonly foundSequence: number | null;
  /** For `misplaced`: the offset that the sector was written for. */
  readonly foundOffset: number | null;
};

/** Mismatches that are kept with their details; all are counted. */
const DETAILS_MAX = 16;
/** Four bytes and a bit are kept for each block. */
const BLOCKS_MAX = 2 ** 26;
const SEQUENCE_MAX = 2 ** 32 - 2;
/** Nothing of ours was written. */
const UNWRITTEN = 0;
/** A write failed: the old content and the new are both right. */
const UNKNOWN = 2 ** 32 - 1;
const MAGIC = Buffer.from('TVBENCH1', 'latin1');
const CRC_AT = 28;
const FILLER_AT = 32;

export class BlockLedger {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly #offset: number;
  readonly #run: number;
  readonly #expected: Uint32Array;
  readonly #busy: Uint8Array;
  readonly #details: Mismatch[] = [];
  #lastSequence = 0;
  #mismatches = 0;
  #checked = 0;

  /**
   * @param offset where the range begins on the export, a multiple of 512
   * @param run tells this run's blocks from those of an earlier one; below 2^53
   * @throws TwinvolError `USAGE`
   */
  constructor(offset: number, length: number, blockBytes: number, run: number) {
    if (blockBytes % SECTOR_BYTES !== 0 || offset % SECTOR_BYTES !== 0) {
      throw new TwinvolError('USAGE', 'self-describing blocks are whole sectors', { remedy: 'give --bs and --range in multiples of 512' });
    }
    this.blocks = Math.floor(length / blockBytes);
    if (this.blocks > BLOCKS_MAX) {
      const remedy = `give --size ${formatSize(BLOCKS_MAX * blockBytes).replace(' ', '')} or less, or a larger --bs`;
      throw new TwinvolError('USAGE', `a verifying run remembers ${BLOCKS_MAX} blocks at most, and the range has ${this.blocks}`, {
        remedy,
      });
    }
    this.blockBytes = blockBytes;
    this.#offset = offset;
    this.#run = run;
    this.#expected = new Uint32Array(this.blocks);
    this.#busy = new Uint8Array(this.blocks);
  }

  get mismatches(): number {
    return this.#mismatches;
  }
  /** Blocks that were read and compared. */
  get checked(): number {
    return this.#checked;
  }
  get details(): readonly Mismatch[] {
    return this.#details;
  }

  /**
   * Takes the block, or the next one that is free, for one request; -1 when all are taken.
   * @param stride only every so many: connections that do not share what they see keep to blocks of their own
   */
  claim(block: number, stride: number = 1): number {
    const first = block % stride;
    const turns = Math.ceil((this.blocks - first) / stride);
    let at = block < this.blocks ? block : first;
    for (let turn = 0; turn < turns; turn += 1) {
      if (this.#busy[at] === 0) {
        this.#busy[at] = 1;
        return at;
      }
      at = at + stride < this.blocks ? at + stride : first;
    }
    return -1;
  }

  release(block: number): void {
    this.#busy[block] = 0;
  }

  /** The next block at or after `block`, in steps of `stride`, whose content is known, or -1. */
  nextKnown(block: number, stride: number = 1): number {
    for (let next = block; next < this.blocks; next += stride) {
      const expected = this.#expected[next] as number;
      if (expected !== UNWRITTEN && expected !== UNKNOWN) return next;
    }
    return -1;
  }

  /** Blocks whose content is known. */
  get known(): number {
    let count = 0;
    for (const expected of this.#expected) if (expected !== UNWRITTEN && expected !== UNKNOWN) count += 1;
    return count;
  }

  /** Makes `bytes` (one block) the next write of a block. @returns its sequence, for `wrote` */
  stamp(bytes: Buffer, block: number): number {
    if (this.#lastSequence >= SEQUENCE_MAX) throw new Error('a run has fewer than 2^32 writes');
    this.#lastSequence += 1;
    const start = this.#offset + block * this.blockBytes;
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      MAGIC.copy(bytes, at);
      bytes.writeDoubleBE(this.#run, at + 8);
      bytes.writeDoubleBE(start + at, at + 16);
      bytes.writeUInt32BE(this.#lastSequence, at + 24);
      bytes.writeUInt32BE(checksum(bytes, at), at + CRC_AT);
    }
    return this.#lastSequence;
  }

  /** The write of `stamp` was answered. */
  wrote(block: number, sequence: number, isDone: boolean): void {
    this.#expected[block] = isDone ? sequence : UNKNOWN;
  }

  /** Compares what was read with what must be there. A block that this run did not write is not looked at. */
  check(bytes: Buffer, block: number): void {
    const expected = this.#expected[block] as number;
    if (expected === UNWRITTEN || expected === UNKNOWN) return;
    this.#checked += 1;
    const start = this.#offset + block * this.blockBytes;
    let first = -1;
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      const kind = this.#look(bytes, at, start + at, expected);
      const sequence = bytes.readUInt32BE(at + 24);
      if (first < 0) first = sequence;
      if (kind === null && sequence === first) continue;
      const isTorn = at > 0 && sequence !== first && (kind === null || kind === 'stale');
      this.#report(bytes, at, start + at, expected, isTorn ? 'torn' : (kind ?? 'torn'));
      return;
    }
  }

  #look(bytes: Buffer, at: number, offset: number, expected: number): MismatchKind | null {
    if (bytes.compare(MAGIC, 0, MAGIC.length, at, at + MAGIC.length) !== 0) return 'foreign';
    if (bytes.readUInt32BE(at + CRC_AT) !== checksum(bytes, at)) return 'damaged';
    if (bytes.readDoubleBE(at + 8) !== this.#run) return 'foreign';
    if (bytes.readDoubleBE(at + 16) !== offset) return 'misplaced';
    return bytes.readUInt32BE(at + 24) === expected ? null : 'stale';
  }

  #report(bytes: Buffer, at: number, offset: number, expectedSequence: number, kind: MismatchKind): void {
    this.#mismatches += 1;
    if (this.#details.length >= DETAILS_MAX) return;
    const isOurs = kind !== 'foreign' && kind !== 'damaged';
    const foundSequence = isOurs ? bytes.readUInt32BE(at + 24) : null;
    const foundOffset = kind === 'misplaced' ? bytes.readDoubleBE(at + 16) : null;
    this.#details.push({ offset, kind, expectedSequence, foundSequence, foundOffset });
  }
}

const checksum = (bytes: Buffer, at: number): number =>
  crc32(bytes.subarray(at + FILLER_AT, at + SECTOR_BYTES), crc32(bytes.subarray(at, at + CRC_AT)));

/** `at 1048576: stale: write 17 was acknowledged, write 12 is there`. */
export const describeMismatch = ({ offset, kind, expectedSequence, foundSequence, foundOffset }: Mismatch): string => {
  const found = {
    foreign: 'what is there was not written by this run',
    damaged: 'the checksum of what is there is wrong',
    misplaced: `what is there was written for ${foundOffset}`,
    stale: `write ${foundSequence} is there`,
    torn: `parts of write ${foundSequence} are there`,
  }[kind];
  return `at ${offset}: ${kind}: write ${expectedSequence} was acknowledged, ${found}`;
};
