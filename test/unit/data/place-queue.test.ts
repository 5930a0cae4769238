/** Places: no more at once than there are, the next one in turn, and who gives up gets none. */
import { describe, expect, it } from 'vitest';
import { PlaceQueue } from '../../../src/data/place-queue.ts';

describe('a queue for places', () => {
  it('gives each place to one at a time, in the order of asking', async () => {
    const queue = new PlaceQueue([7, 8]);
    const order: number[] = [];
    const [one, two, three, four] = [queue.take(), queue.take(), queue.take(), queue.take()];
    expect([await one?.place, await two?.place]).toEqual([7, 8]);
    void three?.place.then((place) => order.push(30 + (place ?? 0)));
    void four?.place.then((place) => order.push(40 + (place ?? 0)));
    await Promise.resolve();
    expect(order).toEqual([]);
    queue.give(8);
    queue.give(7);
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([38, 47]);
  });

  it('lets those that wait give up, and not those that have a place', async () => {
    const queue = new PlaceQueue([1]);
    const [one, two, three] = [queue.take(), queue.take(), queue.take()];
    two?.cancel();
    two?.cancel();
    expect(await two?.place).toBeNull();
    one?.cancel();
    queue.give((await one?.place) as number);
    expect(await three?.place).toBe(1);
    queue.give(1);
    expect(await queue.take().place).toBe(1);
  });
});
