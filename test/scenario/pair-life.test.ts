/** A pair from its forming to its end, as a host sees both volumes. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import {
  blockOf,
  checksum,
  duplexPair,
  failure,
  openPairDevice,
  type PairDevice,
  readFrom,
  VOLUME_BYTES,
  writeTo,
} from '../support/pair-device.ts';

/** Changes a byte of the secondary in the store's file, as a bad disk or a wrong hand would. */
const spoil = async ({ device, secondary }: PairDevice, offset: number): Promise<void> => {
  const { regionBytes, directory } = device.status().store;
  const { runs } = secondary.info();
  const region = Math.floor(offset / regionBytes);
  const [run] = runs;
  if (run === undefined || region >= run.count) throw new Error('the volume is in several runs');
  const file = await open(join(directory, 'pv', `${String(run.pv).padStart(5, '0')}.img`), 'r+');
  await file.write(Buffer.from([0x5a]), 0, 1, (run.start + region) * regionBytes + (offset % regionBytes));
  await file.close();
};

describe('a pair', () => {
  it('is copied, mirrors writes, and keeps the image of the split while the primary goes on', async () => {
    await using setup = await openPairDevice();
    const { primary, secondary } = setup;
    await writeTo(primary, 0, MiB, 1);
    await writeTo(primary, 9 * MiB, MiB, 1);
    const pair = await duplexPair(setup);
    expect(pair.status()).toMatchObject({ state: 'duplex', copyPointer: { percent: 100 }, dirtyBytes: { union: 0 }, reason: null });

    await writeTo(primary, 3 * MiB, 4096, 2);
    await pair.split();
    const image = await checksum(primary);
    await writeTo(primary, 3 * MiB, 4096, 3);
    expect(await checksum(secondary)).toBe(image);
    expect((await readFrom(secondary, 3 * MiB, 4096)).equals(blockOf(3 * MiB, 4096, 2))).toBe(true);
    expect(await checksum(primary)).not.toBe(image);
  });

  it('copies on a resync what differs on either side, and only that', async () => {
    await using setup = await openPairDevice();
    const { primary, secondary } = setup;
    await writeTo(primary, 0, 4 * MiB, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    await writeTo(primary, MiB, 64 * 1024, 2);
    await writeTo(secondary, 8 * MiB, 64 * 1024, 2);
    expect(pair.status().dirtyBytes).toEqual({ primary: 65_536, secondary: 65_536, union: 131_072 });
    expect(await pair.plan('resync')).toMatchObject({ plan: true, bytes: 131_072, destroysBytes: 65_536, regions: 2 });
    await (await pair.resync()).wait('duplex');
    expect(pair.status().copiedBytes).toBe(131_072);
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
    expect((await readFrom(secondary, 8 * MiB, 64 * 1024)).every((byte) => byte === 0)).toBe(true);
  });

  it('takes the primary back to the image of the split, and hosts read that image from the first moment on', async () => {
    await using setup = await openPairDevice();
    const { primary, secondary } = setup;
    await writeTo(primary, 0, 8 * MiB, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    const image = await checksum(secondary);
    await writeTo(primary, 0, 8 * MiB, 2);
    await pair.set({ pace: 1 });
    await pair.restore();
    expect(await checksum(primary)).toBe(image);
    await writeTo(primary, 2 * MiB, 4096, 5);
    await pair.set({ pace: 15 });
    await pair.wait('duplex');
    const restored = await checksum(primary);
    await pair.split();
    expect(await checksum(secondary)).toBe(restored);
    expect((await readFrom(primary, 2 * MiB, 4096)).equals(blockOf(2 * MiB, 4096, 5))).toBe(true);
  });

  it('is released to the pool or with its data, as the operator says', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, MiB, 1);
    const pair = await duplexPair(setup);
    await pair.release('normal');
    expect(pair.state).toBe('simplex');
    expect(secondary.info()).toMatchObject({ attribute: 'normal', paired: false, inUse: 'invalid' });
    expect(await checksum(secondary)).toBe(await checksum(primary));
    await secondary.set({ attribute: 'secondary' });
    expect(secondary.info()).toMatchObject({ attribute: 'secondary', inUse: 'unused' });
    const again = await (await primary.pair()).wait('duplex');
    await again.release();
    expect(secondary.info()).toMatchObject({ attribute: 'secondary', paired: false });
    expect(device.pairs()).toEqual([]);
  });

  it('refuses what its state does not allow, names both, and changes nothing', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    const simplex = await failure(device.engine.pairSplit({ primary: 'db' }));
    expect(simplex).toMatchObject({ code: 'PAIR_NOT_FOUND', message: expect.stringMatching(/volume db is simplex.*allowed in: duplex/) });
    const pair = await duplexPair(setup);
    expect(await failure(pair.resync())).toMatchObject({
      code: 'PAIR_STATE',
      message: expect.stringMatching(/db -> copy is duplex.*allowed in: split, suspended/),
    });
    expect(await failure(pair.restore())).toMatchObject({ code: 'PAIR_STATE' });
    expect(await failure(primary.pair(secondary))).toMatchObject({ code: 'VOLUME_PAIRED' });
    expect(await failure(secondary.pair())).toMatchObject({ code: 'NOT_A_PRIMARY' });
    expect(await failure(secondary.delete())).toMatchObject({ code: 'VOLUME_PAIRED' });
    expect(await failure(secondary.set({ attribute: 'normal' }))).toMatchObject({ code: 'VOLUME_PAIRED' });
    expect(await failure(primary.grow('32M'))).toMatchObject({ code: 'VOLUME_PAIRED' });
    expect(pair.state).toBe('duplex');
  });

  it('does not serve its secondary to hosts until it is split, or read-only where the setting says so', async () => {
    await using setup = await openPairDevice();
    const { device, secondary } = setup;
    const pair = await duplexPair(setup);
    expect(await failure(secondary.connect())).toMatchObject({ message: expect.stringContaining('duplex') });
    await device.set({ secondaryAccess: 'read-only' });
    await using reader = await secondary.connect();
    expect(reader.info.readOnly).toBe(true);
    await pair.split();
    await using writer = await secondary.connect();
    expect(writer.info.readOnly).toBe(false);
    await writer.write(0, Buffer.alloc(4096, 7));
    await device.set({ secondaryAccess: 'refuse' });
    expect(secondary.info().clients).toBe(2);
  });

  it('compares its legs, finds nothing under load, and repairs what somebody changed behind its back', async () => {
    await using setup = await openPairDevice();
    const { primary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await using host = await primary.connect();
    let round = 0;
    const load = (async () => {
      for (; round < 200; round += 1) await host.write((round * 77_777) % (VOLUME_BYTES - 8192), blockOf(round, 8192, round));
    })();
    const report = await pair.verify();
    expect(report).toMatchObject({ differingBytes: 0, checkedBytes: VOLUME_BYTES, repaired: false });
    await load;

    await spoil(setup, 5 * MiB);
    expect(await pair.verify()).toMatchObject({
      differingBytes: 65_536,
      differing: [{ offset: 5 * MiB, length: 65_536 }],
      repaired: false,
    });
    expect(pair.state).toBe('duplex');
    expect(await pair.verify({ repair: true })).toMatchObject({ differingBytes: 65_536, repaired: true });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('repairs what a verify had found that did not come to its end, and can be split afterwards', async () => {
    await using setup = await openPairDevice();
    const { device, primary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await spoil(setup, MiB);
    await device.engine.faultAdd({ volume: 'copy', error: 'read', errno: 'EIO', offset: 8 * MiB, length: MiB });
    expect((await failure(pair.verify({ repair: true }))).code).toBe('STORE_IO');
    await pair.wait('duplex', { timeoutMs: 10_000 });
    await device.engine.faultClear({ volume: 'copy' });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    expect(pair.status().dirtyBytes).toMatchObject({ primary: 0 });
    await pair.split();
  });
});
