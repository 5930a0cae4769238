/**
 * The owner file under every interleaving that matters: while one contender takes over from a dead owner, others come
 * in before each of its calls to the file system, and it dies before each of them.
 *
 * The file system is the real one (but for fsync, which would only take time here); the moment of each call is intercepted. A contender that comes in runs to its
 * end there, which covers what one process can do between two calls of another.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { acquireFileLock, type FileLock, ownerPathOf } from '../../../native-free/file-lock.ts';
import { ownerHere } from '../../../native-free/lock-owner.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../../support/temporary.ts';

/** What runs before the nth call that the code under test makes to the lock's folder. */
const moments = vi.hoisted(() => ({ count: 0, at: new Map<number, () => void>(), dead: false }));

const DEATH = new Error('died');

vi.mock('node:fs', async (importOriginal) => {
  const real = await importOriginal<typeof import('node:fs')>();
  const watched = <Call extends (...args: never[]) => unknown>(call: Call): Call =>
    ((...args: Parameters<Call>) => {
      if (/^\/(proc|etc)/.test(String(args[0]))) return call(...args);
      const action = moments.at.get(moments.count);
      moments.at.delete(moments.count);
      moments.count += 1;
      action?.();
      if (moments.dead) throw DEATH;
      return call(...args);
    }) as Call;
  return {
    ...real,
    fsyncSync: () => undefined,
    linkSync: watched(real.linkSync),
    unlinkSync: watched(real.unlinkSync),
    openSync: watched(real.openSync),
    writeSync: watched(real.writeSync),
    readFileSync: watched(real.readFileSync as (...args: never[]) => unknown),
    readdirSync: watched(real.readdirSync as (...args: never[]) => unknown),
  };
});

beforeEach(() => {
  moments.at.clear();
  moments.dead = false;
  // Nobody else gets on while this process waits.
  vi.spyOn(Atomics, 'wait').mockReturnValue('timed-out');
});

/** Far more than one takeover calls; a moment that is never reached leaves its action in the map. */
const CALLS_MAX = 60;

const deadOwner = (): string => JSON.stringify({ ...ownerHere('dd'.repeat(8), 'owner-file'), startTicks: '1' });

/** A lock whose owner is dead. */
const staleLock = async (): Promise<TemporaryDirectory & { readonly lock: string }> => {
  const temporary = await temporaryDirectory();
  const lock = temporary.path('lock');
  writeFileSync(ownerPathOf(lock), deadOwner());
  return { ...temporary, lock };
};

/** The lock, or null where it was refused because somebody has it. */
const tryAcquire = (path: string): FileLock | null => {
  try {
    return acquireFileLock(path);
  } catch (error) {
    if (error instanceof TwinvolError && error.code === 'STORE_LOCKED') return null;
    throw error;
  }
};

const countFrom = (actions: ReadonlyArray<readonly [number, () => void]>): void => {
  moments.at.clear();
  for (const [call, action] of actions) moments.at.set(call, action);
  moments.count = 0;
};

/** What a process leaves that dies here: everything that it made names a dead owner. */
const killAll = (root: string): void => {
  for (const name of readdirSync(root)) {
    const path = `${root}/${name}`;
    const text = readFileSync(path, 'utf8');
    if (text !== '') writeFileSync(path, JSON.stringify({ ...(JSON.parse(text) as object), startTicks: '1' }));
  }
};

describe('taking over from a dead owner', () => {
  it('another contender, before any call: one of them has the lock', async () => {
    for (let call = 0; call < CALLS_MAX; call++) {
      await using stale = await staleLock();
      let other: FileLock | null = null;
      countFrom([[call, () => (other = tryAcquire(stale.lock))]]);
      const own = tryAcquire(stale.lock);
      const past = moments.at.has(call);
      countFrom([]);
      if (past) return expect(call).toBeGreaterThan(8);
      expect(
        [own, other].filter((lock) => lock !== null),
        `before call ${call}`,
      ).toHaveLength(1);
    }
    throw new Error('the takeover never ended');
  });

  it('two other contenders, before any two calls, the first releasing before the second comes: never two owners', async () => {
    for (let first = 0; first < 16; first++) {
      for (let second = first + 1; second < first + 16; second++) {
        await using stale = await staleLock();
        let last: FileLock | null = null;
        const actions: Array<readonly [number, () => void]> = [
          [first, () => tryAcquire(stale.lock)?.release()],
          [second, () => (last = tryAcquire(stale.lock))],
        ];
        countFrom(actions);
        const own = tryAcquire(stale.lock);
        countFrom([]);
        expect([own, last].filter((lock) => lock !== null).length, `before calls ${first} and ${second}`).toBeLessThanOrEqual(1);
      }
    }
  });

  it('a contender that dies before any call keeps nobody out', async () => {
    for (let call = 0; call < CALLS_MAX; call++) {
      await using stale = await staleLock();
      countFrom([[call, () => (moments.dead = true)]]);
      let died = false;
      try {
        acquireFileLock(stale.lock);
      } catch (error) {
        if (error !== DEATH && (error as Error).cause !== DEATH) throw error;
        died = true;
      }
      moments.dead = false;
      countFrom([]);
      if (!died) return expect(call).toBeGreaterThan(8);
      killAll(stale.root);
      expect(tryAcquire(stale.lock), `died before call ${call}`).not.toBeNull();
    }
    throw new Error('the takeover never ended');
  });
});
