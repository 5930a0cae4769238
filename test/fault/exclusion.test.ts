/**
 * The copy runs under full host load and the legs are equal at the end, whatever the overlaps; and this test can tell:
 * with the exclusion between copy and write taken out, or the one between overlapping writes, it finds a difference.
 *
 * Threads write by the real write path on real files, around the copy pointer and to a few hot places, in pieces that
 * overlap; the copy and its helper are the real ones. At many closed gates clean regions are compared, so that a difference is seen also
 * where a later write would have covered it.
 */
import { describe, expect, it } from 'vitest';
import { MODE, PAIR } from '../../src/data/shared-memory.ts';
import { legPair, legStore } from '../support/plane-legs.ts';
import { later, PlaneLoad } from '../support/plane-load.ts';
import type { LockKind } from '../support/plane-thread.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const REGIONS = 16;
/** How long a run without exclusion may take to be found out. Measured: it takes less than a second. */
const MUTANT_MS = 15_000;

type Findings = {
  readonly unequal: number;
  readonly comparisons: number;
  readonly copies: number;
  readonly writes: number;
  readonly helpedBytes: number;
};

/** Copies again and again while threads write, until something differs or `rounds` copies have ended. */
const copyUnderLoad = async (options: {
  copy: LockKind;
  writers: LockKind;
  rounds: number;
  deadlineMs: number;
  dirtyRegionBytes: number;
  zerosEvery: number;
}): Promise<Findings> => {
  await using temporary = await temporaryDirectory();
  const load = new PlaneLoad(legPair(legStore(temporary.root), REGIONS, { dirtyRegionBytes: options.dirtyRegionBytes }));
  const deadline = performance.now() + options.deadlineMs;
  let unequal = 0;
  let comparisons = 0;
  let copies = 0;
  let writes = 0;
  try {
    await load.switch('copying', 'all');
    const common = { locks: options.writers, zerosEvery: options.zerosEvery };
    await load.write(1, { where: 'pointer', lengthMax: 96 * 1024, ...common });
    await load.write(2, { where: 'pointer', lengthMax: 1024 * 1024, ...common });
    await load.write(3, { where: 'hot', ...common });
    while (copies < options.rounds && unequal === 0 && performance.now() < deadline) {
      let isCopying = true;
      const copy = load.copy(options.copy).finally(() => {
        isCopying = false;
      });
      while (isCopying && unequal === 0) {
        unequal += (await load.unequal()).length;
        comparisons += 1;
        await later(10);
      }
      load.stopCopy();
      expect((await copy).end).not.toBe('failed');
      unequal += (await load.unequal()).length;
      copies += 1;
      if (unequal === 0) await load.switch('copying', 'all');
    }
    if (unequal > 0) return { unequal, comparisons, copies, writes, helpedBytes: load.helpedBytes };
    // The last copy, and then the pair mirrors.
    expect((await load.copy(options.copy)).end).toBe('done');
    expect(await load.switch('mirroring', 'keep', true)).toBe(true);
    await later(100);
    const results = await load.stopWriters();
    writes = results.reduce((sum, { rounds }) => sum + rounds, 0);
    expect(results.flatMap(({ codes }) => codes)).toEqual([]);
    unequal += (await load.unequal('all')).length;
    return { unequal, comparisons, copies, writes, helpedBytes: load.helpedBytes };
  } finally {
    await load.close();
  }
};

