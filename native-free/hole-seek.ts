/**
 * Finds data and holes of a sparse file without SEEK_DATA and SEEK_HOLE: reads, and takes a block of zeros for a hole.
 *
 * The answer is true in the sense that matters (what is called a hole reads as zeros, what is not zero is called
 * data), and slower: it costs the reading of what is skipped. Only a file without any block is known to be empty at once.
 * Blocks are counted from the beginning of the file, so an answer does not depend on where the search starts.
 */
import { fstatSync, readSync } from 'node:fs';

const BLOCK_BYTES = 4096;
const READ_BYTES_MIN = 64 * 1024;
const READ_BYTES_MAX = 1024 * 1024;

const zeros = Buffer.alloc(READ_BYTES_MAX);
/** One for each thread; every call is synchronous, so two searches never share it. */
let scratch: Buffer | null = null;

const isZero = (bytes: Buffer, from: number, to: number): boolean => bytes.compare(zeros, 0, to - from, from, to) === 0;

/** First byte of the first block in `bytes` that is zero (or is not); -1: none. `position`: of bytes[0] in the file. */
const findBlock = (bytes: Buffer, length: number, position: number, zero: boolean): number => {
  if (!zero && isZero(bytes, 0, length)) return -1;
  for (let from = 0; from < length; ) {
    const to = Math.min(length, from + BLOCK_BYTES - ((position + from) % BLOCK_BYTES));
    if (isZero(bytes, from, to) === zero) return from;
    from = to;
  }
  return -1;
};

/** First offset from `offset` on whose block is zero (or is not). Ends at `end` or at the end of the file. */
const search = (fd: number, offset: number, end: number, zero: boolean): number => {
  scratch ??= Buffer.alloc(READ_BYTES_MAX);
  let position = offset;
  let readBytes = READ_BYTES_MIN;
  while (position < end) {
    const length = readSync(fd, scratch, 0, Math.min(readBytes, end - position), position);
    if (length === 0) return zero ? position : end;
    const found = findBlock(scratch, length, position, zero);
    if (found >= 0) return position + found;
    position += length;
    readBytes = Math.min(READ_BYTES_MAX, readBytes * 2);
  }
  return end;
};

/** First offset >= `offset` that may hold data, or `end`. Bytes. Same contract as `src/platform/hole-seek.ts`. */
export const seekData = (fd: number, offset: number, end: number): number => {
  if (offset >= end || fstatSync(fd).blocks === 0) return end;
  return search(fd, offset, end, false);
};

/** First offset >= `offset` that is in a hole, or `end`; what is beyond the end of the file is a hole. Bytes. */
export const seekHole = (fd: number, offset: number, end: number): number => {
  if (offset >= end) return end;
  return fstatSync(fd).blocks === 0 ? offset : search(fd, offset, end, true);
};
