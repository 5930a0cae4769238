/**
 * The agent's finders on this very machine: a volume served by a real NBD server is used through FUSE, loop devices, file
 * systems, swap, a partition, a relay, other namespaces and plain processes, and each use has to be found, and nothing
 * once it has ended. Needs root. Every mount, loop device and process is undone at the end of its test, also of a failed one.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { blindSpots, runAgent, systemProbe } from '../../src/agent/agent.ts';
import { inspectHost } from '../../src/agent/inspect.ts';
import { SILENT_LOG } from '../../src/control/control-log.ts';
import { InquiryService } from '../../src/control/inquiry-service.ts';
import type { HostFact, InquiryTarget } from '../../src/core/mount-facts.ts';
import { needClient, needRoot, run } from '../support/clients.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import type { TemporaryDirectory } from '../support/temporary.ts';
import { temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const MiB = 1024 * 1024;

const eventually = async <T>(find: () => T | null | Promise<T | null>, what: string, ms = 10_000): Promise<T> => {
  const end = performance.now() + ms;
  while (true) {
    const found = await find();
    if (found !== null) return found;
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const must = async (command: string, ...args: string[]): Promise<string> => {
  const result = await run(needClient(command), args);
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr || result.stdout}`);
  return result.stdout.trim();
};

/** A bench: a raw file behind a real NBD server, and all that has to be undone, last first. */
class Bench implements AsyncDisposable {
  readonly #temporary: TemporaryDirectory;
  readonly #undo: (() => unknown)[] = [];

  private constructor(temporary: TemporaryDirectory) {
    this.#temporary = temporary;
  }

  static async make(): Promise<Bench> {
    needRoot();
    return new Bench(await temporaryDirectory());
  }

  path(name: string): string {
    return this.#temporary.path(name);
  }

  undo(action: () => unknown): void {
    this.#undo.push(action);
  }

  start(command: string, args: readonly string[], cwd = this.#temporary.root): ChildProcess {
    const child = spawn(needClient(command), args, { cwd, stdio: ['pipe', 'ignore', 'ignore'] });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    this.undo(async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
      await ended;
      clearTimeout(timer);
    });
    return child;
  }

  /** Serves `vol1` of that size on a unix socket; returns the target to inquire about. */
  async serve(sizeBytes: number): Promise<InquiryTarget & { readonly uri: string }> {
    writeFileSync(this.path('disk'), '');
    truncateSync(this.path('disk'), sizeBytes);
    this.start('nbdkit', ['-f', '-U', this.path('n.sock'), '-e', 'vol1', 'file', this.path('disk')]);
    const uri = `nbd+unix:///vol1?socket=${this.path('n.sock')}`;
    await this.#connectable(uri);
    return { volume: 1, name: 'vol1', uris: [uri], uri };
  }

  async #connectable(uri: string): Promise<void> {
    await eventually(async () => ((await run(needClient('nbdinfo'), ['--size', uri])).status === 0 ? true : null), `${uri} can be reached`);
  }

  async serveTcp(): Promise<InquiryTarget & { readonly uri: string }> {
    writeFileSync(this.path('disk'), '');
    truncateSync(this.path('disk'), 8 * MiB);
    const port = 20_000 + (process.pid % 20_000);
    this.start('nbdkit', ['-f', '-i', '127.0.0.1', '-p', String(port), '-e', 'vol1', 'file', this.path('disk')]);
    const uri = `nbd://127.0.0.1:${port}/vol1`;
    await this.#connectable(uri);
    return { volume: 1, name: 'vol1', uris: [uri], uri };
  }

  async folder(name: string): Promise<string> {
    await mkdir(this.path(name));
    return this.path(name);
  }

  /** Shows the export as a file by nbdfuse; returns the file's path and how to end it. */
  async fuse(args: readonly string[], sizeBytes: number): Promise<{ readonly file: string; end(): Promise<void> }> {
    const folder = await this.folder('fuse');
    this.start('nbdfuse', ['fuse', ...args]);
    const file = `${folder}/nbd`;
    const end = async (): Promise<void> => {
      await run(needClient('fusermount3'), ['-u', folder]);
    };
    this.undo(end);
    await eventually(() => (statSync(file, { throwIfNoEntry: false })?.size === sizeBytes ? true : null), 'nbdfuse shows its file');
    return { file, end };
  }

  async loop(file: string): Promise<{ readonly device: string; end(): Promise<void> }> {
    const device = await must('losetup', '-P', '--find', '--show', file);
    const end = async (): Promise<void> => {
      await run(needClient('losetup'), ['-d', device]);
    };
    this.undo(end);
    return { device, end };
  }

  async mount(device: string, name: string, ...options: string[]): Promise<{ readonly place: string; end(): Promise<void> }> {
    const place = await this.folder(name);
    await must('mount', ...options, device, place);
    const end = async (): Promise<void> => {
      await run(needClient('umount'), [place]);
    };
    this.undo(end);
    return { place, end };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const action of this.#undo.reverse()) await action();
    await this.#temporary[Symbol.asyncDispose]();
  }
}

