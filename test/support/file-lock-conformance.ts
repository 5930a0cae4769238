/**
 * What a store's lock promises, run on both implementations: in this process, and between processes that are started
 * with the same implementation.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ownerPathOf } from '../../native-free/file-lock.ts';
import { TwinvolError } from '../../src/core/faults.ts';
import type { FileLock } from '../../src/platform/file-lock.ts';
import { workerFile } from '../../src/platform/worker-file.ts';
import { run } from './clients.ts';
import { temporaryDirectory } from './temporary.ts';

export type LockImplementation = {
  readonly acquire: (path: string) => FileLock;
  /** What the other processes run with. */
  readonly native: 'on' | 'off';
};

const contender = join(import.meta.dirname, 'lock-contender.ts');

const argumentsOf = (task: string, path: string, rounds: number): string[] => [
  ...workerFile('core/faults').execArgv,
  contender,
  task,
  path,
  `${rounds}`,
];

const refusal = (acquire: () => unknown): TwinvolError => {
  try {
    acquire();
  } catch (error) {
    if (error instanceof TwinvolError) return error;
    throw error;
  }
  throw new Error('the lock was given twice');
};

/** A process that holds the lock; resolves once it does. */
export const holdElsewhere = async (path: string, native: 'on' | 'off'): Promise<ChildProcess & { readonly pid: number }> => {
  const child = spawn(process.execPath, argumentsOf('hold', path, 0), {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TWINVOL_NATIVE: native },
  });
  if (child.stdout === null || child.pid === undefined) throw new Error('the holder did not start');
  const ended = once(child, 'close').then(() => Promise.reject(new Error('the holder ended before it had the lock')));
  ended.catch(() => undefined);
  await Promise.race([once(child.stdout, 'data'), ended]);
  return child as ChildProcess & { readonly pid: number };
};

export const kill = async (child: ChildProcess): Promise<void> => {
  const ended = once(child, 'close');
  child.kill('SIGKILL');
  await ended;
};

const describeOneProcess = ({ acquire }: LockImplementation): void => {
  it('is given once, and again after its release', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    const first = acquire(path);
    expect(refusal(() => acquire(path))).toMatchObject({ code: 'STORE_LOCKED', details: { path, pid: process.pid } });
    first.release();
    const second = acquire(path);
    second.release();
  });

  it('a second release does nothing to the next owner', async () => {
    await using temporary = await temporaryDirectory();
    const first = acquire(temporary.path('lock'));
    first.release();
    const second = acquire(temporary.path('lock'));
    first.release();
    expect(refusal(() => acquire(temporary.path('lock'))).code).toBe('STORE_LOCKED');
    second.release();
  });

  it('locks of two paths are apart, also where one name begins with the other', async () => {
    await using temporary = await temporaryDirectory();
    const locks = ['lock', 'lock.owner', 'lock2'].map((name) => acquire(temporary.path(name)));
    for (const lock of locks) lock.release();
  });

  it('a folder that is missing is an error of the store, not a lock', async () => {
    await using temporary = await temporaryDirectory();
    expect(refusal(() => acquire(temporary.path('none', 'lock'))).code).toBe('STORE_IO');
  });
};

const describeProcesses = ({ acquire, native }: LockImplementation): void => {
  it('names the process that has it, and is free as soon as that process is killed', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    const holder = await holdElsewhere(path, native);
    const error = refusal(() => acquire(path));
    expect(error).toMatchObject({ code: 'STORE_LOCKED', details: { pid: holder.pid } });
    expect(error.message).toContain(`${holder.pid}`);
    await kill(holder);
    acquire(path).release();
  });

  // A flock cannot be abandoned without the death of the process, which the test above has.
  it.each(native === 'on' ? ['contend'] : ['contend', 'abandon'])('one process at a time has it, among several that %s', async (task) => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    const runs = await Promise.all(
      [1, 2, 3].map(() => run(process.execPath, argumentsOf(task, path, 150), { env: { TWINVOL_NATIVE: native } })),
    );
    for (const { status, stderr } of runs) expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(runs.reduce((sum, { stdout }) => sum + Number(stdout), 0)).toBeGreaterThan(50);
  });

  it('clears what processes that died in the middle of the protocol left', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('lock');
    const ownerPath = ownerPathOf(path);
    const holder = await holdElsewhere(path, 'off');
    await kill(holder);
    const remains = [`${ownerPath}.${'ab'.repeat(8)}`, `${ownerPath}.${'cd'.repeat(8)}.new`];
    for (const remain of remains) writeFileSync(remain, readFileSync(ownerPath));
    const lock = acquire(path);
    expect(remains.filter((remain) => existsSync(remain))).toEqual([]);
    lock.release();
    expect(readdirSync(temporary.root).filter((name) => name !== 'lock')).toEqual([]);
  });
};

export const fileLockConformance = (name: string, implementation: LockImplementation): void => {
  describe(`file lock: ${name}`, () => {
    describeOneProcess(implementation);
    describeProcesses(implementation);
  });
};
