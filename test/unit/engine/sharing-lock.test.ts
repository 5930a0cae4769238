/** Sharers run side by side, the one alone waits for those before it, and nobody overtakes it. */
import { expect, it } from 'vitest';
import { SharingLock } from '../../../src/engine/sharing-lock.ts';

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

it('keeps the order of arrival between sharers and those alone', async () => {
  const lock = new SharingLock();
  const seen: string[] = [];
  const share = (name: string) =>
    lock.shared(async () => {
      seen.push(`${name} in`);
      await later(5);
      seen.push(`${name} out`);
    });
  const first = share('a');
  const second = share('b');
  const alone = lock.alone().then(async (release) => {
    seen.push('alone in');
    await later(5);
    seen.push('alone out');
    release();
  });
  const third = share('c');
  await Promise.all([first, second, alone, third]);
  expect(seen).toEqual(['a in', 'b in', 'a out', 'b out', 'alone in', 'alone out', 'c in', 'c out']);
});

it('goes on after a sharer has failed, and hands its error to its caller only', async () => {
  const lock = new SharingLock();
  await expect(lock.shared(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  const release = await lock.alone();
  release();
  await expect(lock.shared(async () => 7)).resolves.toBe(7);
});
