/** Verify under full load, repair of what a bad medium changed, and a resync that leaves alone what is equal. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice, type Volume } from '../../src/index.ts';
import { twinvol } from '../scenario/cli-process.ts';
import { blockOf, checksum, duplexPair, later, openPairDevice, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const REGION_BYTES = 64 * KiB;

/** Changes bytes of a volume behind the engine's back, as a bad medium would. */
const rot = async (device: Device, volume: Volume, offset: number, bytes: Buffer): Promise<void> => {
  const { runs } = volume.info();
  const { directory, regionBytes } = device.status().store;
  let left = Math.floor(offset / regionBytes);
  const run = runs.find((one) => {
    if (left < one.count) return true;
    left -= one.count;
    return false;
  });
  if (run === undefined) throw new Error('the volume is not so long');
  const file = await open(join(directory, 'pv', `${String(run.pv).padStart(5, '0')}.img`), 'r+');
  await file.write(bytes, 0, bytes.length, (run.start + left) * regionBytes + (offset % regionBytes));
  await file.close();
};

/** Writers on several connections, overlapping, until it is stopped. */
const load = async (volume: Volume, connections: number): Promise<AsyncDisposable & { readonly writes: () => number }> => {
  const hosts = await Promise.all(Array.from({ length: connections }, () => volume.connect({ depth: 8 })));
  let isOver = false;
  let writes = 0;
  const work = hosts.flatMap((host, index) =>
    Array.from({ length: 4 }, async (_, depth) => {
      for (let round = 0; !isOver; round += 1) {
        const at = ((round * 7 + index * 3 + depth) % 1024) * 16 * KiB;
        await host.write(at, blockOf(at, 4 * KiB, round));
        writes += 1;
      }
    }),
  );
  return {
    writes: () => writes,
    [Symbol.asyncDispose]: async () => {
      isOver = true;
      await Promise.all(work);
      await Promise.all(hosts.map((host) => host.disconnect()));
    },
  };
};

