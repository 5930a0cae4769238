/**
 * A volume on a medium that keeps its callers: a physical volume that is a file of nbdfuse, behind nbdkit with a delay.
 * Every call on it blocks its thread, as reads of a cold disk do; other volumes on the same lane go on all the same.
 *
 * Needs root for the FUSE mount. Mount and processes are taken away whatever happens.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { type Device, openDevice } from '../../src/index.ts';
import { KiB, MiB } from '../../src/core/units.ts';
import type { NbdClient } from '../../src/nbd-client/index.ts';
import { Random } from '../harness/random.ts';
import { needClient, needRoot, run } from '../support/clients.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { watchWorkerThreads } from '../support/worker-threads.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const DELAY_MS = 3;
const VOLUME_BYTES = 12 * MiB;

const until = async (what: string, condition: () => boolean): Promise<void> => {
  for (const deadline = performance.now() + 10_000; !condition(); await sleep(20)) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
  }
};

/** Puts a delay before every read and write of a file, in its place. */
const slowed = async (file: string, temporary: TemporaryDirectory): Promise<AsyncDisposable> => {
  const [medium, socket, folder] = ['medium', 'nbdkit.sock', 'fuse'].map((name) => temporary.path(name)) as [string, string, string];
  fs.renameSync(file, medium);
  fs.mkdirSync(folder);
  const delays = [`rdelay=${DELAY_MS}ms`, `wdelay=${DELAY_MS}ms`];
  const server = spawn(needClient('nbdkit'), ['-f', '-U', socket, '--filter=delay', 'file', medium, ...delays], { stdio: 'ignore' });
  await until('nbdkit listens', () => fs.existsSync(socket));
  fs.writeFileSync(`${folder}/pv`, '');
  const fuse = spawn(needClient('nbdfuse'), [`${folder}/pv`, `nbd+unix://?socket=${socket}`], { stdio: 'ignore' });
  await until('nbdfuse shows the file', () => fs.statSync(`${folder}/pv`).size > 0);
  fs.symlinkSync(`${folder}/pv`, file);
  return {
    async [Symbol.asyncDispose]() {
      const ends = [server, fuse].filter(({ exitCode }) => exitCode === null).map((child) => once(child, 'exit'));
      await run('fusermount3', ['-u', `${folder}/pv`]);
      server.kill('SIGTERM');
      fuse.kill('SIGTERM');
      await Promise.all(ends);
    },
  };
};

/** A store with a slow physical volume: `slow` lies on it, `quick` and `mate` do not. */
const slowDevice = async (temporary: TemporaryDirectory): Promise<{ device: Device; medium: AsyncDisposable }> => {
  const store = temporary.path('store');
  {
    await using device = await openDevice({ store, create: true, pvSize: '16M' });
    for (const name of ['quick', 'slow']) await device.createVolume(name, VOLUME_BYTES);
    await device.createVolume('mate', VOLUME_BYTES, { attribute: 'secondary' });
  }
  const medium = await slowed(`${store}/pv/00002.img`, temporary);
  return { device: await openDevice({ store, lanes: 1 }), medium };
};

/** Reads of 4 KiB at depth 8 for a while. @returns how many were answered */
const readsIn = async (client: NbdClient, forMs: number): Promise<number> => {
  const end = performance.now() + forMs;
  let count = 0;
  const reader = async (): Promise<void> => {
    while (performance.now() < end) {
      await client.read(Math.floor(Math.random() * (VOLUME_BYTES / 4096)) * 4096, 4096);
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: 8 }, reader));
  return count;
};

it('a slow medium keeps nobody but its own clients waiting', async () => {
  needRoot();
  await using temporary = await temporaryDirectory();
  const { device, medium } = await slowDevice(temporary);
  await using _medium = medium;
  await using _device = device;
  await using quick = await device.volume('quick').connect();
  await using slow = await device.volume('slow').connect();
  await readsIn(quick, 300);
  const alone = await readsIn(quick, 1000);
  const load = readsIn(slow, 2500);
  await sleep(300);
  const beside = await readsIn(quick, 1000);
  const served = await load;
  // A lane that waited for the medium would answer some 300 in a second, of the thousands that it does alone.
  expect(beside / alone).toBeGreaterThan(0.5);
  expect(served).toBeGreaterThan(50);
});

it('what is written to and read from a slow medium is right, in a pair, in pieces and in any order', async () => {
  needRoot();
  await using temporary = await temporaryDirectory();
  const { device, medium } = await slowDevice(temporary);
  await using _medium = medium;
  await using _device = device;
  const pair = await device.volume('slow').pair(device.volume('mate'));
  await pair.wait('duplex');
  await using client = await device.volume('slow').connect();
  const model = Buffer.alloc(VOLUME_BYTES);
  const random = new Random(20_251_122);
  const lengths = [512, 4 * KiB, 60 * KiB, 300 * KiB, 1300 * KiB];
  for (let round = 0; round < 40; round += 1) {
    // Eight ranges that do not overlap, all at once.
    await Promise.all(
      Array.from({ length: 8 }, async (_, part) => {
        const length = random.pick(lengths);
        const offset = part * (VOLUME_BYTES / 8) + random.int(0, (VOLUME_BYTES / 8 - length) / 512) * 512;
        const kind = random.int(0, 4);
        if (kind < 2) {
          const bytes = Buffer.alloc(length, 1 + random.int(0, 254));
          bytes.copy(model, offset);
          await client.write(offset, bytes, { fua: random.int(0, 3) === 0 });
        } else if (kind === 2) {
          model.fill(0, offset, offset + length);
          await client.writeZeroes(offset, length, { noHole: true });
        } else expect((await client.read(offset, length)).equals(model.subarray(offset, offset + length))).toBe(true);
      }),
    );
  }
  await client.flush();
  expect((await client.read(0, VOLUME_BYTES)).equals(model)).toBe(true);
  await client.disconnect();
  expect((await device.engine.pairVerify({ primary: 'slow' })).differingBytes).toBe(0);
});

it('the slow worker dies: what it had taken fails, what comes next is served', async () => {
  needRoot();
  await using temporary = await temporaryDirectory();
  const { device, medium } = await slowDevice(temporary);
  await using _medium = medium;
  using threads = watchWorkerThreads();
  await using _device = device;
  await using client = await device.volume('slow').connect();
  await readsIn(client, 500);
  const slowWorker = threads.since(0).at(-1);
  expect(slowWorker).toBeDefined();
  const reads = Promise.allSettled(Array.from({ length: 64 }, (_, index) => client.read(index * (VOLUME_BYTES / 64), 4096)));
  await sleep(20);
  await slowWorker?.terminate();
  const codes = (await reads).map((read) => (read.status === 'fulfilled' ? 'done' : (read.reason as { code: string }).code));
  expect(codes).toContain('NBD_EIO');
  expect(codes.filter((code) => code !== 'done' && code !== 'NBD_EIO')).toEqual([]);
  expect((await client.read(0, 4096)).length).toBe(4096);
  expect(await readsIn(client, 300)).toBeGreaterThan(8);
});
