import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { RegionRun } from '../../../src/core/rows.ts';
import { realMetadataFiles } from '../../../src/platform/metadata-files.ts';
import { initStore } from '../../../src/store/init.ts';
import { openStore } from '../../../src/store/store.ts';
import { nextVolumePut, SMALL_PV_BYTES, SMALL_REGION_BYTES, smallVolumePut, testStore } from '../../support/open-stores.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const GEOMETRY = { regionBytes: SMALL_REGION_BYTES, pvBytes: SMALL_PV_BYTES };
const failsWith = (code: string, text = ''): unknown => expect.objectContaining({ code, message: expect.stringContaining(text) });

describe('init', () => {
  test('makes a store that only its owner can enter', async () => {
    await using store = await testStore();
    // The lock's files differ with and without fs-ext.
    const names = readdirSync(store.directory).filter((name) => !name.startsWith('lock'));
    expect(names.sort()).toEqual(['bitmaps', 'intents', 'journal.1', 'pv', 'superblock']);
    for (const name of ['', 'pv', 'bitmaps', 'intents']) expect(statSync(join(store.directory, name)).mode & 0o777).toBe(0o700);
    for (const name of ['superblock', 'journal.1']) expect(statSync(join(store.directory, name)).mode & 0o777).toBe(0o600);
  });

  test('refuses a directory that has something in it, and leaves it alone', async () => {
    await using temporary = await temporaryDirectory();
    writeFileSync(temporary.path('precious'), 'x');
    await expect(initStore(temporary.root)).rejects.toThrow(failsWith('STORE_EXISTS', '"precious"'));
    expect(readdirSync(temporary.root)).toEqual(['precious']);
  });

  test('refuses a directory that is a store already', async () => {
    await using store = await testStore();
    await expect(initStore(store.directory)).rejects.toThrow(failsWith('STORE_EXISTS', 'is a store already'));
  });

  test('can be repeated after it was cut off, as long as nothing else is there', async () => {
    await using store = await testStore();
    rmSync(join(store.directory, 'superblock'));
    writeFileSync(join(store.directory, 'superblock.new'), 'half');
    await initStore(store.directory, GEOMETRY);
    await expect(store.open()).resolves.toMatchObject({ wasCleanShutdown: true });
  });

  test('does not take a store without a superblock, but with physical volumes, for a cut-off init', async () => {
    await using store = await testStore();
    rmSync(join(store.directory, 'superblock'));
    writeFileSync(join(store.directory, 'pv', '00001.img'), 'data');
    await expect(initStore(store.directory, GEOMETRY)).rejects.toThrow(failsWith('STORE_EXISTS', 'pv/00001.img'));
  });

  test('takes the root of a new file system', async () => {
    await using temporary = await temporaryDirectory();
    mkdirSync(temporary.path('lost+found'));
    await initStore(temporary.root, GEOMETRY);
  });

  test.each([
    [{ regionBytes: 65_537 }, 'a region cannot be'],
    [{ regionBytes: 32_768 }, 'a region cannot be'],
    [{ regionBytes: 128 * 1024 * 1024 }, 'a region cannot be'],
    [{ pvBytes: 1024 * 1024 + 1 }, 'a physical volume cannot be'],
    [{ pvBytes: 1024 * 1024 }, 'a physical volume cannot be'],
    [{ pvBytes: 2 ** 50 }, 'a physical volume cannot be'],
  ])('refuses the geometry %j before it makes anything', async (options, text) => {
    await using temporary = await temporaryDirectory();
    await expect(initStore(temporary.path('new'), options)).rejects.toThrow(failsWith('USAGE', text));
    expect(readdirSync(temporary.root)).toEqual([]);
  });
});

