/** What the lead of a copy takes as durable. Its steps are in copy-helper.test.ts and test/property/write-path.test.ts. */
import fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countSet } from '../../../src/core/dirty-bitmap.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import type { CopyTask } from '../../../src/data/copy-task.ts';
import { SyncFailures } from '../../../src/data/sync-failures.ts';
import { pageOffset } from '../../../src/wire/bitmap-page.ts';
import { type CopyRig, copyRig } from '../../support/copy-rig.ts';

const MIBS = 8;
const REGIONS: number = (MIBS * MiB) / (64 * KiB);

let rig: CopyRig;

beforeEach(async () => {
  rig = await copyRig(MIBS);
  rig.legs.pair.primaryFile.writeBits(rig.pair.block.primary, 0, REGIONS);
});

afterEach(() => rig[Symbol.asyncDispose]());

const lead = (): CopyTask => rig.lead(true);

/** A lead that dies after so many steps: without a sync, and without a word in the bitmap's file. */
const dieAfter = async (steps: number): Promise<void> => {
  let done = 0;
  const work = lead().run(() => {
    if (done === steps) throw new Error('dies');
    done += 1;
  });
  await expect(work).rejects.toThrow('dies');
};
/** Somebody else's sync of the follower fails, behind the back of the one that copies. */
const failSync = (): void => new SyncFailures(rig.device).count(rig.pair.secondary.leg.pvs[0] as number);

describe('the lead of a copy', () => {
  it('counts what a lead before it copied and did not sync as lost when a sync fails', async () => {
    await dieAfter(4);
    expect(countSet(rig.pair.block.primary)).toBe(REGIONS / 2);
    let hasFailed = false;
    const end = await lead().run(() => {
      if (!hasFailed) failSync();
      hasFailed = true;
    });
    expect(end).toEqual({ end: 'failed', leg: 'target', code: 'EIO' });
    expect(countSet(rig.pair.block.primary)).toBe(REGIONS);
  });

  it('copies again what a lead before it copied when a sync failed in between, of which that one heard nothing', async () => {
    await dieAfter(4);
    failSync();
    expect(await lead().run(() => {})).toEqual({ end: 'done' });
    expect(rig.legs.pair.copiedBytes()).toBe((4 + MIBS) * MiB);
    expect(countSet(rig.pair.block.primary)).toBe(0);
    // Once.
    const before = rig.legs.pair.copiedBytes();
    expect(await lead().run(() => {})).toEqual({ end: 'done' });
    expect(rig.legs.pair.copiedBytes()).toBe(before);
  });

  it.each([
    ['damaged', (): number => fs.writeSync(rig.legs.pair.primaryFile.fd, Buffer.alloc(64, 0xff), 0, 64, pageOffset(0))],
    ['as it should be', (): number => 0],
  ])('copies what is dirty and no more, with a bitmap file that is %s', async (_, spoil) => {
    await dieAfter(4);
    spoil();
    expect(await lead().run(() => {})).toEqual({ end: 'done' });
    expect(countSet(rig.pair.block.primary)).toBe(0);
    expect(rig.legs.pair.copiedBytes()).toBe(MIBS * MiB);
    expect(rig.legs.pair.primaryFile.holds(rig.pair.block.primary)).toBe(true);
  });
});
