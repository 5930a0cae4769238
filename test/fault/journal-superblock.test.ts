/**
 * Power loss and errors at any moment of the superblock's life: changes, changes that fail, repair, changes after a
 * repair. What must hold: one of the two copies is always whole, and it says what the last change said that came to
 * `whole` or `half`; a change under way, or one that came to `unknown`, may be in it or not.
 *
 * Run it: npx vitest run test/fault/journal-superblock.test.ts
 */
import { expect, test } from 'vitest';
import { readSuperblock, repairSuperblock, SuperblockKeeper, superblockFileBytes } from '../../src/store/superblock.ts';
import type { Superblock } from '../../src/wire/store-records.ts';
import { crashImages, marksUpTo, moments, randomFrom } from '../support/crash-images.ts';
import { type DiskImage, type FaultPlan, RecordedFiles } from '../support/recorded-files.ts';

const SUPERBLOCK: Superblock = {
  formatVersion: 1,
  uuid: '6a1f0c9e-0b57-4c1e-9f58-2f1d7b1f9c11',
  generation: 1,
  sequence: 1,
  regionBytes: 65_536,
  pvBytes: 65_536 * 16,
};
const FRESH: DiskImage = new Map([['/store/superblock', superblockFileBytes(SUPERBLOCK)]]);
const CHANGES = 3;
const options = {
  random: randomFrom(Number(process.env.TWINVOL_CRASH_SEED ?? 1)),
  samples: Number(process.env.TWINVOL_CRASH_SAMPLES ?? 10),
};

/** Opens as the store does, then changes the generation a few times; marks what came of each. */
const live = async (image: DiskImage, plan: FaultPlan = () => null): Promise<RecordedFiles> => {
  const files = new RecordedFiles(image);
  const state = await readSuperblock(files, '/store', 1);
  await repairSuperblock(files, '/store', state);
  const keeper = new SuperblockKeeper(files, '/store', state.superblock);
  files.failBy(plan);
  for (let change = 0; change < CHANGES; change += 1) {
    const generation = keeper.current.generation + 1;
    files.mark(`try ${generation}`);
    const { outcome } = await keeper.change({ generation });
    files.mark(`${outcome} ${generation}`);
    if (outcome === 'unknown') {
      // The store takes no change until this has succeeded.
      while (!(await keeper.confirm())) if (files.operations > 200) return files;
      files.mark(`kept ${generation}`);
      continue;
    }
    expect(keeper.current.generation).toBe(outcome === 'kept' ? generation - 1 : generation);
  }
  return files;
};

/** The generations that a crash after these marks may leave. */
const allowedAfter = (marks: readonly string[], first: number): number[] => {
  let allowed = [first];
  for (const mark of marks) {
    const [word, generation] = mark.split(' ') as [string, string];
    if (word === 'whole' || word === 'half') allowed = [Number(generation)];
    if (word === 'kept') allowed = [Number(generation) - 1];
    if (word === 'try') allowed = [Number(generation) - 1, Number(generation)];
  }
  return allowed;
};

const crashAll = async (
  files: RecordedFiles,
  first: number,
  each: (image: DiskImage, generation: number) => Promise<void>,
): Promise<void> => {
  for (const moment of moments(files.trace)) {
    const allowed = allowedAfter(marksUpTo(files.trace, moment), first);
    for (const image of crashImages(files.initial, files.trace, moment, options)) {
      const { superblock } = await readSuperblock(new RecordedFiles(image), '/store', 1);
      expect(allowed).toContain(superblock.generation);
      await each(image, superblock.generation);
    }
  }
};

const nothing = async (): Promise<void> => undefined;

test('[superblock-cut] a crash leaves the old or the new superblock, and so does a crash after the repair of that', async () => {
  let second = 0;
  await crashAll(await live(FRESH), 1, async (image, generation) => {
    await crashAll(await live(image), generation, async () => {
      second += 1;
    });
  });
  expect(second).toBeGreaterThan(1000);
});

test.each([1, 2, 3, 4, 5])('%i errors in a row, at any operation, leave what the outcome of the change says', async (times) => {
  const outcomes = new Set<string>();
  const operations = (await live(FRESH)).operations;
  for (let bad = 0; bad < operations; bad += 1) {
    const files = await live(FRESH, (_operation, count) => (count >= bad && count < bad + times ? 'EIO' : null));
    for (const mark of marksUpTo(files.trace, files.trace.length)) outcomes.add(mark.split(' ')[0] ?? '');
    await crashAll(files, 1, nothing);
  }
  expect([...outcomes]).toEqual(expect.arrayContaining(['whole', 'half', times === 1 ? 'kept' : 'unknown']));
});
