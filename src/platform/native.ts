/**
 * What this process has from the native addon fs-ext, and what stands in where it has not.
 *
 * fs-ext is an optional dependency: a machine without a compiler installs without it, and everything still runs on
 * `native-free/`. The addon is looked for once in each thread, when the module is first imported. `TWINVOL_NATIVE=off`
 * forces the stand-ins, so that tests can run both ways on one machine.
 */
import { randomUUID } from 'node:crypto';
import { copyFileSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { isMainThread, threadId } from 'node:worker_threads';
import { findProgram } from './program.ts';

/** The part of fs-ext that is used. Calls are synchronous and throw errors with a system `code`. */
export type FsExt = {
  /** lseek(2). `whence` 3 and 4 are SEEK_DATA and SEEK_HOLE on Linux; passed through to the kernel. Bytes. */
  seekSync(fd: number, offset: number, whence: number): number;
  /** flock(2). `exnb`: exclusive, without waiting. EAGAIN when somebody else has it. */
  flockSync(fd: number, flags: 'exnb' | 'un'): void;
  /** fcntl(2) with an integer argument; the command by its number. */
  fcntlSync(fd: number, command: number, argument: number): number;
};

export type NativeReport = {
  readonly fsExt: boolean;
  readonly fileLock: string;
  readonly holeSeek: string;
  readonly spaceReclaim: string;
  /** One sentence for each thing that works less well here than with everything present. Empty: nothing. */
  readonly weaker: string[];
};

const isFsExt = (value: unknown): value is FsExt =>
  typeof value === 'object' &&
  value !== null &&
  ['seekSync', 'flockSync', 'fcntlSync'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function');

/** The addon's own functions, below its JavaScript: what a private copy of it gives. */
type Binding = {
  seek(fd: number, offset: number, whence: number): number;
  flock(fd: number, operation: number): void;
  fcntl(fd: number, command: number, argument: number): number;
  readonly constants: { readonly LOCK_EX: number; readonly LOCK_NB: number; readonly LOCK_UN: number };
};

let copies = 0;

/**
 * A copy of the addon for this thread alone. fs-ext keeps a handle into the thread that loaded it in a static variable
 * and frees it when the next thread loads it: measured, a process whose worker had ended aborted when another worker
 * loaded the addon. A copied file has variables of its own. It is unlinked as soon as it is mapped.
 */
const loadPrivateCopy = (): FsExt => {
  const require = createRequire(import.meta.url);
  const original = join(dirname(require.resolve('fs-ext')), 'build', 'Release', 'fs_ext.node');
  copies += 1;
  const copy = join(tmpdir(), `twinvol-${process.pid}-${threadId}-${copies}-${randomUUID()}.node`);
  copyFileSync(original, copy);
  const module = { exports: {} as Binding };
  try {
    process.dlopen(module, copy);
  } finally {
    unlinkSync(copy);
  }
  const binding = module.exports;
  const { LOCK_EX, LOCK_NB, LOCK_UN } = binding.constants;
  return {
    seekSync: (fd, offset, whence) => binding.seek(fd, offset, whence),
    flockSync: (fd, flags) => binding.flock(fd, flags === 'un' ? LOCK_UN : LOCK_EX | LOCK_NB),
    fcntlSync: (fd, command, argument) => binding.fcntl(fd, command, argument),
  };
};

const loadFsExt = (): FsExt | null => {
  if (process.env.TWINVOL_NATIVE === 'off') return null;
  try {
    const loaded: unknown = isMainThread ? createRequire(import.meta.url)('fs-ext') : loadPrivateCopy();
    return isFsExt(loaded) ? loaded : null;
  } catch {
    // Not installed, not built, or built for another Node: all three mean the stand-ins.
    return null;
  }
};

/** The addon, or null where the stand-ins are used. */
export const fsExt: FsExt | null = loadFsExt();

/** SEEK_DATA and SEEK_HOLE, F_DUPFD_CLOEXEC and O_NONBLOCK have these numbers on Linux only. */
export const isLinux = process.platform === 'linux';

/** For `status` and the start-up line: what is live, and where it is weaker. */
export const nativeReport = (): NativeReport => {
  const weaker: string[] = [];
  const canPunch = isLinux && findProgram('fallocate') !== null;
  const canSeek = fsExt !== null && isLinux;
  if (fsExt === null) {
    weaker.push(
      'The store lock is an owner file: after a crash in another container or on another machine it has to be removed by hand.',
      'Connections cannot be handed to other threads by their descriptor.',
    );
  }
  if (!canSeek) weaker.push('Holes are found by reading and looking for zeros, which takes as long as reading.');
  if (!canPunch) weaker.push('Space of trimmed and deleted data is not given back to the file system; it reads as zeros.');
  return {
    fsExt: fsExt !== null,
    fileLock: fsExt === null ? 'owner file (native-free)' : 'flock (fs-ext)',
    holeSeek: canSeek ? 'SEEK_DATA and SEEK_HOLE (fs-ext)' : 'zero check (native-free)',
    spaceReclaim: canPunch ? 'hole punching (util-linux fallocate)' : 'none',
    weaker,
  };
};
