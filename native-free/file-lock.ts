/**
 * A lock between processes without flock(2): an owner file beside the lock's path.
 *
 * The file is made whole elsewhere and appears by link(2), which is atomic and fails where one exists, so it never
 * shows half an owner. A dead owner's file is removed by one process only: the one that holds the claim named after
 * that owner's nonce, taken in just this way (a breaker that dies is broken likewise, one level down). A nonce never
 * comes back, so a claim that is taken late finds another owner, or none, and changes nothing.
 *
 * Invariant: an owner file is unlinked by its living owner, or by the holder of the claim on its nonce.
 * Weaker than flock(2): an owner that cannot be seen (another machine, another container) counts as alive.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, linkSync, openSync, readdirSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { systemCode, TwinvolError } from '../src/core/faults.ts';
import { type LockOwner, livenessOf, ownerHere, parseOwner } from './lock-owner.ts';

export type FileLock = { release(): void };

/** `deadFlocks`: the caller holds the flock itself, so an owner that says `flock` is certainly dead. */
export type OwnerFileOptions = { readonly by?: LockOwner['by']; readonly deadFlocks?: boolean };

const ATTEMPTS_MAX = 100;
const PAUSE_MS = 2;
const NO_LINKS = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'];

/** A moment for another process to get on with the protocol; blocks the thread. */
export const pauseForOthers = (): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
};

const unlinkIfThere = (path: string): void => {
  try {
    unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
};

/** The owner in the file; null: no file; undefined: a file that names nobody. */
const readOwner = (path: string): LockOwner | null | undefined => {
  try {
    return parseOwner(readFileSync(path, 'utf8')) ?? undefined;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
};

/** Where the owner of the lock at `path` is named. */
export const ownerPathOf = (path: string): string => `${path}.owner`;

/** The refusal, the same for both kinds of lock. `owner` undefined: somebody holds it and cannot be named. */
export const lockedError = (path: string, owner: LockOwner | undefined, unseen: boolean): TwinvolError => {
  const who =
    owner === undefined
      ? 'Another process'
      : `Process ${owner.pid}${unseen ? ` on ${owner.machine}, which cannot be seen from here,` : ''}`;
  return new TwinvolError('STORE_LOCKED', `${who} holds the lock ${path}.`, {
    details: { path, pid: owner?.pid ?? null },
    ...(unseen ? { remedy: `stop that process; if it is gone for certain, remove ${ownerPathOf(path)}` } : {}),
  });
};

type Claim = { readonly held: true } | { readonly held: false; readonly owner: LockOwner | undefined; readonly unseen: boolean };

/** Writes the owner so that it is durable before its name is: a power cut never leaves an owner file that names nobody. */
const writeOwner = (path: string, owner: LockOwner): void => {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeSync(fd, `${JSON.stringify(owner)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};

/** Gives what was made its name; false where something has that name already. */
const linkIfFree = (made: string, path: string): boolean => {
  try {
    linkSync(made, path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
};

/** Removes the file of a dead owner, unless another process is at it or was faster. */
const breakClaim = (path: string, dead: LockOwner, here: LockOwner, options: OwnerFileOptions): void => {
  const claimPath = `${path}.${dead.nonce}`;
  if (!claim(claimPath, here, options).held) return pauseForOthers();
  try {
    if (readOwner(path)?.nonce === dead.nonce) unlinkSync(path);
  } finally {
    unlinkIfThere(claimPath);
  }
};

const claim = (path: string, here: LockOwner, options: OwnerFileOptions): Claim => {
  const made = `${path}.${here.nonce}.new`;
  let isMade = false;
  try {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const owner = readOwner(path);
      if (owner === undefined) return { held: false, owner, unseen: true };
      if (owner === null) {
        if (!isMade) {
          isMade = true;
          writeOwner(made, here);
        }
        if (linkIfFree(made, path)) return { held: true };
        continue;
      }
      const liveness = options.deadFlocks === true && owner.by === 'flock' ? 'dead' : livenessOf(owner, here);
      if (liveness !== 'dead') return { held: false, owner, unseen: liveness === 'unknown' };
      breakClaim(path, owner, here, options);
    }
    return { held: false, owner: readOwner(path) ?? undefined, unseen: false };
  } finally {
    if (isMade) unlinkIfThere(made);
  }
};

/** Removes what processes that died inside the protocol left: claims on nonces that are past, files of the dead. */
const clearRemains = (path: string, here: LockOwner): void => {
  const prefix = `${basename(path)}.`;
  for (const name of readdirSync(dirname(path))) {
    if (!name.startsWith(prefix)) continue;
    const remain = join(dirname(path), name);
    const owner = readOwner(remain);
    if (owner && livenessOf(owner, here) === 'dead') unlinkIfThere(remain);
  }
};

/**
 * Claims the owner file of the lock at `path`, without waiting for an owner that lives.
 * Errors: STORE_LOCKED; NOT_SUPPORTED on a file system without hard links; STORE_IO.
 */
export const claimOwnerFile = (path: string, options: OwnerFileOptions = {}): FileLock & { readonly owner: LockOwner } => {
  const ownerPath = ownerPathOf(path);
  const here = ownerHere(randomBytes(8).toString('hex'), options.by ?? 'owner-file');
  let result: Claim;
  try {
    result = claim(ownerPath, here, options);
    if (result.held) clearRemains(ownerPath, here);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === 'link' && NO_LINKS.includes(systemCode(error))) {
      throw new TwinvolError('NOT_SUPPORTED', `The file system of ${path} has no hard links, which the lock needs.`, {
        remedy: 'put the store on another file system',
        cause: error,
      });
    }
    throw new TwinvolError('STORE_IO', `The lock ${path} could not be taken: ${systemCode(error)}.`, { cause: error });
  }
  if (!result.held) throw lockedError(path, result.owner, result.unseen);
  let released = false;
  return {
    owner: here,
    release: () => {
      if (released) return;
      released = true;
      // Somebody may have removed the file by hand and taken the lock: theirs is not ours to remove.
      if (readOwner(ownerPath)?.nonce === here.nonce) unlinkSync(ownerPath);
    },
  };
};

/** The lock at `path`, held until `release` or the end of the process. Same contract as `src/platform/file-lock.ts`. */
export const acquireFileLock = (path: string): FileLock => claimOwnerFile(path);
