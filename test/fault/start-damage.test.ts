/** What a start makes of what a crash or a bad medium left behind: decided towards safety, and named. */
import { copyFile, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice } from '../../src/index.ts';
import { checkStore } from '../../src/store/check.ts';
import { EngineProcess } from '../harness/engine-process.ts';
import { checksum, failure, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const REGION_BYTES = 64 * KiB;

/** A store with a duplex pair and data, ended in order. */
const storeWithPair = async (temporary: TemporaryDirectory): Promise<string> => {
  const store = temporary.path('s');
  await using device = await openDevice({ store, create: true, pvSize: '64M', lanes: 1 });
  const db = await device.createVolume('db', VOLUME_BYTES);
  await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
  await writeTo(db, 0, 4 * MiB, 1);
  await (await db.pair()).wait('duplex');
  return store;
};

/** Starts the store, with what the log said. */
const started = async (store: string): Promise<{ readonly device: Device; readonly log: () => string }> => {
  let text = '';
  const log = pino(
    { level: 'info' },
    {
      write: (line) => {
        text += line;
      },
    },
  );
  return { device: await openDevice({ store, lanes: 1, log }), log: () => text };
};

/** Flips a byte. */
const damage = async (path: string, offset: number): Promise<void> => {
  const file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset);
  await file.write(Buffer.from([(buffer[0] ?? 0) ^ 0xff]), 0, 1, offset);
  await file.close();
};

/** What `store check` finds: none of it is a damage, and nothing of it is changed. */
const checkedFiles = async (store: string): Promise<readonly string[]> => {
  const before = await contentOf(store);
  const report = await checkStore(store);
  expect(report.ok).toBe(true);
  expect(await contentOf(store)).toBe(before);
  return report.findings.map(({ severity, file, offset, text }) => `${severity} ${basename(file)} at ${offset}: ${text}`);
};

const journalOf = async (store: string): Promise<string> =>
  join(store, (await readdir(store)).find((name) => name.startsWith('journal')) ?? '');

/** Everything of the store but what holds it open: to see that a refused start has changed nothing. */
const contentOf = async (store: string): Promise<string> => {
  const entries = await readdir(store, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile() && !entry.name.startsWith('lock'))
    .map((entry) => join(entry.parentPath, entry.name));
  const contents = await Promise.all(files.sort().map(async (path) => `${path} ${(await readFile(path)).toString('latin1')}`));
  return contents.join('\n');
};

describe('a bitmap', () => {
  it('[bitmap-damaged] with a damaged page counts as dirty there, never as clean, and is named', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    expect((await checkStore(store)).findings).toEqual([]);
    await damage(join(store, 'bitmaps', 'pair-1-primary.map'), 512 + 100);
    expect(await checkedFiles(store)).toEqual([
      'repair pair-1-primary.map at 512: page 1 of 1 damaged: what that stands for, 16 MiB, counts as dirty at the next start',
    ]);
    const { device, log } = await started(store);
    await using _device = device;
    expect(log()).toContain('pair-1-primary.map: 1 of 1 pages are damaged');
    expect(device.status().durability.lastRecoveryBytes).toBe(VOLUME_BYTES);
    const [pair] = device.pairs();
    await pair?.wait('duplex');
    expect(await pair?.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[bitmap-missing] or a file of intents that is not there counts as dirty as a whole, and is named', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    await rm(join(store, 'bitmaps', 'pair-1-secondary.map'));
    await truncate(join(store, 'intents', 'volume-1.map'), 700);
    await truncate(join(store, 'intents', 'volume-2.map'), 12);
    expect(await checkedFiles(store)).toEqual([
      'repair pair-1-secondary.map at null: is missing: its 16 MiB count as dirty at the next start',
      'repair volume-1.map at 512: page 1 of 1 damaged: what that stands for, 16 MiB, counts as dirty at the next start',
      'repair volume-2.map at 0: has a damaged header: its 16 MiB count as dirty at the next start',
    ]);
    const { device, log } = await started(store);
    await using _device = device;
    expect(log()).toContain('pair-1-secondary.map was missing');
    expect(log()).toContain('volume-1.map');
    const [pair] = device.pairs();
    await pair?.wait('duplex');
    expect(await pair?.verify()).toMatchObject({ differingBytes: 0 });
    await pair?.split();
    expect(await checksum(device.volume('copy'))).toBe(await checksum(device.volume('db')));
  });

  it('[bitmap-foreign] of another pair is not believed', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    await copyFile(join(store, 'intents', 'volume-1.map'), join(store, 'bitmaps', 'pair-1-primary.map'));
    await copyFile(join(store, 'intents', 'volume-1.map'), join(store, 'intents', 'volume-9.map'));
    await writeFile(join(store, 'intents', 'notes.txt'), 'of a person');
    expect(await checkedFiles(store)).toEqual([
      'repair pair-1-primary.map at 0: belongs to another pair or volume: its 16 MiB count as dirty at the next start',
      'note notes.txt at null: is no file of this store',
      'repair volume-9.map at null: belongs to no pair any more; the next start removes it',
    ]);
    const { device, log } = await started(store);
    await using _device = device;
    expect(log()).toContain('is no bitmap of its pair');
    expect(device.status().durability.lastRecoveryBytes).toBe(VOLUME_BYTES);
    await device.pairs()[0]?.wait('duplex');
  });
});

