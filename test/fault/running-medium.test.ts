/**
 * The store's own medium fails while hosts are at work: full, or read-only, as a whole or in the part where the journal,
 * the intents or the bitmaps lie. On file systems of their own on loop devices; needs root.
 */
import { execFile } from 'node:child_process';
import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice } from '../../src/index.ts';
import { initStore } from '../../src/store/init.ts';
import { LoopFileSystem } from '../harness/loop-file-system.ts';
import { needClient, needRoot } from '../support/clients.ts';
import { blockOf, failure, lastSeq, VOLUME_BYTES } from '../support/pair-device.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const FILE_SYSTEM_BYTES = 96 * MiB;
const EXTENT_BYTES = 4 * MiB;
const run = promisify(execFile);

type Setup = AsyncDisposable & { readonly store: string; readonly fileSystem: LoopFileSystem; device: Device; restart(): Promise<Device> };

/** A device with a part of its store on a file system of its own; `part` empty: all of it. */
const openOn = async (part: '' | 'pv' | 'intents' | 'bitmaps', bytes: number = FILE_SYSTEM_BYTES): Promise<Setup> => {
  needRoot();
  needClient('mkfs.ext4');
  const temporary = await temporaryDirectory();
  const place = part === '' ? temporary.path('mnt', 's') : temporary.path('s');
  if (part !== '') await initStore(place, { pvBytes: 64 * MiB });
  const fileSystem = await LoopFileSystem.make({
    directory: temporary.path('fs'),
    bytes,
    type: 'ext4',
    mountPoint: part === '' ? temporary.path('mnt') : join(place, part),
    mountOptions: 'errors=remount-ro',
    makeOptions: ['-m', '0'],
  });
  if (part === '') await initStore(place, { pvBytes: 64 * MiB });
  // Where the socket lies has nothing to do with the medium.
  const start = (): Promise<Device> => openDevice({ store: place, lanes: 1, nbdUnix: temporary.path('nbd.sock') });
  const setup: Setup = {
    store: place,
    fileSystem,
    device: await start(),
    restart: async () => {
      await setup.device.close();
      await fileSystem.unmount();
      await fileSystem.mount('errors=remount-ro');
      setup.device = await start();
      return setup.device;
    },
    [Symbol.asyncDispose]: async () => {
      await setup.device.close();
      await fileSystem.remove();
      await temporary[Symbol.asyncDispose]();
    },
  };
  return setup;
};

const pairOf = async (device: Device) => {
  const db = await device.createVolume('db', VOLUME_BYTES);
  const copy = await device.createVolume('copy', VOLUME_BYTES, { attribute: 'secondary' });
  const other = await device.createVolume('other', VOLUME_BYTES);
  for (const volume of [db, other]) {
    await using host = await volume.connect();
    await host.write(0, blockOf(0, 2 * MiB, 1));
    await host.flush();
  }
  return { db, other, pair: await (await db.pair(copy)).wait('duplex') };
};

/** Takes all the space that is left. */
const fill = async ({ mountPoint }: LoopFileSystem): Promise<void> => {
  const ballast = await open(join(mountPoint, 'ballast'), 'w');
  try {
    for (const bytes of [MiB, 64 * KiB, 4 * KiB, 512]) {
      for (;;) {
        const wrote = await ballast.write(Buffer.alloc(bytes, 1)).catch(() => null);
        if (wrote === null || wrote.bytesWritten < bytes) break;
      }
    }
    await ballast.sync().catch(() => undefined);
  } finally {
    await ballast.close();
  }
};

const relieve = ({ mountPoint }: LoopFileSystem): Promise<void> => rm(join(mountPoint, 'ballast'));

const textsSince = async (device: Device, since: number): Promise<string> => {
  const texts: string[] = [];
  for await (const { kind, data } of device.events({ follow: false, since }))
    if (kind === 'warning') texts.push(`${String(data['text'])} ${String(data['code'])}`);
  return texts.join('\n');
};

