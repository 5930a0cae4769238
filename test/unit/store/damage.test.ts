/** Files of the store that are not as they should be: each has its outcome, its message, and is left as it was. */
import { copyFileSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkStore } from '../../../src/store/check.ts';
import { decodeFrame, encodeFrame } from '../../../src/wire/store-records.ts';
import { nextVolumePut, SMALL_PV_BYTES, SMALL_REGION_BYTES, type TestStore, testStore } from '../../support/open-stores.ts';

/** A store with two physical volumes, 1 and 2, and volumes 1 (on 1) and 2 (on both: the last 16 and the first 16 regions). */
const filled = async (): Promise<TestStore> => {
  const store = await testStore();
  const opened = await store.open();
  await opened.addPvs(2);
  await opened.commit([nextVolumePut(opened, 1, 48)]);
  await opened.commit([nextVolumePut(opened, 2, 16)]);
  await opened.commit([nextVolumePut(opened, 3, 16)]);
  await opened.close({ clean: true });
  store.notices.splice(0);
  return store;
};

const pathIn = (store: TestStore, ...names: readonly string[]): string => join(store.directory, ...names);
const journalIn = (store: TestStore): string =>
  pathIn(store, readdirSync(store.directory).find((name) => name.startsWith('journal.')) ?? 'none');

/** The content of all metadata files, to see that nothing was changed. */
const contentOf = (store: TestStore): Record<string, string> =>
  Object.fromEntries(
    readdirSync(store.directory)
      .filter((name) => /^(superblock|journal)/.test(name))
      .map((name) => [name, readFileSync(pathIn(store, name)).toString('base64')]),
  );

/** Offsets of the journal's frames, the end included. */
const frameOffsets = (bytes: Buffer): number[] => {
  const offsets = [0];
  for (let frame = decodeFrame(bytes, 0); frame !== null; frame = decodeFrame(bytes, offsets.at(-1) as number)) {
    offsets.push((offsets.at(-1) as number) + frame.byteLength);
  }
  return offsets;
};

const edit = (path: string, change: (bytes: Buffer) => Buffer): void => {
  writeFileSync(path, change(readFileSync(path)));
};

const withByte = (bytes: Buffer, offset: number, byte: number): Buffer => {
  bytes[offset] = byte;
  return bytes;
};

const flip = (path: string, offset: number): void => edit(path, (bytes) => withByte(bytes, offset, (bytes[offset] as number) ^ 0xff));

/** Refused with this code and text, reported by the check as damage of the same file, and left as it was. */
const expectRefused = async (store: TestStore, code: string, text: string, details: Record<string, unknown> = {}): Promise<void> => {
  const before = contentOf(store);
  await expect(store.open()).rejects.toThrow(
    expect.objectContaining({ code, message: expect.stringContaining(text), details: expect.objectContaining(details) }),
  );
  expect(contentOf(store)).toEqual(before);
  if (code === 'STORE_VERSION') return;
  const report = await checkStore(store.directory);
  expect(report.ok).toBe(false);
  expect(report.findings.filter(({ severity }) => severity === 'damage')).toContainEqual(
    expect.objectContaining({ text: expect.stringContaining(text) }),
  );
  expect(contentOf(store)).toEqual(before);
};