describe('verify', () => {
  it('gives no false alarm under full load: mirrored, split, and again after a resync', { timeout: 120_000 }, async () => {
    await using setup = await openPairDevice({ lanes: 2 });
    const { primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await pair.set({ pace: 15 });
    await using hosts = await load(primary, 3);
    for (let round = 0; round < 4; round += 1) expect(await pair.verify()).toMatchObject({ checkedBytes: VOLUME_BYTES, differingBytes: 0 });
    await pair.split();
    {
      await using _others = await load(secondary, 1);
      for (let round = 0; round < 4; round += 1) expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    }
    await (await pair.resync({ pace: 15 })).wait('duplex');
    for (let round = 0; round < 2; round += 1) expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    expect(hosts.writes()).toBeGreaterThan(200);
  });

  it('[legs-differ] finds what a medium changed, names the places, and with repair makes the legs equal', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await rot(device, secondary, 3 * MiB + 100, Buffer.from('rot'));
    await rot(device, secondary, 9 * MiB, Buffer.alloc(2 * REGION_BYTES, 7));
    const places = [
      { offset: 3 * MiB, length: REGION_BYTES },
      { offset: 9 * MiB, length: 2 * REGION_BYTES },
    ];
    expect(await pair.verify()).toMatchObject({ differingBytes: 3 * REGION_BYTES, differing: places, repaired: false });
    expect(pair.state).toBe('duplex');
    expect(await pair.verify({ repair: true })).toMatchObject({ differing: places, repaired: true });
    expect(pair.status()).toMatchObject({ state: 'duplex', copiedBytes: 3 * REGION_BYTES });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
  });

  it('of a split pair says what it did not judge, because it was written since; a repair is for the next resync', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0, dirtyBytes: 0 });
    await pair.split();
    await writeTo(primary, 0, MiB, 2);
    await writeTo(secondary, 2 * MiB, 4 * KiB, 3);
    const dirtyBytes = MiB + REGION_BYTES;
    expect(await pair.verify()).toMatchObject({ differingBytes: 0, dirtyBytes });
    await rot(device, secondary, 9 * MiB, Buffer.from('rot'));
    const differing = { differingBytes: REGION_BYTES, repaired: false };
    expect(await pair.verify()).toMatchObject({ ...differing, dirtyBytes });
    expect(await pair.verify({ repair: true })).toMatchObject({ ...differing, dirtyBytes: dirtyBytes + REGION_BYTES });
    await (await pair.resync()).wait('duplex');
    expect(pair.status().copiedBytes).toBe(dirtyBytes + REGION_BYTES);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0, dirtyBytes: 0 });
  });

  it('says how far it is, how fast, and how long it still takes, to programs and on the command line', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1, control: true });
    const bytes = 96 * MiB;
    const primary = await device.createVolume('db', bytes);
    await device.createVolume('copy', bytes, { attribute: 'secondary' });
    {
      await using host = await primary.connect();
      for (let at = 0; at < bytes; at += MiB) await host.write(at, blockOf(at, 4 * KiB, 1));
    }
    const pair = await (await primary.pair()).wait('duplex');
    await pair.set({ pace: 2 });
    await using hosts = await load(primary, 1);
    const line = twinvol(['pair', 'verify', 'db'], { store });
    const seen: Array<{ readonly checkedBytes: number; readonly etaMs: number | null }> = [];
    for (;;) {
      const { verify } = pair.status();
      if (verify === null && seen.length > 0) break;
      if (verify !== null) {
        expect(verify.totalBytes).toBe(bytes);
        expect(verify.checkedBytes).toBeGreaterThanOrEqual(seen.at(-1)?.checkedBytes ?? 0);
        seen.push(verify);
      }
      await later(20);
    }
    expect(seen.some(({ etaMs }) => etaMs !== null && etaMs > 0)).toBe(true);
    const ran = await line;
    expect(ran.status).toBe(0);
    expect(ran.stderr).toMatch(/comparing db -> copy +\d+\.\d %.*\/s +ETA/);
    expect(ran.stdout).toContain('equal, 96 MiB compared');
    expect(hosts.writes()).toBeGreaterThan(10);
  });
});

describe('a resync with checksum', () => {
  it('writes only what differs and says how much was equal', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    // The same bytes again in most places: dirty, and not different.
    await writeTo(primary, 0, 8 * MiB, 1);
    await writeTo(primary, MiB, 4 * KiB, 2);
    await writeTo(secondary, 12 * MiB, 8 * KiB, 3);
    const before = device.engine.faultList();
    expect(before).toEqual([]);
    await (await pair.resync({ checksum: true })).wait('duplex');
    const { copiedBytes, skippedBytes } = pair.status();
    expect(copiedBytes).toBe(12 * KiB);
    expect(skippedBytes).toBe(8 * MiB + REGION_BYTES - 12 * KiB);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
    // The next one copies without looking again.
    await writeTo(primary, 0, MiB, 1);
    await (await pair.resync()).wait('duplex');
    expect(pair.status()).toMatchObject({ copiedBytes: MiB, skippedBytes: 0 });
  });

  it('and a restore with checksum take what hosts write meanwhile', async () => {
    await using setup = await openPairDevice({ lanes: 2 });
    const { primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    await writeTo(secondary, 4 * MiB, MiB, 9);
    {
      await using hosts = await load(primary, 2);
      await later(50);
      await (await pair.resync({ checksum: true, pace: 8 })).wait('duplex');
      expect(hosts.writes()).toBeGreaterThan(10);
    }
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    expect(pair.status().skippedBytes).toBeGreaterThan(0);
    await pair.split();
    const image = await checksum(secondary);
    await writeTo(primary, 0, 4 * MiB, 5);
    await (await pair.restore({ checksum: true })).wait('duplex');
    expect(await checksum(primary)).toBe(image);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });
});
