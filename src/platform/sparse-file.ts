/**
 * One physical volume's file: sparse, of a fixed size, opened once for the life of the store. Errors are the system's.
 *
 * The descriptor is a number, because lanes (threads of this process) read and write through it synchronously.
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { systemCode } from '../core/faults.ts';

const openAsync = promisify(fs.open);
const ftruncateAsync = promisify(fs.ftruncate);
const fsyncAsync = promisify(fs.fsync);
const fdatasyncAsync = promisify(fs.fdatasync);
const writeAsync = promisify(fs.write);
const readAsync = promisify(fs.read);

/** Zeros to write from; shared, never written to. */
const ZEROS = Buffer.alloc(1024 * 1024);

/** Makes the file anew: all of it a hole. The size and the emptiness are durable when it returns; the name is not. */
export const createSparseFile = async (path: string, byteLength: number): Promise<number> => {
  const fd = await openAsync(path, 'w+', 0o600);
  try {
    await extendSparseFile(fd, byteLength);
  } catch (error) {
    fs.closeSync(fd);
    await removeFile(path);
    throw error;
  }
  return fd;
};

/** Best effort: a file that stays is overwritten by the next attempt. */
export const removeFile = (path: string): Promise<void> => fs.promises.unlink(path).catch(() => undefined);

/** @returns null when there is no such file */
export const openSparseFile = (path: string, readOnly: boolean): { readonly fd: number; readonly byteLength: number } | null => {
  let fd: number;
  try {
    fd = fs.openSync(path, readOnly ? 'r' : 'r+');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw Object.assign(new Error(`${path} is not a regular file`), { code: 'EINVAL' });
    return { fd, byteLength: stat.size };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
};

/** Makes the file longer, with a hole; durable. */
export const extendSparseFile = async (fd: number, byteLength: number): Promise<void> => {
  await ftruncateAsync(fd, byteLength);
  await fsyncAsync(fd);
};

export const closeFile = (fd: number): void => fs.closeSync(fd);

/** Makes what was written to the file durable, without blocking the thread. */
export const syncData = (fd: number): Promise<void> => fdatasyncAsync(fd);

/** Writes zeros over a range, in bytes, without blocking the thread. */
export const writeZeros = async (fd: number, offset: number, byteLength: number): Promise<void> => {
  let done = 0;
  while (done < byteLength) {
    const { bytesWritten } = await writeAsync(fd, ZEROS, 0, Math.min(ZEROS.length, byteLength - done), offset + done);
    if (bytesWritten === 0) throw Object.assign(new Error('a write took no byte'), { code: 'EIO' });
    done += bytesWritten;
  }
};

/** Offset of the first byte of the range that is not zero, or -1; what is beyond the end of the file reads as zeros. */
export const findNonZero = async (fd: number, offset: number, byteLength: number): Promise<number> => {
  const buffer = Buffer.allocUnsafe(Math.min(ZEROS.length, byteLength));
  for (let done = 0; done < byteLength; ) {
    const { bytesRead } = await readAsync(fd, buffer, 0, Math.min(buffer.length, byteLength - done), offset + done);
    if (bytesRead === 0) return -1;
    if (buffer.compare(ZEROS, 0, bytesRead, 0, bytesRead) !== 0) return offset + done + buffer.findIndex((byte) => byte !== 0);
    done += bytesRead;
  }
  return -1;
};
