/**
 * The helper of a copy: takes part of its steps while hosts are quiet, and is never needed. Beside a lead, in threads of their own,
 * it is in test/fault/exclusion.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countSet, setRange } from '../../../src/core/dirty-bitmap.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { CopyHelp } from '../../../src/data/copy-help.ts';
import { CopyHelper, type HelpResult } from '../../../src/data/copy-helper.ts';
import { DEVICE, MODE, PAIR, SLOT_COPY_HELPER } from '../../../src/data/shared-memory.ts';
import { type WorkerPair, WritePath } from '../../../src/data/write-path.ts';
import { type CopyRig, copyRig } from '../../support/copy-rig.ts';
import { type LegPair, legPair, legStore, unequalRegions, workerPair } from '../../support/plane-legs.ts';

const REGIONS = 24;

let rig: CopyRig;
let legs: LegPair;
let pair: WorkerPair;
let device: Int32Array;

beforeEach(async () => {
  rig = await copyRig(REGIONS);
  ({ legs, pair, device } = rig);
});

afterEach(() => rig[Symbol.asyncDispose]());

const helper = (): CopyHelper => new CopyHelper(pair, { device, path: new WritePath(device, SLOT_COPY_HELPER, () => {}) });
const tellEnd = (): number => Atomics.store(pair.block.words, PAIR.HELPER_END, 1);

describe('the helper of a copy', () => {
  it('takes every stretch that nobody has taken, and says what it copied', async () => {
    expect(await helper().run(() => {})).toEqual({ end: 'helped' });
    expect(countSet(pair.block.primary)).toBe(0);
    expect(unequalRegions(legs, 'all')).toEqual([]);
    expect(legs.pair.copiedBytes()).toBe(REGIONS * MiB);
  });

  it('leaves what it has not done to the lead when it is told to end', async () => {
    let steps = 0;
    await helper().run(() => {
      steps += 1;
      if (steps > 3) tellEnd();
    });
    expect(legs.pair.copiedBytes()).toBe(3 * MiB);
    expect(await rig.lead().run(() => {})).toEqual({ end: 'done' });
    expect(unequalRegions(legs, 'all')).toEqual([]);
    expect(legs.pair.copiedBytes()).toBe(REGIONS * MiB);
  });

  it('does nothing while a host is at work', async () => {
    let looks = 0;
    await helper().run(() => {
      looks += 1;
      Atomics.add(device, DEVICE.SLOT_FIRST + DEVICE.SLOT_WORDS + DEVICE.SLOT_REQUESTS, 1);
      if (looks === 6) tellEnd();
    });
    expect(legs.pair.copiedBytes()).toBe(0);
    expect(countSet(pair.block.primary)).toBe((REGIONS * MiB) / (64 * KiB));
  });

  it.each(['stop', 'mode'])('ends with the copy (%s)', async (what) => {
    if (what === 'stop') Atomics.store(pair.block.words, PAIR.COPY_STOP, 1);
    else Atomics.store(pair.block.words, PAIR.MODE, MODE.tracking);
    expect(await helper().run(() => {})).toEqual({ end: 'helped' });
    expect(legs.pair.copiedBytes()).toBe(0);
  });

  it('says which leg it could not read or write, and leaves the region dirty', async () => {
    pair.secondary.leg.write = function () {
      this.failure = 'ENOSPC';
      return false;
    };
    expect(await helper().run(() => {})).toEqual({ end: 'failed', leg: 'target', code: 'ENOSPC' });
    expect(countSet(pair.block.primary)).toBe((REGIONS * MiB) / (64 * KiB));
  });

  it('takes holes as the lead does: short ones, long ones, and those in the middle of a granule', async () => {
    for (const [from, to] of [
      [1, 3],
      [5, 15],
      [20.5, 20.75],
    ] as const)
      legs.legs.primary.clear(from * MiB, (to - from) * MiB);
    setRange(pair.block.primary, 0, pair.block.regions);
    await helper().run(() => {});
    expect(countSet(pair.block.primary)).toBe(0);
    expect(unequalRegions(legs, 'all')).toEqual([]);
  });
});

describe('a copy of the largest dirty regions', () => {
  it('locks no more at once than a holder of range locks has room for', async () => {
    const large = legPair(legStore(rig.path('large')), 200, { dirtyRegionBytes: 64 * MiB });
    try {
      const worker = workerPair(large);
      large.legs.primary.write(Buffer.alloc(MiB, 7), 0, 70 * MiB, MiB);
      large.pair.apply('copying', 'all');
      await new CopyHelper(worker, { device, path: new WritePath(device, SLOT_COPY_HELPER, () => {}) }).run(() => {});
      expect(countSet(worker.block.primary)).toBe(0);
      expect(unequalRegions(large, 'all')).toEqual([]);
    } finally {
      large.close();
    }
  });
});

describe("a copy's helper, as the main thread sees it", () => {
  const help = (run: () => Promise<HelpResult | null>): CopyHelp =>
    new CopyHelp(legs.pair, ({ queued }) => {
      queued(() => {});
      return run();
    });
  const { COPY_STOP } = PAIR;

  it('stops the copy when a leg fails it, and says so at its end', async () => {
    const failure: HelpResult = { end: 'failed', leg: 'source', code: 'EIO' };
    const made = help(() => Promise.resolve(failure));
    expect(await made.end()).toEqual(failure);
    expect(Atomics.load(pair.block.words, COPY_STOP)).toBe(1);
  });

  it.each([
    { how: 'ended', run: (): Promise<HelpResult | null> => Promise.resolve({ end: 'helped' }) },
    { how: 'was given up', run: (): Promise<HelpResult | null> => Promise.resolve(null) },
    { how: 'died', run: (): Promise<HelpResult | null> => Promise.reject(new Error('gone')) },
  ])('that $how stops nothing', async ({ run }) => {
    const made = help(run);
    expect(await made.end()).toBeNull();
    expect(Atomics.load(pair.block.words, COPY_STOP)).toBe(0);
    expect(Atomics.load(pair.block.words, PAIR.HELPER_END)).toBe(1);
  });
});
