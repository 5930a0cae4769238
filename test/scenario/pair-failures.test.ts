/** What becomes of a pair when a leg, a record or the process fails, and that a resync of the difference brings it back. */
import { describe, expect, it } from 'vitest';
import { type Device, openDevice } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { blockOf, checksum, duplexPair, failure, lastSeq, later, openPairDevice, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';

describe('an error of the secondary', () => {
  it('suspends the pair with its reason, never fails the host, and costs a resync of the difference', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, 4 * MiB, 1);
    const pair = await duplexPair(setup);
    await device.engine.faultAdd({ volume: 'copy', error: 'write', errno: 'EIO', offset: 2 * MiB, length: MiB });
    await writeTo(primary, 2 * MiB, 8192, 2);
    await pair.wait('suspended', { timeoutMs: 5000 });
    expect(pair.status()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO', dirtyBytes: { primary: 65_536 } });
    await writeTo(primary, 8 * MiB, 4096, 2);
    expect((await failure(pair.split())).code).toBe('PAIR_STATE');
    expect((await failure(pair.restore())).code).toBe('PAIR_STATE');
    expect((await failure(secondary.connect())).message).toContain('suspended');

    // The fault is still there: the resync meets it too, and the pair is suspended again.
    await pair.resync();
    expect((await failure(pair.wait('duplex'))).code).toBe('WAIT_IMPOSSIBLE');
    expect(pair.status()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO' });
    await device.engine.faultClear({ volume: 'copy' });
    await (await pair.resync()).wait('duplex');
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(2 * 65_536);
    await pair.split();
    expect(await checksum(secondary)).toBe(await checksum(primary));
  });

  it('fails the host with fence level data, until the fence is lowered or the pair is resynced', async () => {
    await using setup = await openPairDevice();
    const { device, primary } = setup;
    const pair = await duplexPair(setup);
    await pair.set({ fence: 'data' });
    await device.engine.faultAdd({ volume: 'copy', error: 'write', errno: 'EIO', count: 1 });
    await using host = await primary.connect();
    await failure(host.write(0, blockOf(0, 4096, 1)));
    await pair.wait('suspended', { timeoutMs: 5000 });
    await later(50);
    await failure(host.write(MiB, blockOf(MiB, 4096, 1)));
    await pair.set({ fence: 'never' });
    await host.write(MiB, blockOf(MiB, 4096, 2));
    await (await pair.resync()).wait('duplex');
    expect((await pair.verify()).differingBytes).toBe(0);
  });
});

describe('fence level data', () => {
  it('holds when it is the copy that fails: no write goes to the primary alone', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, 8 * MiB, 1);
    await device.engine.faultAdd({ volume: 'copy', error: 'write', errno: 'EIO' });
    const pair = await primary.pair(secondary, { fence: 'data' });
    await pair.wait('suspended', { timeoutMs: 5000 });
    await using host = await primary.connect();
    await failure(host.write(5 * MiB, blockOf(5 * MiB, 4096, 2)));
    await pair.resync();
    expect((await failure(pair.wait('duplex'))).code).toBe('WAIT_IMPOSSIBLE');
    expect(pair.status()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO' });
    await failure(host.write(5 * MiB, blockOf(5 * MiB, 4096, 2)));
    await device.engine.faultClear({ volume: 'copy' });
    await (await pair.resync()).wait('duplex');
    await host.write(5 * MiB, blockOf(5 * MiB, 4096, 2));
    expect((await pair.verify()).differingBytes).toBe(0);
  });
});

