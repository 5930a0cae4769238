/**
 * The exclusive lock of a store: flock(2) through fs-ext, or the owner file of `native-free/`.
 *
 * With fs-ext both are taken, flock first: the kernel frees it at any death of the process, and the owner file keeps
 * out a process that runs without the addon. The lock file itself stays (removing it would let two processes lock two
 * different files under one name); it names the owner while there is one, so that a refusal can.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import {
  acquireFileLock as acquireOwnerFile,
  claimOwnerFile,
  type FileLock,
  lockedError,
  pauseForOthers,
} from '../../native-free/file-lock.ts';
import { parseOwner } from '../../native-free/lock-owner.ts';
import { systemCode, TwinvolError } from '../core/faults.ts';
import { type FsExt, fsExt } from './native.ts';

export type { FileLock };

const NAME_ATTEMPTS_MAX = 20;

/** The owner takes the flock first and writes its name a moment later: look more than once. */
const readHolder = (path: string): ReturnType<typeof parseOwner> => {
  for (let attempt = 0; attempt < NAME_ATTEMPTS_MAX; attempt++) {
    const owner = parseOwner(readFileSync(path, 'utf8'));
    if (owner !== null) return owner;
    pauseForOthers();
  }
  return null;
};

const isFull = (error: unknown): boolean => {
  const code = systemCode(error) || systemCode((error as { readonly cause?: unknown }).cause);
  return code === 'ENOSPC' || code === 'EDQUOT';
};

/**
 * The owner file needs a block, and an engine has to start on a full file system too. Null: none was to be had; the
 * flock alone keeps every process with the addon out.
 */
const claimWhereThereIsRoom = (path: string): ReturnType<typeof claimOwnerFile> | null => {
  try {
    return claimOwnerFile(path, { by: 'flock', deadFlocks: true });
  } catch (error) {
    if (isFull(error)) return null;
    throw error;
  }
};

const acquireByFlock = (path: string, native: FsExt): FileLock => {
  const fd = openSync(path, 'a+', 0o600);
  try {
    try {
      native.flockSync(fd, 'exnb');
    } catch (error) {
      if (systemCode(error) === 'EAGAIN' || systemCode(error) === 'EWOULDBLOCK')
        throw lockedError(path, readHolder(path) ?? undefined, false);
      throw error;
    }
    const claimed = claimWhereThereIsRoom(path);
    if (claimed !== null) {
      ftruncateSync(fd);
      writeSync(fd, `${JSON.stringify(claimed.owner)}\n`);
    }
    let released = false;
    return {
      release: () => {
        if (released) return;
        released = true;
        try {
          claimed?.release();
          ftruncateSync(fd);
        } catch {
          // A medium that turned read-only or failed keeps both names. With the flock free, the next owner takes no notice.
        } finally {
          closeSync(fd);
        }
      },
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
};

/**
 * Takes the lock at `path` (its folder must exist), without waiting; held until `release` or the end of the process.
 * Errors: STORE_LOCKED, with the owner's pid in the text and in `details.pid`; NOT_SUPPORTED; STORE_IO.
 */
export const acquireFileLock = (path: string): FileLock => {
  if (fsExt === null) return acquireOwnerFile(path);
  try {
    return acquireByFlock(path, fsExt);
  } catch (error) {
    if (error instanceof TwinvolError) throw error;
    throw new TwinvolError('STORE_IO', `The lock ${path} could not be taken: ${systemCode(error)}.`, { cause: error });
  }
};
