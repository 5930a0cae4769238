/**
 * The upgrade path, with made-up versions around the present one: a program that knows version 2 reads a store of
 * version 1 through the upgrader, writes it anew, and from then on the program of version 1 refuses it.
 */
import { expect, test } from 'vitest';
import { FORMATS, type Formats, upgradeOps, upgradePath } from '../../../src/store/formats.ts';
import { MetadataLog } from '../../../src/store/metadata-log.ts';
import { crashImages, moments, randomFrom } from '../../support/crash-images.ts';
import { nextVolumePut, testStore } from '../../support/open-stores.ts';
import { RecordedFiles } from '../../support/recorded-files.ts';

/** Version 2 calls every host by an upper-case name. */
const NEXT: Formats = {
  current: FORMATS.current + 1,
  upgraders: new Map([
    [
      FORMATS.current,
      (ops) =>
        ops.map((op) => {
          const put = op as { readonly op: string; readonly row: { readonly name: string } };
          return put.op === 'host-put' ? { ...put, row: { ...put.row, name: put.row.name.toUpperCase() } } : op;
        }),
    ],
  ]),
};

const host = { op: 'host-put', row: { name: 'alpha', tokenSha256: '0'.repeat(64), grants: {}, createdAtMs: 1 } } as const;

test('a store of an older version is upgraded once, and then belongs to the newer one', async () => {
  await using store = await testStore();
  const old = await store.open();
  await old.addPvs(1);
  await old.commit([nextVolumePut(old, 1), host]);
  await old.close({ clean: true });

  const upgraded = await store.open({ formats: NEXT });
  expect(upgraded).toMatchObject({ formatVersion: 2, wasCleanShutdown: true });
  expect(upgraded.tables.hosts().map(({ name }) => name)).toEqual(['ALPHA']);
  expect(store.notices).toContainEqual(expect.stringContaining('upgraded from format version 1 to 2'));
  await upgraded.close({ clean: false });

  const again = await store.open({ formats: NEXT });
  expect(again).toMatchObject({ formatVersion: 2, wasCleanShutdown: false });
  expect(again.tables.volumeCount).toBe(1);
  await again.close({ clean: true });
  await expect(store.open()).rejects.toThrow(
    expect.objectContaining({ code: 'STORE_VERSION', message: expect.stringContaining('format version 2') }),
  );
});

test('a store that is opened for reading only is read through the upgrader, and stays of its version', async () => {
  await using store = await testStore();
  const old = await store.open();
  await old.commit([host]);
  await old.close({ clean: true });
  const reader = await store.open({ formats: NEXT, readOnly: true });
  expect(reader.tables.host('ALPHA')).toBeDefined();
  expect(reader.formatVersion).toBe(1);
  await reader.close({ clean: true });
  expect((await store.open()).tables.host('alpha')).toBeDefined();
});

test('a store that is too old for every upgrader is refused', async () => {
  await using store = await testStore();
  const far: Formats = { current: 3, upgraders: new Map([[2, (ops) => ops]]) };
  await expect(store.open({ formats: far })).rejects.toThrow(
    expect.objectContaining({ code: 'STORE_VERSION', message: expect.stringContaining('cannot read any more') }),
  );
});

test('upgraders are applied one after the other', () => {
  const add = (text: string) => (ops: readonly unknown[]) => [...ops, text];
  const path = upgradePath(1, {
    current: 4,
    upgraders: new Map([
      [1, add('a')],
      [2, add('b')],
      [3, add('c')],
    ]),
  });
  expect(upgradeOps([], path ?? [])).toEqual(['a', 'b', 'c']);
  expect(upgradePath(4, { current: 4, upgraders: new Map() })).toEqual([]);
});

test('a crash at any moment of the upgrade leaves the old store or the new one', async () => {
  const made = new RecordedFiles();
  const geometry = { uuid: '6a1f0c9e-0b57-4c1e-9f58-2f1d7b1f9c11', regionBytes: 65_536, pvBytes: 2 ** 22 };
  await MetadataLog.create(made, '/store', geometry);
  const old = await MetadataLog.start(made, '/store', await MetadataLog.read(made, '/store'));
  await old.commit([host]);
  await old.close({ clean: true });
  const names = await made.list('/store');
  const image = new Map(
    await Promise.all(names.map(async (name) => [`/store/${name}`, (await made.readFile(`/store/${name}`)) as Buffer] as const)),
  );

  const files = new RecordedFiles(image);
  await MetadataLog.start(files, '/store', await MetadataLog.read(files, '/store', NEXT), { formats: NEXT });
  const versions = new Set<number>();
  for (const moment of moments(files.trace)) {
    for (const crashed of crashImages(files.initial, files.trace, moment, { random: randomFrom(1), samples: 20 })) {
      const recovered = await MetadataLog.read(new RecordedFiles(crashed), '/store', NEXT);
      versions.add(recovered.superblock.formatVersion);
      expect(recovered.tables.hosts().map(({ name }) => name)).toEqual(['ALPHA']);
    }
  }
  expect(versions).toEqual(new Set([1, 2]));
});
