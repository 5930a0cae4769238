/** What the lead of a copy takes as durable. Its steps are in copy-helper.test.ts and test/property/write-path.test.ts. */
import fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countSet } from '../../../src/core/dirty-bitmap.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { CopyTask } from '../../../src/data/copy-task.ts';
import { deviceBlock, SLOT_COPY_FIRST } from '../../../src/data/shared-memory.ts';
import { SyncFailures } from '../../../src/data/sync-failures.ts';
import { type WorkerPair, WritePath } from '../../../src/data/write-path.ts';
import { pageOffset } from '../../../src/wire/bitmap-page.ts';
import { type LegPair, legPair, legStore, workerPair } from '../../support/plane-legs.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const MIBS = 8;
const REGIONS: number = (MIBS * MiB) / (64 * KiB);

let temporary: TemporaryDirectory;
let legs: LegPair;
let pair: WorkerPair;
let device: Int32Array;

beforeEach(async () => {
  temporary = await temporaryDirectory();
  legs = legPair(legStore(temporary.root), MIBS);
  pair = workerPair(legs);
  device = deviceBlock();
  for (let at = 0; at < MIBS; at += 1) pair.primary.leg.write(Buffer.alloc(MiB, at + 1), 0, at * MiB, MiB);
  legs.pair.apply('copying', 'all');
  legs.pair.primaryFile.writeBits(pair.block.primary, 0, REGIONS);
});

afterEach(async () => {
  legs.close();
  await temporary[Symbol.asyncDispose]();
});

const lead = (): CopyTask =>
  new CopyTask(pair, legs.pair.primaryFile, {
    device,
    slot: SLOT_COPY_FIRST,
    path: new WritePath(device, SLOT_COPY_FIRST, () => {}),
    survivesPowerLoss: () => true,
  });

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
const failSync = (): void => new SyncFailures(device).count(pair.secondary.leg.pvs[0] as number);

describe('the lead of a copy', () => {
  it('counts what a lead before it copied and did not sync as lost when a sync fails', async () => {
    await dieAfter(4);
    expect(countSet(pair.block.primary)).toBe(REGIONS / 2);
    let hasFailed = false;
    const end = await lead().run(() => {
      if (!hasFailed) failSync();
      hasFailed = true;
    });
    expect(end).toEqual({ end: 'failed', leg: 'target', code: 'EIO' });
    expect(countSet(pair.block.primary)).toBe(REGIONS);
  });

  it.each([
    ['damaged', (): number => fs.writeSync(legs.pair.primaryFile.fd, Buffer.alloc(64, 0xff), 0, 64, pageOffset(0))],
    ['as it should be', (): number => 0],
  ])('copies what is dirty and no more, with a bitmap file that is %s', async (_, spoil) => {
    await dieAfter(4);
    spoil();
    expect(await lead().run(() => {})).toEqual({ end: 'done' });
    expect(countSet(pair.block.primary)).toBe(0);
    expect(legs.pair.copiedBytes()).toBe(MIBS * MiB);
    expect(legs.pair.primaryFile.holds(pair.block.primary)).toBe(true);
  });
});
