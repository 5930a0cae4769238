/** Commands on the same objects go one after the other, and never wait for each other in a circle. */
import { expect, it } from 'vitest';
import { ObjectLocks } from '../../../src/engine/object-locks.ts';

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

it('runs commands on different objects side by side and on the same one in order', async () => {
  const locks = new ObjectLocks();
  const seen: string[] = [];
  const work = (name: string, ms: number) => async (): Promise<void> => {
    seen.push(`${name} in`);
    await later(ms);
    seen.push(`${name} out`);
  };
  await Promise.all([
    locks.run(['volume:1'], 'a', work('a', 20)),
    locks.run(['volume:1', 'volume:2'], 'b', work('b', 5)),
    locks.run(['volume:3'], 'c', work('c', 1)),
    // Comes after b, and b waits for volume 2 as well: it must not overtake.
    locks.run(['volume:2'], 'd', work('d', 1)),
  ]);
  expect(seen).toEqual(['a in', 'c in', 'c out', 'a out', 'b in', 'b out', 'd in', 'd out']);
});

it('two commands that want the same two objects in opposite order both get through', async () => {
  const locks = new ObjectLocks(1000);
  const order: string[] = [];
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      locks.run(index % 2 === 0 ? ['volume:1', 'volume:2'] : ['volume:2', 'volume:1'], `c${index}`, async () => {
        await later(1);
        order.push(`c${index}`);
      }),
    ),
  );
  expect(order).toEqual(Array.from({ length: 20 }, (_, index) => `c${index}`));
});

it('gives up after the bound, names the holder, and lets the next ones through', async () => {
  const locks = new ObjectLocks(20);
  const slow = locks.run(['volume:1'], 'pair resync db', () => later(60));
  const waiting = locks.run(['volume:1', 'volume:2'], 'pair split db', () => later(0));
  const behind = locks.runUnbounded(['volume:2'], 'copy done', async () => 'through');
  await expect(waiting).rejects.toMatchObject({ code: 'VOLUME_HELD', message: expect.stringContaining('held by pair resync db') });
  await expect(behind).resolves.toBe('through');
  await slow;
  expect(locks.holderOf('volume:1')).toBeNull();
});

it('frees its objects when the command fails', async () => {
  const locks = new ObjectLocks();
  await expect(locks.run(['pair:1'], 'x', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  await expect(locks.run(['pair:1'], 'y', async () => 1)).resolves.toBe(1);
});
