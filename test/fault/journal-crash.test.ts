/**
 * Power loss at any moment of the metadata's life: creation, commits, group commits, compaction, clean and unclean ends,
 * recovery itself, writes and flushes that fail.
 *
 * What must hold for every moment and every subset of what was not durable: the store opens (or, while it is being made,
 * is not there), the tables are sound, and they are the state after some prefix of the commits that contains every
 * acknowledged one. A store whose `start` has returned never calls itself cleanly shut down, until it is closed so.
 *
 * Run it: npx vitest run test/fault/journal-crash.test.ts
 * Every moment of the tests that else take one in EVERY, and more or other random choices (some minutes):
 * npm run harness:journal -- --seed 7 --samples 500
 */
import { describe, expect, test } from 'vitest';
import { TwinvolError } from '../../src/core/faults.ts';
import type { TableOp } from '../../src/core/rows.ts';
import { Tables } from '../../src/core/tables.ts';
import { MetadataLog } from '../../src/store/metadata-log.ts';
import { type CrashOptions, crashImages, marksUpTo, moments, randomFrom } from '../support/crash-images.ts';
import { type DiskImage, RecordedFiles, type TraceEvent } from '../support/recorded-files.ts';

const SAMPLES = Number(process.env.TWINVOL_CRASH_SAMPLES ?? 25);
const EVERY = Number(process.env.TWINVOL_CRASH_EVERY ?? 8);
const SEED = Number(process.env.TWINVOL_CRASH_SEED ?? 1);

/** One in EVERY of the moments, chosen at random, and the last one. */
const someMoments = (trace: readonly TraceEvent[], random: () => number): number[] =>
  moments(trace).filter((moment) => moment === trace.length || random() < 1 / EVERY);

const DIRECTORY = '/store';
const GEOMETRY = { uuid: '6a1f0c9e-0b57-4c1e-9f58-2f1d7b1f9c11', regionBytes: 1024 * 1024, pvBytes: 64 * 1024 * 1024 };

const volumePut = (number: number, attribute: 'normal' | 'secondary' = 'normal'): TableOp => ({
  op: 'volume-put',
  row: {
    number,
    name: `volume-${number}`,
    capacityBytes: 2 * 1024 * 1024,
    attribute,
    runs: [{ pv: 1, start: (number - 1) * 2, count: 2 }],
    isProtected: false,
    uuid: `uuid-${number}`,
    createdAtMs: 1_700_000_000_000,
  },
});

/** Commits, each of which depends on those before. The long name makes a record of several sectors. */
const COMMITS: ReadonlyArray<readonly TableOp[]> = [
  [{ op: 'pv-put', row: { number: 1, regions: 64 } }],
  [volumePut(1), volumePut(2, 'secondary')],
  [
    {
      op: 'pair-put',
      row: {
        id: 1,
        primary: 1,
        secondary: 2,
        state: 'duplex-pending',
        copy: 'initial',
        dirtyRegionBytes: 65_536,
        fence: 'never',
        pace: 8,
        reason: 'x'.repeat(1200),
        createdAtMs: 1,
        stateSinceMs: 1,
      },
    },
  ],
  [volumePut(3)],
  [
    { op: 'volume-delete', number: 3 },
    { op: 'scrub-put', id: 1, runs: [{ pv: 1, start: 4, count: 2 }] },
  ],
  [{ op: 'scrub-delete', id: 1 }],
  [{ op: 'pair-delete', id: 1 }],
];

/** The tables after each number of commits, as text. */
const STATES: readonly string[] = (() => {
  const tables = new Tables({ regionBytes: GEOMETRY.regionBytes });
  return [JSON.stringify(tables.snapshot()), ...COMMITS.map((ops) => (tables.apply(ops), JSON.stringify(tables.snapshot())))];
})();

