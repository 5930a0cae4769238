/**
 * Writing so that it is on the medium when the call returns, and whole or absent after any crash. All calls are
 * synchronous and throw the system's errors (`code` EIO, ENOSPC and so on); the caller says what they mean to it.
 */
import { closeSync, constants, fsyncSync, openSync, readSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemCode } from '../core/faults.ts';

/** Makes names that were made, renamed or removed in the directory durable. */
export const syncDirectory = (path: string): void => {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } catch (error) {
    // Some file systems have no fsync for directories, and say so by EINVAL: their names are as durable as they can be.
    if (systemCode(error) !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
};

/** Reads until the buffer is full or the file ends. Returns the number of bytes read. `position` in bytes. */
export const preadFully = (fd: number, buffer: Uint8Array, position: number): number => {
  let done = 0;
  while (done < buffer.byteLength) {
    const length = readSync(fd, buffer, done, buffer.byteLength - done, position + done);
    if (length === 0) break;
    done += length;
  }
  return done;
};

/** Writes the whole buffer. `position` in bytes. A part may have been written when it throws. */
export const pwriteFully = (fd: number, buffer: Uint8Array, position: number): void => {
  let done = 0;
  while (done < buffer.byteLength) {
    const length = writeSync(fd, buffer, done, buffer.byteLength - done, position + done);
    if (length === 0) throw Object.assign(new Error(`write took no byte at ${position + done}`), { code: 'EIO' });
    done += length;
  }
};

/**
 * Gives the file at `path` this content: a new file is written, synced and renamed over the old one. After a crash the
 * old or the new content is there, never a part. One writer for a path at a time: the new file's name is fixed
 * (`PATH.new`), so that what a crash leaves is overwritten by the next call.
 */
export const writeFileDurable = (path: string, bytes: Uint8Array, mode = 0o600): void => {
  const made = `${path}.new`;
  const fd = openSync(made, 'w', mode);
  try {
    try {
      pwriteFully(fd, bytes, 0);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(made, path);
  } catch (error) {
    try {
      unlinkSync(made);
    } catch {
      // It may be gone or the directory unwritable; the first error is the one that counts.
    }
    throw error;
  }
  syncDirectory(dirname(path));
};