/** Overlapping writes of several threads to a mirrored pair, compared at closed gates. */
const overlap = async (writers: LockKind, comparisonsMax: number, deadlineMs: number): Promise<Findings> => {
  await using temporary = await temporaryDirectory();
  const load = new PlaneLoad(legPair(legStore(temporary.root), REGIONS));
  const deadline = performance.now() + deadlineMs;
  let unequal = 0;
  let comparisons = 0;
  try {
    await load.switch('mirroring', 'clear');
    for (const slot of [1, 2, 3, 4]) await load.write(slot, { where: 'hot', locks: writers, zerosEvery: slot === 4 ? 10 : 0 });
    while (unequal === 0 && comparisons < comparisonsMax && performance.now() < deadline) {
      await later(15);
      unequal += (await load.unequal()).length;
      comparisons += 1;
    }
    const results = await load.stopWriters();
    unequal += (await load.unequal('all')).length;
    return { unequal, comparisons, copies: 0, helpedBytes: 0, writes: results.reduce((sum, { rounds }) => sum + rounds, 0) };
  } finally {
    await load.close();
  }
};

describe('a copy under full host load', () => {
  it.each([4 * 1024, 64 * 1024, 1024 * 1024])('leaves both legs equal, with dirty regions of %i bytes', async (dirtyRegionBytes) => {
    const found = await copyUnderLoad({ copy: 'real', writers: 'real', rounds: 3, deadlineMs: 8000, dirtyRegionBytes, zerosEvery: 25 });
    expect(found.unequal).toBe(0);
    expect(found.copies).toBeGreaterThan(0);
    expect(found.helpedBytes).toBeGreaterThan(0);
    expect(found.comparisons).toBeGreaterThan(3);
    expect(found.writes).toBeGreaterThan(100);
  });

  it('does not, if the copy takes no range lock: the test sees it', async () => {
    const found = await copyUnderLoad({
      copy: 'none',
      writers: 'real',
      rounds: 1000,
      deadlineMs: MUTANT_MS,
      dirtyRegionBytes: 64 * 1024,
      zerosEvery: 0,
    });
    expect(found.unequal).toBeGreaterThan(0);
  });
});

/** A follower fails in the middle of a copy: the pair tracks at once, while the copy is still in a step. */
const failDuringCopy = async (isAnnounced: boolean, trials: number, deadlineMs: number): Promise<number> => {
  await using temporary = await temporaryDirectory();
  const load = new PlaneLoad(legPair(legStore(temporary.root), REGIONS));
  const { words } = load.legs.pair.block;
  const deadline = performance.now() + deadlineMs;
  let unequal = 0;
  try {
    await load.switch('copying', 'all');
    await load.write(1, { where: 'pointer', lengthMax: 32 * 1024 });
    await load.write(2, { where: 'pointer', lengthMax: 32 * 1024 });
    for (let trial = 0; trial < trials && unequal === 0 && performance.now() < deadline; trial += 1) {
      await load.switch('copying', 'all');
      const copy = load.copy();
      if (!isAnnounced) Atomics.store(words, PAIR.COPY_ACTIVE, 0);
      while (Atomics.load(words, PAIR.POINTER) < 20 + (trial % 100)) await later(0);
      // What a lane does whose write to the secondary failed: no gate is closed for it.
      Atomics.store(words, PAIR.MODE, MODE.tracking);
      expect((await copy).end).not.toBe('failed');
      unequal += (await load.unequal()).length;
    }
    return unequal;
  } finally {
    await load.close();
  }
};

describe('a follower that fails in the middle of a copy', () => {
  it("leaves no region clean that differs: writes keep out of the copy's last step", async () => {
    expect(await failDuringCopy(true, 60, 6000)).toBe(0);
  });

  it('would, if writes took no lock as soon as the pair tracks: the test sees it', async () => {
    expect(await failDuringCopy(false, 100_000, MUTANT_MS)).toBeGreaterThan(0);
  });
});

describe('overlapping writes to a mirrored pair', () => {
  it('reach both legs in one order', async () => {
    const found = await overlap('real', 80, 8000);
    expect(found.unequal).toBe(0);
    expect(found.comparisons).toBeGreaterThan(10);
    expect(found.writes).toBeGreaterThan(1000);
  });

  it('do not, if writes take no range lock: the test sees it', async () => {
    expect((await overlap('none', 100_000, MUTANT_MS)).unequal).toBeGreaterThan(0);
  });
});
