/** Test volumes that misbehave on purpose (`fault add`): what strikes, how often, that it repeats, and that it ends. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { twinvol } from '../scenario/cli-process.ts';
import { blockOf, failure, openPairDevice, VOLUME_BYTES } from '../support/pair-device.ts';
import { temporaryDirectory } from '../support/temporary.ts';

/** Which of `count` writes, one after another, fail. */
const struck = async (seed: number, count: number): Promise<string> => {
  await using setup = await openPairDevice({ lanes: 1 });
  await setup.device.engine.faultAdd({ volume: 'db', error: 'write', rate: 0.3, seed });
  await using host = await setup.primary.connect();
  let pattern = '';
  for (let index = 0; index < count; index += 1) {
    pattern += await host.write(index * 4 * KiB, blockOf(index, 4 * KiB, 1)).then(
      () => '.',
      () => 'x',
    );
  }
  return pattern;
};

describe('a fault rule', () => {
  it('that is to strike once says so afterwards, and does nothing any more, not even slow down', async () => {
    await using setup = await openPairDevice();
    const { device, primary } = setup;
    const { id } = await device.engine.faultAdd({ volume: 'db', error: 'write', count: 1, latencyMs: 300 });
    const rule = () => device.engine.faultList().find((one) => one.id === id);
    expect(rule()).toMatchObject({ count: 1, hits: 0, expired: false });
    await using host = await primary.connect();
    const startedMs = performance.now();
    expect(await failure(host.write(0, blockOf(0, 4 * KiB, 1)))).toMatchObject({ code: 'NBD_EIO' });
    expect(performance.now() - startedMs).toBeGreaterThan(250);
    expect(rule()).toMatchObject({ count: 0, hits: 1, expired: true });
    const againMs = performance.now();
    await host.write(0, blockOf(0, 4 * KiB, 2));
    expect(performance.now() - againMs).toBeLessThan(250);
    expect(rule()).toMatchObject({ count: 0, hits: 1, expired: true });
    expect(await device.engine.faultClear({ id })).toBe(1);
    expect(device.engine.faultList()).toEqual([]);
  });

  it('strikes the same requests for the same seed, and others for another', async () => {
    const [first, again, other] = await Promise.all([struck(7, 120), struck(7, 120), struck(8, 120)]);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
    const hits = first.split('x').length - 1;
    expect(hits).toBeGreaterThan(15);
    expect(hits).toBeLessThan(60);
  });

  it('holds from the moment at which it was added, and not a moment longer than until it is cleared', async () => {
    await using setup = await openPairDevice({ lanes: 2 });
    const { device, primary } = setup;
    await using host = await primary.connect();
    await using busy = await primary.connect();
    let isOver = false;
    const load = Array.from({ length: 8 }, async () => {
      while (!isOver) await busy.write(8 * MiB, blockOf(0, MiB, 1));
    });
    const outcomes: string[] = [];
    const write = (): Promise<string> =>
      host.write(0, blockOf(0, 4 * KiB, 1)).then(
        () => 'ok',
        ({ code }: { readonly code: string }) => code,
      );
    for (let round = 0; round < 100; round += 1) {
      const { id } = await device.engine.faultAdd({ volume: 'db', error: 'write', offset: 0, length: MiB });
      outcomes.push(await write());
      await device.engine.faultClear({ id });
      outcomes.push(await write());
    }
    isOver = true;
    await Promise.all(load);
    expect(outcomes).toEqual(Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? 'NBD_EIO' : 'ok')));
  });

  it('strikes its range and its kind of request only, with its error', async () => {
    await using setup = await openPairDevice();
    const { device, primary } = setup;
    const { engine } = device;
    await using host = await primary.connect();
    const block = blockOf(0, 8 * KiB, 1);
    await host.write(4 * MiB, block);
    await engine.faultAdd({ volume: 'db', error: 'read', errno: 'EIO', offset: MiB, length: MiB });
    await engine.faultAdd({ volume: 'db', error: 'write', errno: 'ENOSPC', offset: 4 * MiB, length: MiB });
    await engine.faultAdd({ volume: 'db', error: 'flush', errno: 'EPERM', count: 2 });
    await host.write(MiB, block);
    await host.read(4 * MiB, 4096);
    await host.write(4 * MiB - 8 * KiB, block);
    expect(await failure(host.read(2 * MiB - 4096, 8192))).toMatchObject({ code: 'NBD_EIO' });
    expect(await failure(host.write(4 * MiB - 4096, block))).toMatchObject({ code: 'NBD_ENOSPC' });
    expect(await failure(host.trim(4 * MiB, 64 * KiB))).toMatchObject({ code: 'NBD_ENOSPC' });
    expect(await failure(host.flush())).toMatchObject({ code: 'NBD_EPERM' });
    expect(await failure(host.write(0, block, { fua: true }))).toMatchObject({ code: 'NBD_EPERM' });
    await host.flush();
    expect(await host.read(2 * MiB, 4096)).toHaveLength(4096);
  });

  it('can be slow without an error, and lets other volumes alone', async () => {
    await using setup = await openPairDevice();
    const { device, primary, secondary } = setup;
    await device.engine.faultAdd({ volume: 'db', error: 'read', errno: 'none', latencyMs: 200 });
    await using host = await primary.connect();
    await using other = await secondary.connect();
    const took = async (work: Promise<unknown>): Promise<number> => {
      const startedMs = performance.now();
      await work;
      return performance.now() - startedMs;
    };
    const [slow, fast] = await Promise.all([took(host.read(0, 4096)), took(other.read(0, 4096))]);
    expect(slow).toBeGreaterThan(150);
    expect(fast).toBeLessThan(150);
    expect(await took(host.write(0, blockOf(0, 4096, 1)))).toBeLessThan(150);
  });

  it('is refused when it makes no sense, and is gone after a restart', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    {
      await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1 });
      await device.createVolume('db', VOLUME_BYTES);
      const refused = async (input: object): Promise<string> => (await failure(device.engine.faultAdd({ volume: 'db', ...input }))).code;
      expect(await refused({ offset: VOLUME_BYTES })).toBe('USAGE');
      expect(await refused({ rate: 1.5 })).toBe('USAGE');
      expect(await refused({ count: 0 })).toBe('USAGE');
      expect(await refused({ latencyMs: -1 })).toBe('USAGE');
      expect((await failure(device.engine.faultClear({ id: 7 }))).code).toBe('FAULT_NOT_FOUND');
      for (let index = 0; index < 64; index += 1) await device.engine.faultAdd({ volume: 'db', rate: 0 });
      expect(await refused({})).toBe('LIMIT');
    }
    await using device = await openDevice({ store, lanes: 1 });
    expect(device.engine.faultList()).toEqual([]);
  });

  it('is set, listed and cleared on the command line', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await using device = await openDevice({ store, create: true, pvSize: '1G', lanes: 1, control: true });
    const volume = await device.createVolume('scratch', VOLUME_BYTES);
    const line = async (text: string): Promise<string> => {
      const ran = await twinvol(text.split(' '), { store });
      expect(ran.stderr).toBe('');
      return ran.stdout;
    };
    await line('fault add scratch --error write --range 1M-2M --once --seed 5');
    await line('fault add scratch --latency 20ms --error read --rate 0.5 --count 3');
    await using host = await volume.connect();
    await host.write(0, blockOf(0, 4096, 1));
    await failure(host.write(MiB, blockOf(MiB, 4096, 1)));
    const rows = (await line('fault list')).split('\n');
    expect(rows[1]).toMatch(/^ *1 +1 +write .* EIO .* 1 MiB \+ 1 MiB .* 100% +expired +5 +1 *$/);
    expect(rows[2]).toMatch(/^ *2 +1 +read .* EIO after 20 ms .* 50% +3 +2 +0 *$/);
    expect(await line('fault clear scratch')).toContain('2 faults cleared');
    expect(device.engine.faultList()).toEqual([]);
  });
});
