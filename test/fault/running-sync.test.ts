/**
 * A medium that takes writes into its cache and loses them later: a sync fails, once, and the kernel says so to one
 * caller only. Every volume and every pair that may have lost something has to hear of it all the same. Needs root.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice } from '../../src/index.ts';
import { initStore } from '../../src/store/init.ts';
import { ThinFileSystem } from '../harness/thin-file-system.ts';
import { needClient, needRoot } from '../support/clients.ts';
import { blockOf, failure } from '../support/pair-device.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const CAPACITY_BYTES = 16 * MiB;

type ThinDevice = AsyncDisposable & { readonly device: Device; readonly thin: ThinFileSystem };

/** A device whose physical volumes lie on a thin file system; the rest of its store does not. */
const openThinDevice = async (lanes: number): Promise<ThinDevice> => {
  needRoot();
  needClient('mkfs.xfs');
  const temporary = await temporaryDirectory();
  const store = temporary.path('s');
  await initStore(store, { pvBytes: 256 * MiB });
  const thin = await ThinFileSystem.make(temporary.path('thin'), 320 * MiB, 128 * MiB, join(store, 'pv'));
  const device = await openDevice({ store, lanes });
  return {
    device,
    thin,
    [Symbol.asyncDispose]: async () => {
      await device.close();
      await thin.remove();
      await temporary[Symbol.asyncDispose]();
    },
  };
};

describe('a sync that fails', () => {
  it('[sync-fails] fails the next flush of every volume whose data may be lost, on whichever lane it comes', async () => {
    await using setup = await openThinDevice(2);
    const { device, thin } = setup;
    const volumes = await Promise.all(['a', 'b', 'c'].map((name) => device.createVolume(name, CAPACITY_BYTES)));
    const hosts = await Promise.all(volumes.map((volume) => volume.connect()));
    for (const host of hosts) {
      await host.write(0, blockOf(0, MiB, 1));
      await host.flush();
    }
    await thin.exhaust();
    for (const host of hosts) await host.write(4 * MiB, blockOf(4 * MiB, MiB, 2));
    // The kernel tells one of them; the others would hear nothing.
    for (const host of hosts) expect(['NBD_EIO', 'NBD_ENOSPC']).toContain((await failure(host.flush())).code);
    for (const host of hosts) expect((await host.read(0, MiB)).equals(blockOf(0, MiB, 1))).toBe(true);
    await thin.relieve();
    for (const host of hosts) {
      // The syncs of the others may have met errors of their own in between.
      await host.flush().catch(() => undefined);
      await host.write(4 * MiB, blockOf(4 * MiB, MiB, 3));
      await host.write(8 * MiB, blockOf(8 * MiB, 4 * KiB, 3), { fua: true });
      await host.flush();
    }
    await ThinFileSystem.forgetCache();
    for (const host of hosts) {
      expect((await host.read(4 * MiB, MiB)).equals(blockOf(4 * MiB, MiB, 3))).toBe(true);
      await host.disconnect();
    }
  });

  it('[sync-fails-pair] makes what is marked of every pair on that medium dirty, also of one that nobody flushes', async () => {
    await using setup = await openThinDevice(1);
    const { device, thin } = setup;
    const pairs = [];
    for (const name of ['a', 'b']) {
      const primary = await device.createVolume(name, CAPACITY_BYTES);
      const secondary = await device.createVolume(`${name}-copy`, CAPACITY_BYTES, { attribute: 'secondary' });
      const host = await primary.connect();
      await host.write(0, blockOf(0, MiB, 1));
      await host.flush();
      pairs.push({ host, pair: await (await primary.pair(secondary)).wait('duplex') });
    }
    const [flushed, silent] = pairs as [(typeof pairs)[0], (typeof pairs)[0]];
    await thin.exhaust();
    for (const { host } of pairs) await host.write(4 * MiB, blockOf(4 * MiB, MiB, 2));
    expect(['NBD_EIO', 'NBD_ENOSPC']).toContain((await failure(flushed.host.flush())).code);
    await flushed.pair.wait('suspended', { timeoutMs: 20_000 });
    // Two rounds of the cleaner, whose own sync succeeds: the pages count as clean.
    await silent.pair.wait('suspended', { timeoutMs: 20_000 });
    for (const { pair } of pairs) expect(pair.status().dirtyBytes.union).toBeGreaterThanOrEqual(MiB);
    await thin.relieve();
    await ThinFileSystem.forgetCache();
    for (const { pair, host } of pairs) {
      const { union } = pair.status().dirtyBytes;
      expect(union).toBeLessThan(CAPACITY_BYTES);
      await (await pair.resync()).wait('duplex');
      expect(pair.status().copiedBytes).toBeLessThanOrEqual(union);
      expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
      await host.flush().catch(() => undefined);
      await host.write(4 * MiB, blockOf(4 * MiB, MiB, 3));
      await host.flush();
      await host.disconnect();
    }
  });
});
