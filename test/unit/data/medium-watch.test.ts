/** When a medium counts as slow, and when no longer. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import { MediumWatch, READS, turnUsMax, WRITES } from '../../../src/data/medium-watch.ts';

const times = (count: number, call: () => void): void => {
  for (let done = 0; done < count; done += 1) call();
};

describe('a medium', () => {
  it('is slow after some calls that take long, and quick again after a row of quick ones', () => {
    const watch = new MediumWatch(READS);
    times(4, () => watch.called(3000, 4096));
    expect(watch.isSlow).toBe(false);
    times(2, () => watch.called(3000, 4096));
    expect(watch.isSlow).toBe(true);
    times(100, () => watch.calledAside(3000, 4096));
    times(20, () => watch.calledAside(10, 4096));
    expect(watch.isSlow).toBe(true);
    times(20, () => watch.calledAside(10, 4096));
    expect([watch.isSlow, watch.isTimed]).toEqual([false, true]);
  });

  it('is slow when most reads miss the cache of a good disk, and not when a few of a hundred do', () => {
    const missing = new MediumWatch(READS);
    times(20, () => missing.called(250, 4 * KiB));
    expect(missing.isSlow).toBe(true);
    const cached = new MediumWatch(READS);
    times(200, () => {
      times(3, () => cached.called(250, 4 * KiB));
      times(97, () => cached.called(4, 4 * KiB));
    });
    expect(cached.isSlow).toBe(false);
  });

  it('is not slow because a thread lost its processor now and then, nor because a call is long for its length', () => {
    const watch = new MediumWatch(READS);
    times(100, () => {
      watch.called(12_000, 4 * KiB);
      times(20, () => watch.called(4, 4 * KiB));
    });
    expect(watch.isSlow).toBe(false);
    times(100, () => {
      watch.called(900, MiB);
      watch.called(5000, MiB);
    });
    expect(watch.isSlow).toBe(false);
  });

  it('is slow for writes only when most of them take long: they also wait for each other', () => {
    const beside = new MediumWatch(WRITES);
    times(100, () => {
      beside.called(400, 4 * KiB);
      beside.called(4000, 4 * KiB);
    });
    expect(beside.isSlow).toBe(false);
    const slow = new MediumWatch(WRITES);
    times(6, () => slow.called(3000, 4 * KiB));
    expect(slow.isSlow).toBe(true);
    times(14, () => slow.calledAside(30, 4 * KiB));
    expect(slow.isSlow).toBe(false);
  });

  it('is timed for a while after a turn that took long', () => {
    const watch = new MediumWatch(READS);
    expect(watch.isTimed).toBe(false);
    watch.suspect();
    times(255, () => watch.called(4, 4 * KiB));
    expect(watch.isTimed).toBe(true);
    watch.called(4, 4 * KiB);
    expect(watch.isTimed).toBe(false);
    expect([turnUsMax(4096), turnUsMax(MiB)]).toEqual([250 + 4096 / 300, 250 + MiB / 300]);
  });
});
