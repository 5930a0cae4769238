/**
 * The few file operations that the store's metadata (superblock and journal) is made of, as an interface: the crash
 * tests put a recorder in its place and replay what it has recorded up to any moment.
 *
 * The fault model that callers must bear: until `sync` has returned, any part of what was written or truncated may be on
 * the medium, in any order; until `syncDirectory` has returned, a name that was made, renamed or removed may be the old
 * one or the new one. Errors are the system's (`code` ENOSPC, EIO, ENOENT and so on).
 * Nothing here blocks the thread on the disk: a flush may take long, and hosts' requests must not wait for it.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { systemCode } from '../core/faults.ts';

export type MetadataFile = {
  /** Writes all bytes at `position`. A part may have been written when it throws. */
  pwrite(bytes: Uint8Array, position: number): Promise<void>;
  /** Cuts the file, or makes it longer with zeros. */
  truncate(byteLength: number): Promise<void>;
  /** Makes the content durable. After an error nothing is known about what was not durable before. */
  sync(): Promise<void>;
  close(): Promise<void>;
};

export type MetadataFiles = {
  /** The whole file, or null when there is none. */
  readFile(path: string): Promise<Buffer | null>;
  /** `create`: an empty file, mode 0600, whatever was there before. `existing`: for writing, content kept. */
  open(path: string, how: 'create' | 'existing'): Promise<MetadataFile>;
  /** Replaces `to`. Durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  /** A file that is not there is no error. Durable after `syncDirectory`. */
  unlink(path: string): Promise<void>;
  /** Names in a directory; empty when there is none. */
  list(directory: string): Promise<string[]>;
  syncDirectory(directory: string): Promise<void>;
};

const open = promisify(fs.open);
const write = promisify(fs.write);
const ftruncate = promisify(fs.ftruncate);
const fsync = promisify(fs.fsync);
const fdatasync = promisify(fs.fdatasync);
const fstat = promisify(fs.fstat);
const close = promisify(fs.close);

class RealFile implements MetadataFile {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  async pwrite(bytes: Uint8Array, position: number): Promise<void> {
    let done = 0;
    while (done < bytes.byteLength) {
      const { bytesWritten } = await write(this.#fd, bytes, done, bytes.byteLength - done, position + done);
      if (bytesWritten === 0) throw Object.assign(new Error('a write took no byte'), { code: 'EIO' });
      done += bytesWritten;
    }
  }
  truncate(byteLength: number): Promise<void> {
    return ftruncate(this.#fd, byteLength);
  }
  /** fdatasync(2): the length of the file counts as data. What is durable in a file without a name is lost. */
  async sync(): Promise<void> {
    await fdatasync(this.#fd);
    if ((await fstat(this.#fd)).nlink === 0) throw Object.assign(new Error('the file was deleted while it was in use'), { code: 'ENOENT' });
  }
  close(): Promise<void> {
    return close(this.#fd);
  }
}

/** A result, or `otherwise` when the name does not exist. */
const unlessMissing = async <T>(work: Promise<T>, otherwise: T): Promise<T> => {
  try {
    return await work;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return otherwise;
    throw error;
  }
};

export const realMetadataFiles: MetadataFiles = {
  readFile: (path) => unlessMissing<Buffer | null>(fs.promises.readFile(path), null),
  open: async (path, how) => new RealFile(await open(path, how === 'create' ? 'w' : 'r+', 0o600)),
  rename: (from, to) => fs.promises.rename(from, to),
  unlink: (path) => unlessMissing(fs.promises.unlink(path), undefined),
  list: (directory) => unlessMissing<string[]>(fs.promises.readdir(directory), []),
  syncDirectory: async (directory) => {
    const fd = await open(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      await fsync(fd);
    } catch (error) {
      // Some file systems have no fsync for directories, and say so by EINVAL.
      if (systemCode(error) !== 'EINVAL') throw error;
    } finally {
      await close(fd);
    }
  },
};

/** Writes a file beside its place, makes it durable, renames it into place: after a crash it is whole or the old one. */
export const replaceDurably = async (files: MetadataFiles, path: string, bytes: Uint8Array): Promise<void> => {
  const file = await files.open(`${path}.new`, 'create');
  try {
    await file.pwrite(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(`${path}.new`, path);
  await files.syncDirectory(dirname(path));
};