const recover = async (
  image: DiskImage,
): Promise<{ readonly state: number; readonly wasClean: boolean; readonly files: RecordedFiles }> => {
  const files = new RecordedFiles(image);
  const log = await MetadataLog.start(files, DIRECTORY, await MetadataLog.read(files, DIRECTORY));
  const state = STATES.indexOf(JSON.stringify(log.tables.snapshot()));
  expect(log.tables.check()).toEqual([]);
  return { state, wasClean: log.wasCleanShutdown, files };
};

/** The store as `create` leaves it. */
const created = async (): Promise<DiskImage> => {
  const files = new RecordedFiles();
  await MetadataLog.create(files, DIRECTORY, GEOMETRY);
  return imageOf(files);
};

const imageOf = async (files: RecordedFiles): Promise<DiskImage> => {
  const names = await files.list(DIRECTORY);
  return new Map(
    await Promise.all(
      names.map(async (name) => [`${DIRECTORY}/${name}`, (await files.readFile(`${DIRECTORY}/${name}`)) as Buffer] as const),
    ),
  );
};

const committed = (marks: readonly string[]): number => marks.filter((mark) => mark.startsWith('acknowledged')).length;

/** Runs `work` on the files of `image`, then crashes it everywhere. Returns how many images were recovered. */
const crashEverywhere = async (
  image: DiskImage,
  work: (files: RecordedFiles) => Promise<void>,
  check: (crashed: DiskImage, marks: readonly string[]) => Promise<void>,
  options: CrashOptions,
): Promise<number> => {
  const files = new RecordedFiles(image);
  await work(files);
  let count = 0;
  for (const moment of moments(files.trace)) {
    const marks = marksUpTo(files.trace, moment);
    for (const crashed of crashImages(files.initial, files.trace, moment, options)) {
      await check(crashed, marks);
      count += 1;
    }
  }
  return count;
};

const options = (seed: number = SEED): CrashOptions => ({ random: randomFrom(seed), samples: SAMPLES });

/** Opens and commits all; `together`: without waiting in between, so that they share frames. */
const commitAll =
  (settings: { readonly together: boolean; readonly compactBytesMin?: number; readonly clean?: boolean }) =>
  async (files: RecordedFiles): Promise<void> => {
    const { compactBytesMin } = settings;
    const log = await MetadataLog.start(
      files,
      DIRECTORY,
      await MetadataLog.read(files, DIRECTORY),
      compactBytesMin === undefined ? {} : { compactBytesMin },
    );
    files.mark('started');
    const all: Array<Promise<void>> = [];
    for (const [index, ops] of COMMITS.entries()) {
      const done = log.commit(ops).then(() => files.mark(`acknowledged ${index}`));
      all.push(done);
      if (!settings.together) await done;
    }
    await Promise.all(all);
    files.mark('closing');
    await log.close({ clean: settings.clean ?? false });
    files.mark('closed');
  };

const checkPrefix = async (crashed: DiskImage, marks: readonly string[]): Promise<void> => {
  const { state, wasClean } = await recover(crashed);
  expect(state, `recovered to no known state after: ${marks.join(', ')}`).toBeGreaterThanOrEqual(committed(marks));
  if (marks.includes('started') && !marks.includes('closing')) expect(wasClean).toBe(false);
  if (wasClean && marks.includes('closing')) expect(state).toBe(COMMITS.length);
};