describe('open', () => {
  test('refuses what is no store, and makes nothing there', async () => {
    await using temporary = await temporaryDirectory();
    await expect(openStore(temporary.root)).rejects.toThrow(failsWith('STORE_MISSING'));
    await expect(openStore(temporary.path('nothing'))).rejects.toThrow(failsWith('STORE_MISSING'));
    expect(readdirSync(temporary.root)).toEqual([]);
  });

  test('refuses a second owner with the pid of the first', async () => {
    await using store = await testStore();
    await store.open();
    await expect(openStore(store.directory)).rejects.toThrow(failsWith('STORE_LOCKED', String(process.pid)));
  });

  test('gives the lock back when it refuses the store', async () => {
    await using store = await testStore();
    const journal = join(store.directory, 'journal.1');
    const bytes = readFileSync(journal);
    rmSync(journal);
    await expect(store.open()).rejects.toThrow(failsWith('STORE_DAMAGED', 'journal.1'));
    writeFileSync(journal, bytes);
    await store.open();
  });

  test('tells a clean end from an unclean one', async () => {
    await using store = await testStore();
    const first = await store.open();
    expect(first.wasCleanShutdown).toBe(true);
    await first.close({ clean: false });
    const second = await store.open();
    expect(second.wasCleanShutdown).toBe(false);
    await second.close({ clean: true });
    expect((await store.open()).wasCleanShutdown).toBe(true);
  });

  test('for reading only writes nothing and refuses changes', async () => {
    await using store = await testStore();
    const files = (): Buffer[] => ['superblock', 'journal.1'].map((name) => readFileSync(join(store.directory, name)));
    const before = files();
    const opened = await store.open({ readOnly: true });
    expect(opened.wasCleanShutdown).toBe(true);
    await expect(opened.commit([])).rejects.toThrow(failsWith('READ_ONLY'));
    await expect(opened.addPvs(1)).rejects.toThrow(failsWith('READ_ONLY'));
    await opened.close({ clean: true });
    expect(files()).toEqual(before);
  });

  test('of 10,000 volumes takes well under 2 seconds', async () => {
    await using store = await testStore();
    const first = await store.open();
    await first.ensureUnassigned(10_000 * 16);
    const place = (number: number): RegionRun => ({ pv: Math.floor((number - 1) / 4) + 1, start: ((number - 1) % 4) * 16, count: 16 });
    const numbers = Array.from({ length: 10_000 }, (_, index) => index + 1);
    await first.commit(numbers.map((number) => smallVolumePut(number, [place(number)])));
    await first.close({ clean: true });
    const startedMs = performance.now();
    const second = await store.open();
    const tookMs = performance.now() - startedMs;
    expect(second.tables.volumeCount).toBe(10_000);
    expect(tookMs).toBeLessThan(1500);
  });
});