const PROBE = systemProbe('namespace');
const look = async (target: InquiryTarget): Promise<readonly HostFact[]> => (await inspectHost(PROBE, [target], []))[0]?.facts ?? [];
/** Processes that come and go by themselves (udev, blkid) may hold a device for a moment. */
const lookUntil = (target: InquiryTarget, isIt: (facts: readonly HostFact[]) => boolean): Promise<readonly HostFact[]> => {
  let last: readonly HostFact[] = [];
  return eventually(
    async () => {
      last = await look(target);
      return isIt(last) ? last : null;
    },
    `the facts; the last ones were ${JSON.stringify(last)}`,
  ).catch(() => last);
};
const nothing = [{ kind: 'not-mounted' }];
const layerKinds = (fact: HostFact | undefined): string[] =>
  fact?.kind === 'mounted' || fact?.kind === 'open' ? fact.layers.map((layer) => layer.kind) : [];

describe('a volume through nbdfuse, a loop device and a file system', () => {
  it.each([
    ['ext4', 32 * MiB, ['-q', '-F'], 'rw'],
    ['xfs', 320 * MiB, ['-q', '-f'], 'rw'],
    ['btrfs', 128 * MiB, ['-q', '-f'], 'ro'],
  ] as const)('%s is found step by step, and nothing of it in the end', async (type, sizeBytes, options, access) => {
    needClient(`mkfs.${type}`);
    await using bench = await Bench.make();
    const target = await bench.serve(sizeBytes);
    expect(await look(target)).toEqual(nothing);
    const fuse = await bench.fuse([target.uri], sizeBytes);
    expect(await look(target)).toMatchObject([{ kind: 'open', device: bench.path('fuse'), processes: [{ name: 'nbdfuse' }] }]);
    const loop = await bench.loop(fuse.file);
    await must(`mkfs.${type}`, ...options, loop.device);
    expect(await lookUntil(target, ([fact]) => fact?.kind === 'open' && fact.processes[0]?.name === 'nbdfuse')).toMatchObject([
      { kind: 'open', device: loop.device },
    ]);
    const mount = await bench.mount(loop.device, 'with blank', '-o', access);
    const [fact, ...rest] = await look(target);
    expect(fact).toMatchObject({
      kind: 'mounted',
      device: loop.device,
      mountPoint: mount.place,
      fileSystem: type,
      access,
      namespace: null,
    });
    expect(layerKinds(fact)).toEqual(['connection', 'fuse', 'loop']);
    expect(fact?.kind === 'mounted' && fact.connections.every((ref) => /^unix:\d+$/.test(ref))).toBe(true);
    expect(rest).toEqual([]);
    await mount.end();
    expect(await look(target)).toMatchObject([{ kind: 'open', device: loop.device }]);
    await loop.end();
    await lookUntil(target, ([one]) => one?.kind === 'open' && one.device === bench.path('fuse'));
    await fuse.end();
    expect(await lookUntil(target, ([one]) => one?.kind === 'not-mounted')).toEqual(nothing);
  });

  it('is found in another mount namespace, and a disk image inside it as well', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(32 * MiB);
    const fuse = await bench.fuse([target.uri], 32 * MiB);
    const loop = await bench.loop(fuse.file);
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const inner = await bench.folder('inner');
    const script = `mount ${loop.device} ${inner} && truncate -s 4M ${inner}/image && mkswap -q ${inner}/image && exec sleep 60`;
    bench.start('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script]);
    const facts = await lookUntil(target, ([fact]) => fact?.kind === 'mounted');
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: inner, fileSystem: 'ext4' });
    expect(facts[0]?.kind === 'mounted' && facts[0].namespace).toMatch(/^(?:sh|sleep|mkswap|truncate) \(pid \d+\)$/);
  });

  it('is found with an image inside the file system that is itself set up as a loop device', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(32 * MiB);
    const fuse = await bench.fuse([target.uri], 32 * MiB);
    const loop = await bench.loop(fuse.file);
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const mount = await bench.mount(loop.device, 'outer');
    await must('truncate', '-s', '8M', `${mount.place}/image`);
    const image = await bench.loop(`${mount.place}/image`);
    await must('mkfs.ext4', '-q', '-F', image.device);
    const nested = await bench.mount(image.device, 'nested');
    const facts = await look(target);
    expect(facts.map((fact) => (fact.kind === 'mounted' ? fact.mountPoint : fact.kind))).toEqual([mount.place, nested.place]);
    expect(layerKinds(facts[1])).toEqual(['connection', 'fuse', 'loop', 'file-system', 'loop']);
  });
});

