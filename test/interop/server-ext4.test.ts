/**
 * A real file system on a volume: ext4 through nbdfuse and a loop device, used, unmounted and checked. What the kernel
 * asks for in between (write-back in any order, flushes, discards, zeroes) is what the server has to get right.
 *
 * Needs root. Loop device, mounts and processes are taken away whatever happens.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { needClient, needRoot, run } from '../support/clients.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const MiB = 2 ** 20;
const CAPACITY_BYTES = 192 * MiB;

const ok = async (command: string, ...args: string[]): Promise<string> => {
  const { status, stdout, stderr } = await run(needClient(command), args, { timeoutMs: 60_000 });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`);
  return stdout.trim();
};

/** A volume as a file, by nbdfuse. */
class FuseFile implements AsyncDisposable {
  readonly path: string;
  readonly #folder: string;
  readonly #child: ChildProcess;

  constructor(folder: string, uri: string) {
    fs.mkdirSync(folder);
    this.#folder = folder;
    this.path = `${folder}/nbd`;
    this.#child = spawn(needClient('nbdfuse'), ['-o', 'allow_other', folder, uri], { stdio: 'ignore' });
  }

  async ready(): Promise<this> {
    for (let waitedMs = 0; waitedMs < 5000; waitedMs += 20) {
      if (fs.existsSync(this.path)) return this;
      await sleep(20);
    }
    throw new Error('nbdfuse does not show the volume');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) resolve();
      else this.#child.once('exit', () => resolve());
    });
    await run('fusermount3', ['-u', this.#folder]).catch(() => run('fusermount', ['-u', this.#folder]));
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    await gone;
    clearTimeout(timer);
    await run('umount', ['-l', this.#folder]);
  }
}

class LoopDevice implements AsyncDisposable {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  static async over(file: string): Promise<LoopDevice> {
    return new LoopDevice(await ok('losetup', '--find', '--show', file));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('losetup', ['-d', this.path]);
  }
}

class Mount implements AsyncDisposable {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  static async of(device: string, folder: string, options: string): Promise<Mount> {
    fs.mkdirSync(folder, { recursive: true });
    await ok('mount', '-t', 'ext4', '-o', options, device, folder);
    return new Mount(folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if ((await run('umount', [this.folder])).status !== 0) await run('umount', ['-l', this.folder]);
  }
}

/** A container may not let even its root make a loop device: a skipped test then, but a failure in CI. */
const needLoop = async (temporary: TemporaryDirectory, skip: (note: string) => void): Promise<void> => {
  const file = temporary.path('probe');
  fs.writeFileSync(file, Buffer.alloc(MiB));
  const { status, stdout, stderr } = await run(needClient('losetup'), ['--find', '--show', file]);
  if (status === 0) await run('losetup', ['-d', stdout.trim()]);
  else if ((process.env.CI ?? '') === '') skip(`no loop devices here: ${stderr.trim()}`);
};

const digest = (path: string): string => createHash('sha256').update(fs.readFileSync(path)).digest('hex');

const useFileSystem = async (folder: string): Promise<Map<string, string>> => {
  const sums = new Map<string, string>();
  for (let index = 0; index < 200; index += 1) {
    const path = `${folder}/d${index % 7}/f${index}`;
    fs.mkdirSync(`${folder}/d${index % 7}`, { recursive: true });
    fs.writeFileSync(path, randomBytes(index % 20 === 0 ? 3 * MiB : 1 + ((index * 4099) % 200_000)));
    if (index % 3 === 0) fs.rmSync(path);
    else sums.set(path.slice(folder.length), digest(path));
    if (index % 50 === 0) await ok('sync', '-f', folder);
  }
  await ok('fstrim', folder);
  return sums;
};

it.for(BOTH_KINDS)(
  'ext4 on a volume keeps its files and checks clean after use: $kind',
  { timeout: 120_000 },
  async ({ native }, { skip }) => {
    needRoot();
    for (const program of ['nbdfuse', 'losetup', 'mkfs.ext4', 'fsck.ext4', 'mount', 'fstrim']) needClient(program);
    await using temporary = await temporaryDirectory();
    await needLoop(temporary, skip);
    await using server: NbdServerProcess = await startNbdServer({
      native,
      durability: 'power',
      volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }],
    });
    const sums = new Map<string, string>();
    {
      await using fuse = await new FuseFile(temporary.path('fuse'), server.uri('v')).ready();
      expect(fs.statSync(fuse.path).size).toBe(CAPACITY_BYTES);
      await using loop = await LoopDevice.over(fuse.path);
      await ok('mkfs.ext4', '-q', loop.path);
      {
        await using mount = await Mount.of(loop.path, temporary.path('mnt'), 'discard');
        for (const [name, sum] of await useFileSystem(mount.folder)) sums.set(name, sum);
      }
      // Also after a second mount everything is there.
      await using again = await Mount.of(loop.path, temporary.path('mnt'), 'ro');
      for (const [name, sum] of sums) expect([name, digest(again.folder + name)]).toEqual([name, sum]);
    }
    // Checked from outside: the image as it is on the volume, without kernel or FUSE in between.
    const image = temporary.path('image.raw');
    await ok('nbdcopy', server.uri('v'), image);
    expect(await ok('fsck.ext4', '-fn', image)).toMatch(/clean|Pass 5/);
    const { stderr, status } = await run('fsck.ext4', ['-fn', image]);
    expect([status, stderr.replace(/^e2fsck .*\n?/, '')]).toEqual([0, '']);
    expect(await server.call<number>('clientCount')).toBe(0);
  },
);
