/**
 * Finds data and holes of a sparse file: lseek(2) with SEEK_DATA and SEEK_HOLE through fs-ext, or the zero check of
 * `native-free/`. Both answer the same question: what is skipped reads as zeros. The descriptor's own offset moves, so
 * every other access to it must be positional.
 */
import * as standIn from '../../native-free/hole-seek.ts';
import { systemCode } from '../core/faults.ts';
import { type FsExt, fsExt, isLinux } from './native.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** lseek(2), and null past the last data or past the end of the file (ENXIO). */
const seek = (native: FsExt, fd: number, offset: number, whence: number): number | null => {
  // Past the last data an error is the answer, at each question: nobody reads where it was asked.
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return native.seekSync(fd, offset, whence);
  } catch (error) {
    if (systemCode(error) === 'ENXIO') return null;
    throw error;
  } finally {
    Error.stackTraceLimit = limit;
  }
};

const seekDataNative = (fd: number, offset: number, end: number): number =>
  offset >= end || fsExt === null ? end : Math.min(end, seek(fsExt, fd, offset, SEEK_DATA) ?? end);

const seekHoleNative = (fd: number, offset: number, end: number): number =>
  offset >= end || fsExt === null ? end : Math.min(end, seek(fsExt, fd, offset, SEEK_HOLE) ?? offset);

const native = fsExt !== null && isLinux;

/** First offset >= `offset` that may hold data, or `end`. Bytes. Throws the system's errors (EBADF, EIO). */
export const seekData: (fd: number, offset: number, end: number) => number = native ? seekDataNative : standIn.seekData;

/** First offset >= `offset` that is in a hole, or `end`; what is beyond the end of the file is a hole. Bytes. */
export const seekHole: (fd: number, offset: number, end: number) => number = native ? seekHoleNative : standIn.seekHole;
