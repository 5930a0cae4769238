/** Errors of one leg of a pair while hosts write, read and flush: what the host gets, where the pair goes, what a resync costs. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import type { FaultAddInput, Pair } from '../../src/index.ts';
import { blockOf, duplexPair, failure, lastSeq, openPairDevice, type PairDevice, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';

const REGION_BYTES = 64 * KiB;
const EXTENT_BYTES = 4 * MiB;

const statesSince = async ({ device }: PairDevice, since: number): Promise<readonly unknown[]> => {
  const states: unknown[] = [];
  for await (const { object, kind, data } of device.events({ follow: false, since })) {
    if (object === 'pair' && kind === 'change')
      states.push(
        `${String(data['old'])} -> ${String(data['new'])}${data['reason'] === null ? '' : ` (${JSON.stringify(data['reason']).replaceAll('"', '')})`}`,
      );
  }
  return states;
};

/** A duplex pair with data, an unrelated volume, and a rule. */
const faulty = async (setup: PairDevice, rule: FaultAddInput): Promise<Pair> => {
  await writeTo(setup.primary, 0, VOLUME_BYTES, 1);
  const pair = await duplexPair(setup);
  await setup.device.createVolume('other', VOLUME_BYTES);
  await setup.device.engine.faultAdd(rule);
  return pair;
};

/** The unrelated volume goes on, whatever happens to the pair. */
const otherGoesOn = ({ device }: PairDevice): Promise<void> => writeTo(device.volume('other'), MiB, 8 * KiB, 7);

/** @returns bytes that the resync copied */
const broughtBack = async ({ device }: PairDevice, pair: Pair): Promise<number> => {
  await device.engine.faultClear({});
  await (await pair.resync()).wait('duplex');
  const { copiedBytes } = pair.status();
  expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  return copiedBytes;
};

describe('the secondary fails', () => {
  it.each(['EIO', 'ENOSPC'] as const)(
    '[secondary-fails] %s on a write: the host gets success, the pair is suspended, a resync copies the difference',
    async (errno) => {
      await using setup = await openPairDevice();
      const pair = await faulty(setup, { volume: 'copy', error: 'write', errno });
      const since = await lastSeq(setup.device);
      await using host = await setup.primary.connect();
      await host.write(2 * MiB, blockOf(2 * MiB, 8 * KiB, 2));
      await host.write(9 * MiB, blockOf(9 * MiB, 8 * KiB, 2), { fua: true });
      await pair.wait('suspended', { timeoutMs: 5000 });
      expect(pair.status()).toMatchObject({ reason: `secondary-error: ${errno}`, dirtyBytes: { primary: 2 * REGION_BYTES } });
      expect(await statesSince(setup, since)).toEqual([`duplex -> suspended (secondary-error: ${errno})`]);
      await otherGoesOn(setup);
      expect(await broughtBack(setup, pair)).toBe(2 * REGION_BYTES);
    },
  );

  it('[secondary-fails-fenced] with fence level data: the write fails, and so do the next ones, until the fence is lowered', async () => {
    await using setup = await openPairDevice();
    const pair = await faulty(setup, { volume: 'copy', error: 'write', errno: 'EIO', count: 1 });
    await pair.set({ fence: 'data' });
    await using host = await setup.primary.connect();
    expect(await failure(host.write(0, blockOf(0, 4 * KiB, 2)))).toMatchObject({ code: 'NBD_EIO' });
    await pair.wait('suspended', { timeoutMs: 5000 });
    expect(await failure(host.write(MiB, blockOf(MiB, 4 * KiB, 2)))).toMatchObject({ code: 'NBD_EIO' });
    expect(await host.read(MiB, 4 * KiB)).toHaveLength(4 * KiB);
    await otherGoesOn(setup);
    await pair.set({ fence: 'never' });
    await host.write(MiB, blockOf(MiB, 4 * KiB, 3));
    expect(await broughtBack(setup, pair)).toBeLessThanOrEqual(2 * REGION_BYTES);
  });

  it('[secondary-flush-fails] on a flush: success, suspended; what was marked is copied again, because it may be lost there', async () => {
    await using setup = await openPairDevice();
    const pair = await faulty(setup, { volume: 'copy', error: 'flush', errno: 'EIO', count: 1 });
    await using host = await setup.primary.connect();
    await host.write(5 * MiB, blockOf(5 * MiB, 8 * KiB, 2));
    await host.flush();
    await pair.wait('suspended', { timeoutMs: 5000 });
    expect(pair.status()).toMatchObject({ reason: 'secondary-error: EIO' });
    await otherGoesOn(setup);
    const copied = await broughtBack(setup, pair);
    expect(copied).toBeGreaterThanOrEqual(EXTENT_BYTES);
    expect(copied).toBeLessThanOrEqual(VOLUME_BYTES);
  });
});

