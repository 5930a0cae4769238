/** The store's own directory goes away under a running engine: moved and moved back, or deleted for good. */
import { readdir, rename, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice } from '../../src/index.ts';
import { blockOf, failure, lastSeq, VOLUME_BYTES } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const open = async (store: string, socket: string): Promise<Device> => {
  const device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1, nbdUnix: socket });
  await device.createVolume('db', VOLUME_BYTES);
  await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
  return device;
};

const textsSince = async (device: Device, since: number): Promise<string> => {
  const texts: unknown[] = [];
  for await (const { data } of device.events({ follow: false, since })) texts.push(data['text']);
  return texts.join('\n');
};

describe('the store of a running engine', () => {
  it('[store-moved] flushes and commands are refused while it is gone; moved back, everything goes on', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await using device = await open(store, temporary.path('nbd.sock'));
    const pair = await (await device.volume('db').pair()).wait('duplex');
    const since = await lastSeq(device);
    await using host = await device.volume('db').connect();
    await host.write(0, blockOf(0, 8 * KiB, 1), { fua: true });
    await rename(store, temporary.path('elsewhere'));
    expect(await failure(pair.split())).toMatchObject({ code: 'STORE_MISSING' });
    expect(await failure(device.createVolume('new', VOLUME_BYTES))).toMatchObject({ code: 'STORE_MISSING' });
    expect(device.status().store.gone).toBe(true);
    await expect.poll(() => textsSince(device, since), { timeout: 5000 }).toContain('was deleted or moved');
    // What is written goes into the files that were moved: nothing of it is lost.
    await host.write(MiB, blockOf(MiB, 8 * KiB, 2));
    await rename(temporary.path('elsewhere'), store);
    await host.flush();
    await expect.poll(() => textsSince(device, since), { timeout: 5000 }).toContain('is back');
    expect(device.status().store.gone).toBe(false);
    await pair.wait('duplex', { timeoutMs: 10_000 });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    await pair.split();
    expect(pair.status().copiedBytes).toBeLessThan(VOLUME_BYTES);
  });

  it.each(['cut short', 'deleted'] as const)(
    '[pv-cut] the file of a physical volume is %s: it is told, and the next flush fails',
    async (how) => {
      await using temporary = await temporaryDirectory();
      const store = temporary.path('s');
      await using device = await open(store, temporary.path('nbd.sock'));
      const since = await lastSeq(device);
      await using host = await device.volume('db').connect();
      await host.write(0, blockOf(0, MiB, 1), { fua: true });
      const [file = ''] = (await readdir(join(store, 'pv'))).map((name) => join(store, 'pv', name));
      await (how === 'deleted' ? rm(file) : truncate(file, 64 * KiB));
      const told = 'while the engine runs: copy what is needed elsewhere';
      await expect.poll(() => textsSince(device, since), { timeout: 5000 }).toContain(told);
      expect(await failure(host.flush())).toMatchObject({ code: 'NBD_EIO' });
    },
  );

  it('[store-deleted] flushes fail, because nothing is durable any more; what is there can be read and copied away', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    const device = await open(store, temporary.path('nbd.sock'));
    try {
      const pair = await (await device.volume('db').pair()).wait('duplex');
      await using host = await device.volume('db').connect();
      await host.write(0, blockOf(0, MiB, 1), { fua: true });
      await rm(store, { recursive: true });
      expect(await failure(host.flush())).toMatchObject({ code: 'NBD_EIO' });
      expect(await failure(host.write(MiB, blockOf(MiB, 8 * KiB, 2), { fua: true }))).toMatchObject({ code: 'NBD_EIO' });
      expect(await failure(pair.release())).toMatchObject({ code: 'STORE_MISSING' });
      // The rescue: another store takes the content over NBD.
      await using other = await openDevice({ store: temporary.path('other'), create: true, pvSize: '1G', lanes: 1 });
      const rescued = await other.createVolume('db', VOLUME_BYTES);
      await using target = await rescued.connect();
      for (let at = 0; at < VOLUME_BYTES; at += MiB) await target.write(at, await host.read(at, MiB));
      await target.flush();
      expect((await target.read(0, MiB)).equals(blockOf(0, MiB, 1))).toBe(true);
    } finally {
      await device.close();
    }
  });
});