describe('a power loss', () => {
  test('while the store is made leaves no store, or a whole one that is empty', async () => {
    const count = await crashEverywhere(
      new Map(),
      async (files) => {
        await MetadataLog.create(files, DIRECTORY, GEOMETRY);
        files.mark('created');
      },
      async (crashed, marks) => {
        try {
          expect((await recover(crashed)).state).toBe(0);
        } catch (error) {
          expect((error as TwinvolError).code).toBe('STORE_MISSING');
          expect(marks).not.toContain('created');
        }
      },
      options(),
    );
    expect(count).toBeGreaterThan(20);
  });

  test('[metadata-cut] at any moment of single commits keeps every acknowledged one, in order', async () => {
    const count = await crashEverywhere(await created(), commitAll({ together: false, clean: true }), checkPrefix, options());
    expect(count).toBeGreaterThan(50);
  });

  test('at any moment of a group commit keeps every acknowledged one, in order', async () => {
    await crashEverywhere(await created(), commitAll({ together: true }), checkPrefix, options());
  });

  test('at any moment of a compaction finds the old journal or the new one', async () => {
    const count = await crashEverywhere(await created(), commitAll({ together: false, compactBytesMin: 1500 }), checkPrefix, options());
    expect(count).toBeGreaterThan(300);
  });

  test('on a medium that lies about what is durable is noticed by this test', async () => {
    const files = new RecordedFiles(await created(), { isLiar: true });
    await commitAll({ together: false })(files);
    const end = files.trace.length;
    const lost: number[] = [];
    for (const crashed of crashImages(files.initial, files.trace, end, options())) {
      lost.push(
        await recover(crashed).then(
          ({ state }) => state,
          () => -1,
        ),
      );
    }
    expect(Math.min(...lost)).toBeLessThan(COMMITS.length);
  });

  test('after a clean shutdown tells the next owner so, once', async () => {
    const files = new RecordedFiles(await created());
    await commitAll({ together: false, clean: true })(files);
    const image = await imageOf(files);
    expect(await recover(image)).toMatchObject({ state: COMMITS.length, wasClean: true });
    const next = await recover(image);
    expect((await recover(await imageOf(next.files))).wasClean).toBe(false);
  });

  test('during the recovery from a power loss loses nothing either', async () => {
    const random = randomFrom(SEED);
    const files = new RecordedFiles(await created());
    await commitAll({ together: false, compactBytesMin: 1500 })(files);
    let count = 0;
    for (const moment of moments(files.trace)) {
      const acknowledged = committed(marksUpTo(files.trace, moment));
      const images = [...crashImages(files.initial, files.trace, moment, { random, samples: 2 })];
      const image = images[Math.floor(random() * images.length)] as DiskImage;
      const first = await recover(image);
      expect(first.state).toBeGreaterThanOrEqual(acknowledged);
      for (const inner of moments(first.files.trace)) {
        for (const again of crashImages(first.files.initial, first.files.trace, inner, { random, samples: 2 })) {
          expect((await recover(again)).state).toBe(first.state);
          count += 1;
        }
      }
    }
    expect(count).toBeGreaterThan(100);
  });
});

describe('a second life', () => {
  test('after a power loss, with commits and compactions of its own, is as safe as the first', async () => {
    const random = randomFrom(SEED);
    const files = new RecordedFiles(await created());
    await commitAll({ together: false, compactBytesMin: 1500 })(files);
    let count = 0;
    for (const moment of someMoments(files.trace, random)) {
      const images = [...crashImages(files.initial, files.trace, moment, { random, samples: 2 })];
      // The last one has lost, kept and torn something wherever that is possible.
      for (const image of new Set([images[Math.floor(random() * images.length)] as DiskImage, images.at(-1) as DiskImage])) {
        const { state } = await recover(image);
        count += await crashEverywhere(
          image,
          async (second) => {
            const log = await MetadataLog.start(second, DIRECTORY, await MetadataLog.read(second, DIRECTORY), { compactBytesMin: 1500 });
            for (const [index, ops] of COMMITS.entries()) {
              if (index < state) continue;
              await log.commit(ops);
              second.mark(`acknowledged ${index}`);
            }
          },
          async (crashed, marks) => expect((await recover(crashed)).state).toBeGreaterThanOrEqual(state + committed(marks)),
          { random, samples: 2 },
        );
      }
    }
    expect(count).toBeGreaterThan(500);
  });
});

/** Commits that do not depend on each other, so that those after a failed one still apply. */
const hostPut = (index: number): TableOp => ({
  op: 'host-put',
  row: { name: `host${String(index).padStart(2, '0')}`, tokenSha256: String(index % 10).repeat(64), grants: {}, createdAtMs: index },
});
const HOSTS = 9;