describe('a full medium', () => {
  it('[medium-full] gives hosts ENOSPC where new space is needed, and nothing else fails; space brings everything back', async () => {
    await using setup = await openOn('');
    const { device, fileSystem } = setup;
    const { db, other, pair } = await pairOf(device);
    await fill(fileSystem);
    await using host = await db.connect();
    await using otherHost = await other.connect();
    expect(await failure(host.write(8 * MiB, blockOf(8 * MiB, MiB, 2)))).toMatchObject({ code: 'NBD_ENOSPC' });
    // What has its space already is written, read and flushed.
    await host.write(0, blockOf(0, MiB, 2));
    await otherHost.write(0, blockOf(0, MiB, 2));
    await otherHost.flush();
    expect((await host.read(0, MiB)).equals(blockOf(0, MiB, 2))).toBe(true);
    await relieve(fileSystem);
    if (pair.state === 'suspended') await pair.resync();
    await pair.wait('duplex', { timeoutMs: 20_000 });
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(4 * MiB);
    await host.write(8 * MiB, blockOf(8 * MiB, MiB, 3));
    await host.flush();
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[journal-full] refuses commands, and lets no host feel it; what happened meanwhile is recorded when there is space', async () => {
    await using setup = await openOn('', 192 * MiB);
    const { device, fileSystem } = setup;
    const { db, pair } = await pairOf(device);
    await using host = await db.connect();
    await host.write(4 * MiB, blockOf(4 * MiB, EXTENT_BYTES, 1));
    await fill(fileSystem);
    const since = await lastSeq(device);
    // The journal keeps some space in reserve; here it is used up.
    let refused = '';
    for (let index = 0; refused === '' && index < 5000; index += 1) {
      refused = await device.engine.pairSet({ primary: 'db', pace: 1 + (index % 15) }).then(
        () => '',
        (error: { readonly code: string }) => error.code,
      );
    }
    expect(refused).toBe('STORE_FULL');
    await device.engine.faultAdd({ volume: 'copy', error: 'write', errno: 'EIO', count: 1 });
    await host.write(4 * MiB, blockOf(4 * MiB, 8 * KiB, 2));
    await host.flush();
    await pair.wait('suspended', { timeoutMs: 5000 });
    expect(await textsSince(device, since)).toContain('could not be recorded yet STORE_FULL');
    expect(await failure(pair.resync())).toMatchObject({ code: 'STORE_FULL' });
    expect(pair.state).toBe('suspended');
    await relieve(fileSystem);
    await expect
      .poll(
        () =>
          pair.resync().then(
            () => 'taken',
            (error: { readonly code: string }) => error.code,
          ),
        { timeout: 20_000 },
      )
      .toBe('taken');
    await pair.wait('duplex', { timeoutMs: 20_000 });
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(64 * KiB);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[intent-write-fails] fails the write that needs a new mark, before it reaches any leg; marked extents go on', async () => {
    await using setup = await openOn('intents', 16 * MiB);
    const { device, fileSystem } = setup;
    const { db, other, pair } = await pairOf(device);
    await using host = await db.connect();
    await host.write(0, blockOf(0, 8 * KiB, 2));
    // As if the file's blocks were shared with a snapshot: writing to them needs space.
    for (const name of await readdir(fileSystem.mountPoint)) {
      if (name.endsWith('.map')) await run('fallocate', ['-p', '-o', '0', '-l', '4096', join(fileSystem.mountPoint, name)]);
    }
    await fill(fileSystem);
    expect(await failure(host.write(12 * MiB, blockOf(12 * MiB, 8 * KiB, 2)))).toMatchObject({ code: 'NBD_ENOSPC' });
    expect((await host.read(12 * MiB, 8 * KiB)).every((byte) => byte === 0)).toBe(true);
    await host.write(8 * KiB, blockOf(8 * KiB, 8 * KiB, 2));
    await using otherHost = await other.connect();
    await otherHost.write(12 * MiB, blockOf(12 * MiB, 8 * KiB, 2));
    expect(pair.state).toBe('duplex');
    await relieve(fileSystem);
    await host.write(12 * MiB, blockOf(12 * MiB, 8 * KiB, 3));
    expect(pair.state).toBe('duplex');
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[bitmap-write-fails] refuses the resync with its cause and leaves the pair split; space is all that it needs', async () => {
    await using setup = await openOn('bitmaps', 16 * MiB);
    const { device, fileSystem } = setup;
    const { db, pair } = await pairOf(device);
    await using host = await db.connect();
    await pair.split();
    await host.write(0, blockOf(0, 8 * KiB, 2));
    for (const name of await readdir(fileSystem.mountPoint)) {
      if (name.endsWith('.map')) await run('fallocate', ['-p', '-o', '0', '-l', '4096', join(fileSystem.mountPoint, name)]);
    }
    await fill(fileSystem);
    const refused = await failure(pair.resync());
    expect(refused.message).toMatch(/ENOSPC|full/);
    expect(['split', 'suspended']).toContain(pair.state);
    await host.write(MiB, blockOf(MiB, 8 * KiB, 2));
    await relieve(fileSystem);
    await (await pair.resync()).wait('duplex');
    expect(pair.status().copiedBytes).toBe(2 * 64 * KiB);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });
});

describe('a medium that turns read-only', () => {
  it('[read-only] fails writes and flushes and lets hosts read; mounted again, the next start copies the difference', async () => {
    await using setup = await openOn('');
    const { fileSystem } = setup;
    const { db, other, pair } = await pairOf(setup.device);
    {
      await using host = await db.connect();
      await host.write(0, blockOf(0, MiB, 2));
      await host.flush();
      await fileSystem.failOnError();
      const since = await lastSeq(setup.device);
      expect(await failure(host.write(0, blockOf(0, MiB, 3)))).toMatchObject({ code: 'NBD_EPERM' });
      expect(await failure(host.flush())).toMatchObject({ code: 'NBD_EPERM' });
      expect((await host.read(0, MiB)).equals(blockOf(0, MiB, 2))).toBe(true);
      await using otherHost = await other.connect();
      expect((await otherHost.read(0, MiB)).equals(blockOf(0, MiB, 1))).toBe(true);
      expect(await failure(otherHost.write(0, blockOf(0, 4 * KiB, 2)))).toMatchObject({ code: 'NBD_EPERM' });
      expect(await failure(setup.device.createVolume('new', VOLUME_BYTES))).toMatchObject({ code: 'STORE_IO' });
      await pair.wait('suspended', { timeoutMs: 10_000 });
      expect(await textsSince(setup.device, since)).toContain('EROFS');
    }
    const device = await setup.restart();
    const [again] = device.pairs();
    if (again === undefined) throw new Error('the pair is gone');
    if (again.state === 'suspended') await again.resync();
    await again.wait('duplex', { timeoutMs: 20_000 });
    expect(again.status().copiedBytes).toBeLessThanOrEqual(2 * EXTENT_BYTES);
    await using host = await device.volume('db').connect();
    expect((await host.read(0, MiB)).equals(blockOf(0, MiB, 2))).toBe(true);
    await host.write(0, blockOf(0, MiB, 4));
    await host.flush();
    expect(await again.verify()).toMatchObject({ differingBytes: 0 });
  });
});
