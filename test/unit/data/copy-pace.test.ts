/** Pace: a copy rests only while hosts are at work, the longer the lower its pace, and a stop ends a rest. */
import { describe, expect, it } from 'vitest';
import { CopyPace } from '../../../src/data/copy-pace.ts';
import { DEVICE, deviceBlock, PAIR } from '../../../src/data/shared-memory.ts';

const setUp = (pace: number): { rest: (stepMs: number) => number; request: () => void; pair: Int32Array } => {
  const device = deviceBlock();
  const pair = new Int32Array(new SharedArrayBuffer(PAIR.HEADER_WORDS * 4));
  pair[PAIR.PACE] = pace;
  const copyPace = new CopyPace(device, pair);
  const rest = (stepMs: number): number => {
    const startedMs = performance.now();
    copyPace.rest(stepMs);
    return performance.now() - startedMs;
  };
  const word = DEVICE.SLOT_FIRST + 2 * DEVICE.SLOT_WORDS + DEVICE.SLOT_REQUESTS;
  return { rest, request: () => void Atomics.add(device, word, 1), pair };
};

describe('the pace of a copy', () => {
  it('takes no rest while no host is at work', () => {
    const { rest } = setUp(1);
    expect(rest(50)).toBeLessThan(50);
  });

  it('rests longer the lower it is, and never at 15', () => {
    const rests = [15, 8, 3].map((pace) => {
      const { rest, request } = setUp(pace);
      request();
      return rest(30);
    });
    // 0, 47 and 100 ms; a busy machine makes each longer, and none shorter.
    expect(rests[0]).toBeLessThan(25);
    expect(rests[1]).toBeGreaterThan(44);
    expect(rests[2]).toBeGreaterThan(95);
  });

  it('goes on giving way for a moment after the last request, and then no more', async () => {
    const { rest, request } = setUp(8);
    request();
    rest(1);
    expect(rest(60)).toBeGreaterThan(60);
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(rest(60)).toBeLessThan(50);
  });

  it('has a longest rest, takes odd paces for the nearest good one, and ends with a stop', () => {
    const slow = setUp(1);
    slow.request();
    expect(slow.rest(1000)).toBeLessThan(400);
    const odd = setUp(-3);
    odd.request();
    expect(odd.rest(2)).toBeGreaterThan(20);
    const stopped = setUp(1);
    stopped.request();
    stopped.pair[PAIR.COPY_STOP] = 1;
    expect(stopped.rest(1000)).toBeLessThan(80);
  });
});