describe('a volume that is not mounted', () => {
  it('is found as swap space on a partition', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(32 * MiB);
    const fuse = await bench.fuse([target.uri], 32 * MiB);
    const loop = await bench.loop(fuse.file);
    // The kernel need not know partition tables: addpart tells it of a partition.
    await must('addpart', loop.device, '1', '2048', '40960');
    const partition = `${loop.device}p1`;
    await eventually(() => (statSync(partition, { throwIfNoEntry: false }) === undefined ? null : true), partition);
    await must('mkswap', partition);
    await must('swapon', partition);
    bench.undo(() => run(needClient('swapoff'), [partition]));
    const facts = await look(target);
    expect(facts).toMatchObject([{ kind: 'mounted', mountPoint: '[swap]', fileSystem: 'swap', device: partition }]);
    expect(layerKinds(facts[0])).toEqual(['connection', 'fuse', 'loop', 'partition', 'swap']);
  });

  it('is found by the process that holds its device, or the file of nbdfuse, open', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(8 * MiB);
    const fuse = await bench.fuse([target.uri], 8 * MiB);
    const holder = bench.start('sh', ['-c', `exec 7<${fuse.file}; exec sleep 60`]);
    const facts = await lookUntil(
      target,
      ([fact, ...others]) => fact?.kind === 'open' && fact.processes[0]?.pid === holder.pid && others.length === 0,
    );
    expect(facts).toMatchObject([{ kind: 'open', processes: [{ pid: holder.pid }] }]);
    const loop = await bench.loop(fuse.file);
    const other = bench.start('sh', ['-c', `exec 7<${loop.device}; exec sleep 60`]);
    const both = await lookUntil(target, (list) => list.length === 2);
    const holders = both.flatMap((fact) => (fact.kind === 'open' ? fact.processes.map(({ pid }) => pid) : []));
    expect(new Set(holders)).toEqual(new Set([holder.pid, other.pid]));
  });

  it('is found by a client that is connected, over a unix socket and over TCP', async () => {
    for (const transport of ['unix', 'tcp'] as const) {
      await using bench = await Bench.make();
      const target = transport === 'unix' ? await bench.serve(8 * MiB) : await bench.serveTcp();
      expect(await look(target)).toEqual(nothing);
      const client = bench.start('qemu-io', ['-f', 'raw', '-r', target.uri]);
      const facts = await lookUntil(target, ([fact]) => fact?.kind === 'open' && fact.connections.length > 0);
      expect(facts).toMatchObject([{ kind: 'open', processes: [{ name: 'qemu-io', pid: client.pid }] }]);
      const other: InquiryTarget = { volume: 2, name: 'vol2', uris: [target.uri.replace('vol1', 'vol2')] };
      expect(await look(other)).toEqual(nothing);
    }
  });

  it('is found behind qemu-storage-daemon', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(8 * MiB);
    writeFileSync(bench.path('shown'), '');
    const node = `driver=nbd,node-name=n,server.type=unix,server.path=${bench.path('n.sock')},export=vol1`;
    bench.start('qemu-storage-daemon', ['--blockdev', node, '--export', 'type=fuse,id=e,node-name=n,mountpoint=shown,writable=on']);
    bench.undo(() => run(needClient('umount'), ['-l', bench.path('shown')]));
    await eventually(() => (statSync(bench.path('shown')).size === 8 * MiB ? true : null), 'the export of qemu-storage-daemon');
    expect(await look(target)).toMatchObject([{ kind: 'open', device: bench.path('shown'), processes: [{ name: 'qemu-storage-da' }] }]);
    const loop = await bench.loop(bench.path('shown'));
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const mount = await bench.mount(loop.device, 'mnt');
    const facts = await look(target);
    expect(facts).toMatchObject([{ kind: 'mounted', mountPoint: mount.place }]);
    await mount.end();
    await loop.end();
  });

  it('is found behind a relay: nbdfuse over qemu-nbd over the volume', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(8 * MiB);
    const fuse = await bench.fuse(['[', needClient('qemu-nbd'), '-f', 'raw', target.uri, ']'], 8 * MiB);
    const loop = await bench.loop(fuse.file);
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const mount = await bench.mount(loop.device, 'mnt');
    const facts = await look(target);
    expect(facts).toContainEqual(expect.objectContaining({ kind: 'mounted', mountPoint: mount.place }));
    const mounted = facts.find((fact) => fact.kind === 'mounted');
    expect(layerKinds(mounted)).toEqual(['connection', 'connection', 'fuse', 'loop']);
    await mount.end();
    await loop.end();
  });

  it('is found behind a network namespace of its own', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(8 * MiB);
    const client = bench.start('unshare', ['--net', needClient('qemu-io'), '-f', 'raw', '-r', target.uri]);
    const facts = await lookUntil(target, ([fact]) => fact?.kind === 'open' && fact.connections.length > 0);
    expect(facts).toMatchObject([{ kind: 'open', processes: [{ pid: client.pid }] }]);
  });
});