const hostsIn = async (image: DiskImage): Promise<number[]> => {
  const files = new RecordedFiles(image);
  const log = await MetadataLog.start(files, DIRECTORY, await MetadataLog.read(files, DIRECTORY));
  expect(log.tables.check()).toEqual([]);
  return log.tables.hosts().map(({ name }) => Number(name.slice(4)));
};

/** Commits one host after the other while operations fail by `plan`; marks what came of each. */
const commitHosts = async (files: RecordedFiles, compactBytesMin: number): Promise<MetadataLog> => {
  const log = await MetadataLog.start(files, DIRECTORY, await MetadataLog.read(files, DIRECTORY), { compactBytesMin });
  for (let index = 0; index < HOSTS; index += 1) {
    await log.commit([hostPut(index)]).then(
      () => files.mark(`acknowledged ${index}`),
      (error: unknown) => {
        expect(error).toBeInstanceOf(TwinvolError);
        expect(['STORE_FULL', 'STORE_IO']).toContain((error as TwinvolError).code);
        files.mark(log.failure === null ? `withdrawn ${index}` : `failed ${index}`);
      },
    );
  }
  return log;
};

const indexesOf = (marks: readonly string[], word: string): number[] =>
  marks.filter((mark) => mark.startsWith(word)).map((mark) => Number(mark.slice(word.length + 1)));

/**
 * All acknowledged commits are there. One that failed is not, ever; but one that was under way, or that broke the journal
 * for good, may be: nobody knows.
 */
const checkHosts = async (crashed: DiskImage, marks: readonly string[]): Promise<void> => {
  const acknowledged = indexesOf(marks, 'acknowledged');
  const last = acknowledged.at(-1) ?? -1;
  const found = await hostsIn(crashed);
  expect(found.filter((index) => index <= last)).toEqual(acknowledged);
  for (const index of indexesOf(marks, 'withdrawn')) expect(found).not.toContain(index);
  expect(found.filter((index) => index > last).length).toBeLessThanOrEqual(1);
};

describe.each([
  { what: 'a full file system', code: 'ENOSPC', times: 1 },
  { what: 'a medium error', code: 'EIO', times: 1 },
  { what: 'a medium error that comes twice', code: 'EIO', times: 2 },
  { what: 'a medium that stays broken', code: 'EIO', times: Number.POSITIVE_INFINITY },
])('$what', ({ code, times }) => {
  test('at any operation: later commits work or are all refused, and a power loss keeps what was acknowledged', async () => {
    const image = await created();
    const dry = new RecordedFiles(image);
    await commitHosts(dry, 900);
    const random = randomFrom(SEED);
    for (let bad = 0; bad < dry.operations; bad += 1) {
      const files = new RecordedFiles(image);
      let failed = 0;
      files.failBy((_operation, count) => {
        if (count < bad || failed >= times) return null;
        failed += 1;
        return code;
      });
      const log = await commitHosts(files, 900).catch((error: unknown) => {
        // The very start may fail: then there is nothing to go on with.
        expect(['ENOSPC', 'EIO', 'STORE_FULL', 'STORE_IO']).toContain((error as { readonly code?: string }).code);
        return null;
      });
      const marks = marksUpTo(files.trace, files.trace.length);
      if (log !== null && times < HOSTS) expect(indexesOf(marks, 'acknowledged').length).toBeGreaterThanOrEqual(HOSTS - times);
      if (log !== null) expect(log.tables.hosts().map(({ name }) => Number(name.slice(4)))).toEqual(indexesOf(marks, 'acknowledged'));
      for (const moment of someMoments(files.trace, random)) {
        for (const crashed of crashImages(files.initial, files.trace, moment, { random, samples: 1 })) {
          await checkHosts(crashed, marksUpTo(files.trace, moment));
        }
      }
    }
  });
});
