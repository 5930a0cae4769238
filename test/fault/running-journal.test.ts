/**
 * The medium of the journal gives errors while hosts are at work: EIO or ENOSPC, on writes or on syncs. The real files,
 * with an error in front of them for as long as the test says (the medium as a whole: running-medium.test.ts).
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { type MetadataFile, realMetadataFiles } from '../../src/platform/metadata-files.ts';
import { checkStore } from '../../src/store/check.ts';
import { blockOf, failure, lastSeq, VOLUME_BYTES } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';

type Operation = 'pwrite' | 'sync';

/** From now on journals that are opened fail as `broken` says, while it says something. */
const breakJournals = (): { broken: { readonly operation: Operation; readonly code: string } | null } => {
  const medium: ReturnType<typeof breakJournals> = { broken: null };
  const open = realMetadataFiles.open.bind(realMetadataFiles);
  vi.spyOn(realMetadataFiles, 'open').mockImplementation(async (path, how) => {
    const file = await open(path, how);
    if (!path.includes('journal')) return file;
    const unless = async (operation: Operation, work: () => Promise<void>): Promise<void> => {
      if (medium.broken?.operation !== operation) return work();
      throw Object.assign(new Error(`${medium.broken.code}: injected`), { code: medium.broken.code });
    };
    const breaking: MetadataFile = {
      pwrite: (bytes, position) => unless('pwrite', () => file.pwrite(bytes, position)),
      truncate: (byteLength) => file.truncate(byteLength),
      sync: () => unless('sync', () => file.sync()),
      close: () => file.close(),
    };
    return breaking;
  });
  return medium;
};

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a journal that cannot be written', () => {
  it.each([
    { operation: 'pwrite', code: 'EIO', refused: 'STORE_IO' },
    { operation: 'pwrite', code: 'ENOSPC', refused: 'STORE_FULL' },
    { operation: 'sync', code: 'EIO', refused: 'STORE_IO' },
  ] as const)(
    '[journal-fails] $operation gives $code: commands are refused, no host feels it, and a resync of the difference is all afterwards',
    async ({ operation, code, refused }) => {
      await using temporary = await temporaryDirectory();
      const medium = breakJournals();
      const store = temporary.path('s');
      {
        await using device = await openDevice({ store, create: true, pvSize: '64M', lanes: 1 });
        const db = await device.createVolume('db', VOLUME_BYTES);
        await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
        const pair = await (await db.pair()).wait('duplex');
        await using host = await db.connect();
        const since = await lastSeq(device);
        medium.broken = { operation, code };
        expect((await failure(pair.split())).code).toBe(refused);
        expect((await failure(device.createVolume('new', MiB))).code).toMatch(/^STORE_/);
        await host.write(0, blockOf(0, 8 * KiB, 1), { fua: true });
        // What happens by itself holds, whether it can be recorded or not.
        await device.engine.faultAdd({ volume: 'copy', error: 'write', errno: 'EIO', count: 1 });
        await host.write(4 * MiB, blockOf(4 * MiB, 8 * KiB, 2));
        await pair.wait('suspended', { timeoutMs: 5000 });
        await host.flush();
        const texts: unknown[] = [];
        for await (const { data } of device.events({ follow: false, since })) texts.push(data['text']);
        expect(texts).toContain('the state of the pair could not be recorded yet');
        medium.broken = null;
        await (await pair.resync()).wait('duplex');
        expect(pair.status().copiedBytes).toBeLessThanOrEqual(2 * 64 * KiB);
        expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
      }
      expect(await checkStore(store)).toMatchObject({ ok: true, findings: [], summary: { volumes: 2, wasCleanShutdown: true } });
    },
  );
});