describe('an agent without root', () => {
  const asNobody = async <T>(action: () => Promise<T>): Promise<T> => {
    process.seteuid?.(65_534);
    try {
      return await action();
    } finally {
      process.seteuid?.(0);
    }
  };
  /** Without what another test's network namespaces hide, which cannot be entered without root. */
  const seenAsNobody = async (target: InquiryTarget): Promise<readonly HostFact[]> => {
    const facts = await asNobody(() => look(target));
    return facts.filter((fact) => fact.kind !== 'unknown' || fact.what !== 'the network connections of a namespace without processes');
  };

  it('starts, says what it cannot see, finds the mount all the same, and never says "not mounted" in its place', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(32 * MiB);
    const fuse = await bench.fuse([target.uri], 32 * MiB);
    const loop = await bench.loop(fuse.file);
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const mount = await bench.mount(loop.device, 'mnt');
    const spots = await asNobody(() => blindSpots(PROBE));
    expect(spots.join('\n')).toMatch(/which connections \d+ processes hold/);
    const facts = await seenAsNobody(target);
    // Its folder may not be read either: the mount point of nbdfuse, given as "fuse", is one that ends so.
    expect(facts[0]).toMatchObject({ kind: 'mounted', mountPoint: mount.place });
    expect(facts.map((fact) => fact.kind)).toEqual(['mounted', 'unknown']);
    await mount.end();
  });

  it('doubts a connection of a process that it may not look into', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(8 * MiB);
    // Of the same server, but another volume: without the right to look at descriptors nobody can tell that here.
    bench.start('qemu-io', ['-f', 'raw', '-r', target.uri]);
    const other: InquiryTarget = { volume: 2, name: 'vol2', uris: [target.uri.replace('vol1', 'vol2')] };
    await lookUntil(target, ([fact]) => fact?.kind === 'open' && fact.connections.length > 0);
    const facts = await seenAsNobody(other);
    expect(facts).toMatchObject([{ kind: 'unknown', connections: [expect.stringMatching(/^unix:\d+$/)] }]);
  });
});

describe('the agent and the device together', () => {
  it('answers an inquiry about a real mount, and reports it when it ends', async () => {
    await using bench = await Bench.make();
    const target = await bench.serve(32 * MiB);
    const fuse = await bench.fuse([target.uri], 32 * MiB);
    const loop = await bench.loop(fuse.file);
    await must('mkfs.ext4', '-q', '-F', loop.device);
    const mount = await bench.mount(loop.device, 'mnt');
    const row = {
      name: 'web1',
      tokenSha256: 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',
      grants: {},
      createdAtMs: 0,
    };
    const service = new InquiryService({ hosts: () => [row], watchOf: () => [target], log: SILENT_LOG });
    bench.undo(() => service.close());
    await service.listenUnix(bench.path('agents.sock'));
    const end = new AbortController();
    const control = { kind: 'unix', path: bench.path('agents.sock') } as const;
    const agent = runAgent(
      { control, host: 'web1', token: 'a', log: SILENT_LOG, probe: PROBE, times: { compareMs: 100, lookMs: 60_000 } },
      end.signal,
    );
    bench.undo(async () => {
      end.abort();
      await agent;
    });
    await eventually(() => service.mountTable()[0] ?? null, 'the first report');
    const [answer] = await service.ask({ targets: [target], asked: [{ host: 'web1', volumes: [1] }] });
    expect(answer).toMatchObject({ outcome: 'answered', facts: [{ kind: 'mounted', mountPoint: mount.place }] });
    await mount.end();
    await eventually(
      () => (service.mountTable()[0]?.facts.some((fact) => fact.kind === 'mounted') === false ? true : null),
      'the report of the unmount',
    );
    await loop.end();
    await fuse.end();
    await eventually(async () => {
      const [after] = await service.ask({ targets: [target], asked: [{ host: 'web1', volumes: [1] }] });
      return after?.outcome === 'answered' && after.facts[0]?.kind === 'not-mounted' ? true : null;
    }, 'an answer of "not mounted"');
  });

  it('sees this machine, mounts and all, in a fraction of the deadline', async () => {
    needRoot();
    const startedMs = performance.now();
    await look({ volume: 1, name: 'vol1', uris: ['nbd+unix:///vol1?socket=/nowhere/n.sock'] });
    const tookMs = performance.now() - startedMs;
    expect(tookMs).toBeLessThan(1500);
    console.info(`one look at this machine took ${Math.round(tookMs)} ms`);
  });
});