describe('the journal', () => {
  it('[journal-torn] with a torn tail loses the last record as a whole, and says so', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    const journal = await journalOf(store);
    const whole = await readFile(journal);
    {
      await using device = await openDevice({ store, lanes: 1 });
      await device.createVolume('late', VOLUME_BYTES);
    }
    // The record of the new volume is the first that differs; half of it reached the medium.
    const after = await readFile(journal);
    const from = after.findIndex((byte, index) => byte !== (whole[index] ?? 0));
    await writeFile(journal, Buffer.concat([after.subarray(0, from + 60), Buffer.alloc(4096)]));
    const { device, log } = await started(store);
    await using _device = device;
    expect(log()).toMatch(/record \d+ at byte \d+ was not whole/);
    expect(device.volumes().map(({ name }) => name)).toEqual(['db', 'copy']);
    expect(device.pairs()[0]?.state).toMatch(/^duplex/);
  });

  it('[journal-damaged] with a damaged record and good ones behind it is refused, with file and record, and left as it is', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    const journal = await journalOf(store);
    await damage(journal, 200);
    const before = await contentOf(store);
    const refused = await failure(started(store));
    expect(refused).toMatchObject({ code: 'STORE_DAMAGED', details: { file: journal, record: 1 } });
    expect(await contentOf(store)).toBe(before);
  });
});

describe('the superblock', () => {
  it('[superblock-half] with one bad copy is read from the other, repaired, and named; with two it is refused', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    const superblock = join(store, 'superblock');
    await damage(superblock, 20);
    {
      const { device, log } = await started(store);
      await using _device = device;
      expect(log()).toContain('superblock');
      expect(device.pairs()).toHaveLength(1);
    }
    await damage(superblock, 4096 + 20);
    {
      const { device } = await started(store);
      await device.close();
    }
    await damage(superblock, 20);
    await damage(superblock, 4096 + 20);
    const before = await contentOf(store);
    expect(await failure(started(store))).toMatchObject({ code: 'STORE_DAMAGED' });
    expect(await contentOf(store)).toBe(before);
  });
});

describe('a physical volume', () => {
  it('[pv-missing] or short where volumes have data: the engine does not start, and names the file and the volume', async () => {
    await using temporary = await temporaryDirectory();
    const store = await storeWithPair(temporary);
    const [pv] = await readdir(join(store, 'pv'));
    const path = join(store, 'pv', pv ?? '');
    const content = await readFile(path);
    await truncate(path, 8 * MiB);
    expect((await failure(started(store))).message).toMatch(/is 8388608 bytes long instead of 67108864, and volume 1 \(db\)/);
    await rm(path);
    expect((await failure(started(store))).message).toMatch(/is missing, and volume 1 \(db\)/);
    await writeFile(path, content);
    const { device } = await started(store);
    await using _device = device;
    expect(await device.pairs()[0]?.verify()).toMatchObject({ differingBytes: 0 });
  });
});

describe('a copy', () => {
  it('[copy-interrupted] that the end of the engine met in its middle goes on from its bitmap', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    {
      await using device = await openDevice({ store, create: true, pvSize: '64M', lanes: 1 });
      const db = await device.createVolume('db', VOLUME_BYTES);
      await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
      await writeTo(db, 0, VOLUME_BYTES, 1);
      await device.engine.faultAdd({ volume: 'db', error: 'read', offset: 8 * MiB, length: REGION_BYTES });
      const pair = await db.pair();
      await pair.wait('suspended', { timeoutMs: 20_000 });
      await pair.resync();
      await device.close();
    }
    const { device } = await started(store);
    await using _device = device;
    const [pair] = device.pairs();
    await pair?.wait('suspended', { timeoutMs: 200 }).catch(() => undefined);
    if (pair?.state === 'suspended') await pair.resync();
    await pair?.wait('duplex');
    expect(pair?.status().copiedBytes).toBeLessThanOrEqual(8 * MiB);
    expect(await pair?.verify()).toMatchObject({ differingBytes: 0 });
  });
});

describe('the machine', () => {
  const killedAt = async (temporary: TemporaryDirectory, durability: 'power' | 'process'): Promise<string> => {
    const store = await storeWithPair(temporary);
    const engine = await EngineProcess.start(store);
    await engine.call('settings.set', { durability });
    await engine.kill();
    return store;
  };

  it('[power-cut-process] that went down at level process: no bitmap is believed, every pair is copied as a whole, and it is said', async () => {
    await using temporary = await temporaryDirectory();
    const store = await killedAt(temporary, 'process');
    // As the next run of the machine finds it.
    await writeFile(join(store, 'boot'), '00000000-0000-4000-8000-000000000000\n');
    const { device, log } = await started(store);
    await using _device = device;
    expect(log()).toContain('went down at durability level process');
    expect(device.status().durability).toMatchObject({ level: 'process', lastRecoveryBytes: VOLUME_BYTES });
    await device.pairs()[0]?.wait('duplex');
    expect(await device.pairs()[0]?.verify()).toMatchObject({ differingBytes: 0 });
  });

  it.each(['power', 'process'] as const)('that went on while the engine was killed, level %s: bitmaps are believed', async (level) => {
    await using temporary = await temporaryDirectory();
    const { device, log } = await started(await killedAt(temporary, level));
    await using _device = device;
    expect(log()).not.toContain('went down at durability level');
    expect(device.status().durability).toMatchObject({ level, lastRecoveryBytes: 0 });
    expect(device.pairs()[0]?.state).toBe('duplex');
  });
});