describe('commit', () => {
  test('is there after the next opening', async () => {
    await using store = await testStore();
    const first = await store.open();
    await first.ensureUnassigned(32);
    await first.commit([nextVolumePut(first, 1)]);
    const before = first.tables.snapshot();
    await first.close({ clean: false });
    expect((await store.open()).tables.snapshot()).toEqual(before);
  });

  test('is seen only when it is durable, and in the order of the calls', async () => {
    await using store = await testStore();
    const opened = await store.open();
    await opened.ensureUnassigned(64);
    const order: number[] = [];
    const all = [1, 2, 3].map((number) => opened.commit(() => [nextVolumePut(opened, number)]).then(() => order.push(number)));
    expect(opened.tables.volumeCount).toBe(0);
    await Promise.all(all);
    expect(order).toEqual([1, 2, 3]);
    expect(opened.tables.check()).toEqual([]);
  });

  test('that the tables refuse takes no other with it', async () => {
    await using store = await testStore();
    const opened = await store.open();
    await opened.ensureUnassigned(64);
    const results = await Promise.allSettled([
      opened.commit(() => [nextVolumePut(opened, 1)]),
      opened.commit([{ op: 'volume-delete', number: 9 }]),
      opened.commit(() => {
        throw new Error('changed my mind');
      }),
      opened.commit(() => [nextVolumePut(opened, 2)]),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    await opened.close({ clean: false });
    expect((await store.open()).tables.volumes().map(({ number }) => number)).toEqual([1, 2]);
  });

  test('of many at once flushes far less often than it is called', async () => {
    await using store = await testStore();
    let flushes = 0;
    const opened = await store.open({
      files: {
        ...realMetadataFiles,
        open: async (path, how) => {
          const file = await realMetadataFiles.open(path, how);
          return {
            pwrite: (bytes, position) => file.pwrite(bytes, position),
            truncate: (byteLength) => file.truncate(byteLength),
            close: () => file.close(),
            sync: () => {
              flushes += 1;
              return file.sync();
            },
          };
        },
      },
    });
    flushes = 0;
    await Promise.all(Array.from({ length: 200 }, () => opened.commit([])));
    expect(flushes).toBeLessThan(10);
  });

  test('after close is refused', async () => {
    await using store = await testStore();
    const opened = await store.open();
    const last = opened.commit([]);
    const closed = opened.close({ clean: true });
    await expect(opened.commit([])).rejects.toThrow(failsWith('ENGINE_STOPPING'));
    await Promise.all([last, closed, opened.close({ clean: true })]);
  });

  test('fails, and so does every later one, when the store directory was deleted', async () => {
    await using store = await testStore();
    const opened = await store.open();
    rmSync(join(store.directory, 'journal.1'));
    await expect(opened.commit([])).rejects.toThrow(failsWith('STORE_IO'));
    await expect(opened.commit([])).rejects.toThrow(failsWith('STORE_IO', 'no change of the tables is possible'));
    expect(opened.failure?.code).toBe('STORE_IO');
  });

  test('makes the journal long, and compaction short again', async () => {
    await using store = await testStore();
    const opened = await store.open({ compactBytesMin: 20_000 });
    await opened.ensureUnassigned(64);
    await opened.commit([nextVolumePut(opened, 1)]);
    for (let round = 0; round < 300; round += 1) {
      await opened.commit((tables) => [
        { op: 'volume-put', row: { ...tables.volume(1), isProtected: round % 2 === 0, name: `name-${round}` } },
      ]);
    }
    expect(opened.journalBytes).toBeLessThan(25_000);
    expect(readdirSync(store.directory).filter((name) => name.startsWith('journal'))).toHaveLength(1);
    await opened.close({ clean: true });
    expect((await store.open()).tables.volume(1).name).toBe('name-299');
  });
});

describe('physical volumes', () => {
  test('are sparse, of full size, and open', async () => {
    await using store = await testStore();
    const opened = await store.open();
    expect(await opened.addPvs(2)).toEqual([1, 2]);
    const stat = statSync(opened.pvPath(2));
    expect([stat.size, stat.blocks, stat.mode & 0o777]).toEqual([SMALL_PV_BYTES, 0, 0o600]);
    expect(opened.pvFd(2)).toBeGreaterThan(2);
    expect(() => opened.pvFd(3)).toThrow('not open');
    expect(opened.tables.unassigned.freeRegions).toBe(128);
  });

  test('are added as many as are needed, also when two ask at once', async () => {
    await using store = await testStore();
    const opened = await store.open();
    expect(opened.planPvGrowth(65)).toBe(2);
    await Promise.all([opened.ensureUnassigned(65), opened.ensureUnassigned(100)]);
    expect(opened.tables.pvs()).toHaveLength(2);
    expect(await opened.ensureUnassigned(128)).toEqual([]);
    expect([opened.regionsFor(1), opened.regionsFor(SMALL_REGION_BYTES), opened.regionsFor(SMALL_REGION_BYTES + 1)]).toEqual([1, 1, 2]);
  });

  test('beyond the limit are refused', async () => {
    await using store = await testStore();
    const opened = await store.open();
    expect(() => opened.planPvGrowth(64 * 20_000)).toThrow(failsWith('LIMIT', '16384 is the limit'));
  });

  test('that a crash left without a row are used again, empty', async () => {
    await using store = await testStore();
    writeFileSync(join(store.directory, 'pv', '00001.img'), 'old data');
    const opened = await store.open();
    await opened.addPvs(1);
    expect(execFileSync('head', ['-c', '8', opened.pvPath(1)])).toEqual(Buffer.alloc(8));
  });

  test('that cannot be made leave nothing behind', async () => {
    await using store = await testStore();
    const opened = await store.open();
    mkdirSync(join(store.directory, 'pv', '00002.img'));
    await expect(opened.addPvs(2)).rejects.toThrow(failsWith('STORE_IO', '00002.img'));
    expect(readdirSync(join(store.directory, 'pv'))).toEqual(['00002.img']);
    expect(opened.tables.pvs()).toEqual([]);
  });
});