describe('the journal', () => {
  test('with a bad record between good ones is refused with file, record and offset', async () => {
    await using store = await filled();
    const offsets = frameOffsets(readFileSync(journalIn(store)));
    flip(journalIn(store), (offsets[1] as number) + 50);
    await expectRefused(store, 'STORE_DAMAGED', `record 2 at byte ${offsets[1]} is damaged`, {
      file: journalIn(store),
      record: 2,
      offset: offsets[1],
    });
  });

  test('with a bad snapshot is refused', async () => {
    await using store = await filled();
    flip(journalIn(store), 40);
    await expectRefused(store, 'STORE_DAMAGED', 'record 1 at byte 0, the snapshot of the tables, is damaged', { record: 1 });
  });

  test('that is only a bad snapshot is refused', async () => {
    await using store = await testStore();
    edit(journalIn(store), (bytes) => bytes.subarray(0, 60));
    await expectRefused(store, 'STORE_DAMAGED', 'the snapshot of the tables, is damaged', { record: 1 });
  });

  test('with a torn tail is cut back, and that is in the log', async () => {
    await using store = await filled();
    const offsets = frameOffsets(readFileSync(journalIn(store)));
    const last = offsets.at(-2) as number;
    edit(journalIn(store), (bytes) => bytes.fill(0, last + 40));
    const report = await checkStore(store.directory);
    expect(report).toMatchObject({
      ok: true,
      findings: [{ severity: 'repair', file: journalIn(store), record: offsets.length - 1, offset: last }],
    });
    const opened = await store.open();
    expect(store.notices).toEqual([expect.stringContaining(`record ${offsets.length - 1} at byte ${last} was not whole`)]);
    expect(opened.tables.volumeCount).toBe(3);
    expect(opened.wasCleanShutdown).toBe(false);
    expect(await checkStore(store.directory).catch((error: { readonly code: string }) => error.code)).toBe('STORE_LOCKED');
    await opened.close({ clean: true });
    expect((await checkStore(store.directory)).findings).toEqual([]);
  });

  test('that is missing is refused', async () => {
    await using store = await filled();
    rmSync(journalIn(store));
    await expectRefused(store, 'STORE_DAMAGED', 'journal.1, the journal that the superblock names, is missing');
  });

  test('that is some other file is refused as foreign', async () => {
    await using store = await filled();
    writeFileSync(journalIn(store), 'just some text that somebody put here');
    await expectRefused(store, 'STORE_FOREIGN', 'is not a journal of a store');
  });

  test('of another store is refused as foreign', async () => {
    await using store = await filled();
    await using other = await testStore();
    copyFileSync(journalIn(other), journalIn(store));
    await expectRefused(store, 'STORE_FOREIGN', 'is the journal of another store');
  });

  test('of another generation is refused', async () => {
    await using store = await filled();
    edit(journalIn(store), (bytes) => encodeFrame(1, 2, (decodeFrame(bytes, 0) as { payload: Buffer }).payload));
    await expectRefused(store, 'STORE_DAMAGED', 'record 1 at byte 0 is of journal 2');
  });

  test.each([
    ['is not JSON', '{'],
    ['holds no lists of operations', '{"commits":7}'],
    ['does not fit what is before it', '{"commits":[[{"op":"volume-delete","number":77}]]}'],
    ['does not fit what is before it', '{"commits":[[{"op":"time-travel"}]]}'],
    ['does not fit what is before it', '{"commits":[[null]]}'],
  ])('with a sound record that %s is refused', async (text, payload) => {
    await using store = await filled();
    edit(journalIn(store), (bytes) => {
      const offsets = frameOffsets(bytes);
      const last = decodeFrame(bytes, offsets.at(-2) as number) as { sequence: number };
      return Buffer.concat([bytes.subarray(0, offsets.at(-1)), encodeFrame(last.sequence + 1, 1, Buffer.from(payload))]);
    });
    await expectRefused(store, 'STORE_DAMAGED', text);
  });

  test('with a record that is missing in between is refused', async () => {
    await using store = await filled();
    edit(journalIn(store), (bytes) => {
      const offsets = frameOffsets(bytes);
      return Buffer.concat([bytes.subarray(0, offsets[1]), bytes.subarray(offsets[2])]);
    });
    await expectRefused(store, 'STORE_DAMAGED', 'has the sequence 3 after 1');
  });

  test('that a crash left beside the valid one is removed', async () => {
    await using store = await filled();
    for (const name of ['journal.2', 'journal.2.new', 'superblock.new']) writeFileSync(pathIn(store, name), 'left');
    expect(await checkStore(store.directory)).toMatchObject({
      ok: true,
      findings: [{ severity: 'repair' }, { severity: 'repair' }, { severity: 'repair' }],
    });
    await store.open();
    expect(Object.keys(contentOf(store)).sort()).toEqual(['journal.1', 'superblock']);
    expect(store.notices).toHaveLength(3);
  });
});

describe('the superblock', () => {
  test.each([
    ['first', 0],
    ['second', 4096],
  ])('with a bad %s copy is repaired from the other one', async (_which, offset) => {
    await using store = await filled();
    const good = readFileSync(pathIn(store, 'superblock'));
    edit(pathIn(store, 'superblock'), (bytes) => bytes.fill(0x55, offset + 256, offset + 512));
    expect(await checkStore(store.directory)).toMatchObject({
      ok: true,
      findings: [{ severity: 'repair', text: expect.stringContaining('copy') }],
    });
    await (await store.open()).close({ clean: true });
    expect(readFileSync(pathIn(store, 'superblock'))).toEqual(good);
    expect(store.notices).toEqual([expect.stringContaining('superblock: copy')]);
  });

  test('with two bad copies is refused', async () => {
    await using store = await filled();
    for (const offset of [100, 4196]) flip(pathIn(store, 'superblock'), offset);
    await expectRefused(store, 'STORE_DAMAGED', 'neither of the two copies of the superblock is whole');
  });

  test('that is empty is refused', async () => {
    await using store = await filled();
    truncateSync(pathIn(store, 'superblock'));
    await expectRefused(store, 'STORE_DAMAGED', 'neither of the two copies');
  });

  test('that is some other file is refused as foreign', async () => {
    await using store = await filled();
    writeFileSync(pathIn(store, 'superblock'), Buffer.alloc(8192, 'LABELONE'));
    await expectRefused(store, 'STORE_FOREIGN', 'is not the superblock of a store');
  });
});