describe('the primary fails', () => {
  it.each([
    ['EIO', 'NBD_EIO'],
    ['ENOSPC', 'NBD_ENOSPC'],
  ] as const)('[primary-fails] %s on a write: the host gets it, and the region is copied again by itself', async (errno, code) => {
    await using setup = await openPairDevice();
    const pair = await faulty(setup, { volume: 'db', error: 'write', errno, count: 2 });
    const since = await lastSeq(setup.device);
    await using host = await setup.primary.connect();
    expect(await failure(host.write(3 * MiB, blockOf(3 * MiB, 8 * KiB, 2)))).toMatchObject({ code });
    expect(await failure(host.trim(12 * MiB, 8 * KiB))).toMatchObject({ code });
    await host.write(3 * MiB, blockOf(3 * MiB, 8 * KiB, 3));
    await otherGoesOn(setup);
    await expect.poll(async () => (await statesSince(setup, since)).at(-1), { timeout: 10_000 }).toBe('duplex-pending -> duplex');
    expect((await statesSince(setup, since))[0]).toBe(`duplex -> duplex-pending (primary-error: ${errno})`);
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(2 * REGION_BYTES);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[primary-read-fails] on a read: the host gets EIO, and the pair stays as it is', async () => {
    await using setup = await openPairDevice();
    const pair = await faulty(setup, { volume: 'db', error: 'read', errno: 'EIO', offset: MiB, length: MiB });
    const since = await lastSeq(setup.device);
    await using host = await setup.primary.connect();
    expect(await failure(host.read(MiB, 8 * KiB))).toMatchObject({ code: 'NBD_EIO' });
    expect((await host.read(2 * MiB, 8 * KiB)).length).toBe(8 * KiB);
    await host.write(MiB, blockOf(MiB, 8 * KiB, 2));
    await otherGoesOn(setup);
    expect(pair.state).toBe('duplex');
    expect(await statesSince(setup, since)).toEqual([]);
    // A verify meets the bad place too, and says so without a judgement on the pair.
    expect(await failure(pair.verify())).toMatchObject({ code: 'STORE_IO' });
    await setup.device.engine.faultClear({});
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[primary-flush-fails] on a flush: the host gets EIO, and what was marked is copied again by itself', async () => {
    await using setup = await openPairDevice();
    const pair = await faulty(setup, { volume: 'db', error: 'flush', errno: 'EIO', count: 1 });
    const since = await lastSeq(setup.device);
    await using host = await setup.primary.connect();
    await host.write(MiB, blockOf(MiB, 8 * KiB, 2));
    expect(await failure(host.flush())).toMatchObject({ code: 'NBD_EIO' });
    await host.flush();
    await otherGoesOn(setup);
    await expect.poll(async () => (await statesSince(setup, since)).at(-1), { timeout: 10_000 }).toBe('duplex-pending -> duplex');
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(VOLUME_BYTES);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[copy-source-fails] in a copy: suspended with the bad leg named, and the copy goes on from there afterwards', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    await device.engine.faultAdd({ volume: 'db', error: 'read', errno: 'EIO', offset: 10 * MiB, length: MiB });
    const pair = await primary.pair(secondary);
    await pair.wait('suspended', { timeoutMs: 10_000 });
    expect(pair.status()).toMatchObject({ reason: 'primary-error: EIO' });
    const { union } = pair.status().dirtyBytes;
    expect(union).toBeLessThanOrEqual(6 * MiB);
    await device.createVolume('other', VOLUME_BYTES);
    await otherGoesOn(setup);
    expect(await broughtBack(setup, pair)).toBe(union);
  });
});