describe('an error of the primary', () => {
  it('reaches the host, and the regions are copied again because they may differ', async () => {
    await using setup = await openPairDevice();
    const { device, primary } = setup;
    await writeTo(primary, 0, 4 * MiB, 1);
    const pair = await duplexPair(setup);
    await device.engine.faultAdd({ volume: 'db', error: 'write', errno: 'EIO', count: 1 });
    const since = await lastSeq(device);
    await using host = await primary.connect();
    await failure(host.write(MiB, blockOf(MiB, 4096, 9)));
    await pair.wait('duplex-pending', { timeoutMs: 2000 }).catch(() => undefined);
    await pair.wait('duplex');
    const changes = [];
    for await (const { object, kind, data } of device.events({ follow: false, since }))
      if (object === 'pair' && kind === 'change') changes.push(data);
    expect(changes).toMatchObject([
      { old: 'duplex', new: 'duplex-pending', copy: 'resync', reason: 'primary-error: EIO' },
      { old: 'duplex-pending', new: 'duplex', reason: null },
    ]);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('that stops a restore leaves the host with the whole image, and only a restore may follow', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, 8 * MiB, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    const image = await checksum(secondary);
    await writeTo(primary, 0, 8 * MiB, 2);
    await device.engine.faultAdd({ volume: 'db', error: 'write', errno: 'EIO', offset: 4 * MiB, length: MiB });
    await pair.restore();
    await pair.wait('suspended', { timeoutMs: 10_000 });
    expect(pair.status()).toMatchObject({ state: 'suspended', copy: 'restore', reason: 'restore-interrupted: primary-error: EIO' });
    expect(await checksum(primary)).toBe(image);
    expect(await failure(pair.resync())).toMatchObject({ code: 'PAIR_STATE', message: expect.stringContaining('restore was interrupted') });
    const third = await device.createVolume('third', VOLUME_BYTES, { attribute: 'secondary' });
    expect(await failure(primary.pair(third))).toMatchObject({ code: 'PAIR_STATE', message: expect.stringContaining('being restored') });
    await device.engine.faultClear({ volume: 'db' });
    await (await pair.restore()).wait('duplex');
    expect(await checksum(primary)).toBe(image);
  });
});

describe('the end of the process', () => {
  it('in the middle of a copy: the next start goes on from the bitmap and ends in duplex', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    {
      await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1 });
      const db = await device.createVolume('db', VOLUME_BYTES);
      await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
      await writeTo(db, 0, VOLUME_BYTES, 1);
      const pair = await db.pair(undefined, { pace: 1 });
      await later(120);
      expect(pair.state).toBe('duplex-pending');
    }
    await using device = await openDevice({ store, lanes: 1 });
    const [pair] = device.pairs();
    expect(device.status().durability.lastRecoveryBytes).toBe(0);
    await pair?.set({ pace: 15 });
    await pair?.wait('duplex');
    await pair?.split();
    expect(await checksum(device.volume('copy'))).toBe(await checksum(device.volume('db')));
  });

  it('keeps writes stopped that fence level data had stopped, and stops none that went on before', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    const writes = async (device: Device, name: string): Promise<string> => {
      await using host = await device.volume(name).connect();
      return host.write(MiB, blockOf(MiB, 4096, 3)).then(
        () => 'ok',
        ({ code }: { readonly code: string }) => code,
      );
    };
    const names = ['stopped', 'going'] as const;
    {
      await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1 });
      for (const name of names) {
        const volume = await device.createVolume(name, VOLUME_BYTES);
        await device.createVolume(`${name}-copy`, VOLUME_BYTES, { attribute: 'secondary' });
        const pair = await (await volume.pair(device.volume(`${name}-copy`))).wait('duplex');
        if (name === 'stopped') await pair.set({ fence: 'data' });
        await device.engine.faultAdd({ volume: `${name}-copy`, error: 'write', errno: 'EIO', count: 1 });
        await using host = await volume.connect();
        await host.write(0, blockOf(0, 4096, 1)).catch(() => undefined);
        await pair.wait('suspended', { timeoutMs: 5000 });
        // From now on a failing secondary would stop the writes; this one has failed already.
        if (name === 'going') await pair.set({ fence: 'data' });
      }
      for (const name of names) expect(await writes(device, name)).toBe(name === 'going' ? 'ok' : 'NBD_EIO');
    }
    await using device = await openDevice({ store, lanes: 1 });
    for (const name of names) expect(await writes(device, name)).toBe(name === 'going' ? 'ok' : 'NBD_EIO');
    const [stopped] = device.pairs();
    await stopped?.set({ fence: 'never' });
    expect(await writes(device, 'stopped')).toBe('ok');
    for (const pair of device.pairs()) {
      await (await pair.resync()).wait('duplex');
      expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    }
  });

  it('keeps every pair in its state with its dirty bits: split, suspended and duplex', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    {
      await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1 });
      const db = await device.createVolume('db', VOLUME_BYTES);
      for (const name of ['one', 'two', 'three']) await device.createVolume(name, VOLUME_BYTES, { attribute: 'secondary' });
      await writeTo(db, 0, MiB, 1);
      const one = await (await db.pair(device.volume('one'))).wait('duplex');
      const two = await (await db.pair(device.volume('two'))).wait('duplex');
      await (await db.pair(device.volume('three'))).wait('duplex');
      await one.split();
      await device.engine.faultAdd({ volume: 'two', error: 'write', errno: 'ENOSPC' });
      await writeTo(db, 4 * MiB, 4096, 2);
      await two.wait('suspended', { timeoutMs: 5000 });
      await writeTo(device.volume('one'), 12 * MiB, 4096, 3);
    }
    await using device = await openDevice({ store, lanes: 1 });
    expect(device.pairs().map((pair) => pair.status())).toMatchObject([
      { state: 'split', dirtyBytes: { primary: 65_536, secondary: 65_536, union: 131_072 } },
      { state: 'suspended', reason: 'secondary-error: ENOSPC', dirtyBytes: { primary: 65_536 } },
      { state: 'duplex', dirtyBytes: { union: 0 } },
    ]);
    for (const pair of device.pairs()) {
      if (pair.state !== 'duplex') await (await pair.resync()).wait('duplex');
      await pair.split();
    }
    const image = await checksum(device.volume('db'));
    for (const name of ['one', 'two', 'three']) expect(await checksum(device.volume(name))).toBe(image);
  });
});