describe('a physical volume', () => {
  test('that is missing and has data is refused', async () => {
    await using store = await filled();
    rmSync(pathIn(store, 'pv', '00001.img'));
    await expectRefused(store, 'STORE_DAMAGED', 'is missing, and volume 1 (v1) has data there', { file: pathIn(store, 'pv', '00001.img') });
  });

  test('that is too short for its data is refused', async () => {
    await using store = await filled();
    truncateSync(pathIn(store, 'pv', '00002.img'), 16 * SMALL_REGION_BYTES - 1);
    await expectRefused(store, 'STORE_DAMAGED', `is ${16 * SMALL_REGION_BYTES - 1} bytes long instead of ${SMALL_PV_BYTES}, and volume 3`);
  });

  test('that is short only where nothing is assigned is made long again', async () => {
    await using store = await filled();
    const path = pathIn(store, 'pv', '00002.img');
    truncateSync(path, 16 * SMALL_REGION_BYTES);
    expect(await checkStore(store.directory)).toMatchObject({ ok: true, findings: [{ severity: 'repair', file: path }] });
    await (await store.open()).close({ clean: true });
    expect(readFileSync(path).length).toBe(SMALL_PV_BYTES);
    expect(store.notices).toEqual([expect.stringContaining('00002.img was missing or short where no volume has regions')]);
  });

  test('that is missing and wholly unassigned is made again', async () => {
    await using store = await testStore();
    const first = await store.open();
    await first.addPvs(1);
    await first.close({ clean: true });
    rmSync(pathIn(store, 'pv', '00001.img'));
    await store.open({ readOnly: true }).then((opened) => opened.close({ clean: false }));
    expect(readdirSync(pathIn(store, 'pv'))).toEqual([]);
    const second = await store.open();
    expect(readFileSync(second.pvPath(1)).equals(Buffer.alloc(SMALL_PV_BYTES))).toBe(true);
  });

  test('that is no file is refused', async () => {
    await using store = await filled();
    rmSync(pathIn(store, 'pv', '00001.img'));
    symlinkSync('/dev/zero', pathIn(store, 'pv', '00001.img'));
    await expect(store.open()).rejects.toThrow(expect.objectContaining({ code: 'STORE_IO' }));
  });
});

describe('the check', () => {
  test('of a sound store says what is in it, and changes nothing', async () => {
    await using store = await filled();
    const before = contentOf(store);
    expect(await checkStore(store.directory)).toMatchObject({
      ok: true,
      findings: [],
      summary: {
        volumes: 3,
        pairs: 0,
        physicalVolumes: 2,
        regions: { total: 128, unassigned: 48, scrubbing: 0 },
        wasCleanShutdown: true,
        formatVersion: 1,
      },
    });
    expect(contentOf(store)).toEqual(before);
  });

  test('refuses a store that is in use, and what is no store', async () => {
    await using store = await filled();
    await store.open();
    await expect(checkStore(store.directory)).rejects.toThrow(expect.objectContaining({ code: 'STORE_LOCKED' }));
    await expect(checkStore(store.temporary.root)).rejects.toThrow(expect.objectContaining({ code: 'STORE_MISSING' }));
  });

  test('finds old data in an unassigned region', async () => {
    await using store = await filled();
    edit(pathIn(store, 'pv', '00002.img'), (bytes) => withByte(bytes, 20 * SMALL_REGION_BYTES + 77, 1));
    expect(await checkStore(store.directory)).toMatchObject({
      ok: false,
      findings: [
        {
          severity: 'damage',
          offset: 20 * SMALL_REGION_BYTES + 77,
          text: expect.stringContaining('region 20 is unassigned and holds data'),
        },
      ],
    });
  });

  test('notes files that are no part of the store, and physical volumes that are too long', async () => {
    await using store = await filled();
    writeFileSync(pathIn(store, 'pv', '00009.img'), '');
    truncateSync(pathIn(store, 'pv', '00001.img'), SMALL_PV_BYTES + 1);
    const report = await checkStore(store.directory);
    expect(report.ok).toBe(true);
    expect(report.findings.map(({ severity, file }) => [severity, file])).toEqual([
      ['note', pathIn(store, 'pv', '00001.img')],
      ['note', pathIn(store, 'pv', '00009.img')],
    ]);
  });

  test('reports every physical volume that is damaged, not the first only', async () => {
    await using store = await filled();
    for (const name of ['00001.img', '00002.img']) rmSync(pathIn(store, 'pv', name));
    expect((await checkStore(store.directory)).findings.map(({ severity, file }) => [severity, file])).toEqual([
      ['damage', pathIn(store, 'pv', '00001.img')],
      ['damage', pathIn(store, 'pv', '00002.img')],
    ]);
  });
});
