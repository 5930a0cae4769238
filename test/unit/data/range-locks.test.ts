/** Range locks across real threads: nobody is let into a range twice, nobody waits for ever, a dead owner is forgotten. */
import { describe, expect, it } from 'vitest';
import { LOCK_GRANULE_BYTES } from '../../../src/core/units.ts';
import { RangeLocks } from '../../../src/data/range-locks.ts';
import { deviceBlock, LOCK_COUNT, LOCK_FIRST } from '../../../src/data/shared-memory.ts';
import { type LockKind, startThread } from '../../support/plane-thread.ts';

const contend = async (locks: LockKind, rounds: number): Promise<number> => {
  const device = deviceBlock().buffer as SharedArrayBuffer;
  const owners = new SharedArrayBuffer(48 * 4);
  const threads = [1, 2, 3].map((slot) =>
    startThread<{ readonly intruders: number }>({ kind: 'contend', slot, device, owners, rounds, granulesMax: 33, seed: slot, locks }),
  );
  const results = await Promise.all(threads.map(({ done }) => done));
  const held = new Int32Array(device).subarray(LOCK_FIRST, LOCK_FIRST + LOCK_COUNT).filter((word) => word !== 0).length;
  expect(held).toBe(0);
  return results.reduce((sum, { intruders }) => sum + intruders, 0);
};

describe('range locks', () => {
  it('let three threads into overlapping ranges one at a time, with no deadlock over many granules', async () => {
    expect(await contend('real', 3000)).toBe(0);
  });

  it('are needed: without them the same threads meet', async () => {
    let intruders = 0;
    // On a busy machine a thread may be done before the next one begins.
    for (let attempt = 0; attempt < 10 && intruders === 0; attempt += 1) intruders = await contend('none', 3000);
    expect(intruders).toBeGreaterThan(0);
  });

  it('take every granule of the largest request and of the largest dirty region, and give all of them back', () => {
    const device = deviceBlock();
    const locks = new RangeLocks(device, 1);
    const taken = (): number => device.subarray(LOCK_FIRST).filter((word) => word !== 0).length;
    for (const [offset, length] of [
      [0, 1],
      [LOCK_GRANULE_BYTES - 1, 2],
      [512, 32 * LOCK_GRANULE_BYTES],
      [0, 64 * LOCK_GRANULE_BYTES],
      [2 ** 48 - LOCK_GRANULE_BYTES, LOCK_GRANULE_BYTES],
    ] as const) {
      const granules = Math.floor((offset + length - 1) / LOCK_GRANULE_BYTES) - Math.floor(offset / LOCK_GRANULE_BYTES) + 1;
      locks.acquire(7, offset, length);
      expect(taken()).toBeGreaterThan(0);
      expect(taken()).toBeLessThanOrEqual(granules);
      locks.release();
      expect(taken()).toBe(0);
    }
  });

  it('of a thread that died are free again, those of others are not', async () => {
    const device = deviceBlock();
    const buffer = device.buffer as SharedArrayBuffer;
    const dead = startThread({ kind: 'hold', slot: 5, device: buffer, granules: 8, inGate: false, closesGate: false });
    await dead.said;
    await dead.terminate();
    const other = new RangeLocks(device, 2);
    other.acquire(9, 100 * LOCK_GRANULE_BYTES, LOCK_GRANULE_BYTES);
    RangeLocks.forget(device, 5);
    const third = new RangeLocks(device, 3);
    third.acquire(1, 0, 8 * LOCK_GRANULE_BYTES);
    third.release();
    expect(device.subarray(LOCK_FIRST).filter((word) => word !== 0)).toHaveLength(1);
    other.release();
  });
});