describe('the release of a restore', () => {
  it('asks the hosts of the primary, who read the image of the secondary, and keeps that image out of the pool', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    await writeTo(secondary, 0, VOLUME_BYTES, 2);
    await device.engine.faultAdd({ volume: 'db', error: 'write', errno: 'EIO', offset: 4 * MiB, length: MiB });
    await pair.restore();
    await pair.wait('suspended', { timeoutMs: 10_000 });
    await using host = await primary.connect();
    await host.write(8 * MiB, blockOf(8 * MiB, 4096, 3), { fua: true });

    const ref = { primary: 'db', secondary: 'copy' };
    expect(await device.engine.pairRelease({ ...ref, plan: true })).toMatchObject({
      destroys: [{ volumeName: 'db', isAtMost: true }],
      steps: expect.arrayContaining(['copy becomes a normal volume and keeps its data']),
    });
    const refusal = await failure(device.engine.pairRelease(ref));
    expect(refusal).toMatchObject({ code: 'MOUNTED' });
    expect(await host.read(8 * MiB, 4096)).toEqual(blockOf(8 * MiB, 4096, 3));
    const { findings } = refusal.details as { readonly findings: ReadonlyArray<{ readonly key: string }> };
    await device.engine.pairRelease({ ...ref, consent: { overrides: findings.map(({ key }) => key), reason: 'the restore is given up' } });
    await failure(host.read(8 * MiB, 4096));
    await using former = await secondary.connect();
    expect(await former.read(8 * MiB, 4096)).toEqual(blockOf(8 * MiB, 4096, 3));
    expect(device.engine.volumeList().find(({ name }) => name === 'copy')).toMatchObject({ attribute: 'normal' });
  });
});
