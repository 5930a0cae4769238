/**
 * Our NBD client against the field's servers on unix sockets: nbdkit, qemu-nbd, nbd-server; in clear text and in TLS
 * with certificates made on the spot.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { NbdError, connect, listExports } from '../../src/nbd-client/index.ts';
import { hasClient, run } from '../support/clients.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const MiB = 1024 * 1024;

/** A server process that ends with the test. */
class ServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #pidFile: string | null;
  #log = '';

  /** @param pidFile of a server that goes to the background by itself */
  constructor(command: string, args: readonly string[], pidFile: string | null = null) {
    this.#pidFile = pidFile;
    this.#child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout?.on('data', (text: Buffer) => (this.#log += text.toString()));
    this.#child.stderr?.on('data', (text: Buffer) => (this.#log += text.toString()));
  }

  /** Waits until somebody listens on the socket. */
  async ready(path: string): Promise<this> {
    for (let tries = 0; tries < 400; tries += 1) {
      if (this.#child.exitCode !== null && this.#pidFile === null) throw new Error(`the server ended: ${this.#log}`);
      const listens = await new Promise<boolean>((resolve) => {
        const probe = connectSocket(path);
        probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
        probe.once('connect', () => probe.destroy());
      });
      if (listens) return this;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`nobody listens on ${path}: ${this.#log}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#pidFile !== null) process.kill(Number(readFileSync(this.#pidFile, 'utf8')), 'SIGTERM');
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return (error as NbdError).code;
  }
};

const random = (length: number, seed: number): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 32) createHash('sha256').update(`${seed}:${at}`).digest().copy(bytes, at);
  return bytes;
};

const nbdkit = async (socket: string, ...args: string[]): Promise<ServerProcess> =>
  new ServerProcess('nbdkit', ['-f', '-U', socket, ...args]).ready(socket);

/** What every writable server has to give: many requests at once, then the same bytes again, and the holes told. */
const exercise = async (uri: string, connections: number): Promise<void> => {
  await using client = await connect({ uri, connections, depth: 16 });
  const { sizeBytes } = client.info;
  const pieces = Array.from({ length: 24 }, (_, index) => ({
    offset: index * 300_032,
    data: random(512 * (1 + ((index * 97) % 500)), index),
  }));
  await Promise.all(pieces.map((piece) => client.write(piece.offset, piece.data)));
  const large = random(5 * MiB, 99);
  await client.write(sizeBytes - large.length, large, { fua: true });
  if (client.info.canFlush) await client.flush();
  for (const piece of pieces) expect((await client.read(piece.offset, piece.data.length)).equals(piece.data)).toBe(true);
  expect((await client.read(sizeBytes - large.length, large.length)).equals(large)).toBe(true);
  if (client.info.canWriteZeroes) {
    await client.writeZeroes(0, 64 * 1024);
    expect((await client.read(0, 64 * 1024)).every((byte) => byte === 0)).toBe(true);
  }
  if (client.info.canTrim) await client.trim(8 * MiB, MiB);
  if (client.info.canCache) await client.cache(0, MiB);
  if (client.info.metaContexts.length > 0) {
    const extents = (await client.blockStatus(0, sizeBytes)).get('base:allocation') ?? [];
    expect(extents.reduce((sum, extent) => sum + extent.length, 0)).toBe(sizeBytes);
    expect(extents.at(-1)?.flags).toBe(0);
  }
};

describe.skipIf(!hasClient('nbdkit'))('nbdkit', () => {
  it.each([1, 4])('memory, %i connection(s)', async (connections) => {
    await using directory = await temporaryDirectory();
    const socket = directory.path('s');
    await using _server = await nbdkit(socket, 'memory', '64M');
    await exercise(`nbd+unix:///?socket=${socket}`, connections);
  });

  it('without structured replies, and without the option GO', async () => {
    await using directory = await temporaryDirectory();
    for (const [name, arg] of [
      ['a', '--no-sr'],
      ['b', '--mask-handshake=0'],
    ] as const) {
      const socket = directory.path(name);
      await using _server = await nbdkit(socket, arg, 'memory', '64M');
      await exercise(`nbd+unix:///?socket=${socket}`, 2);
    }
  });

  it('oldstyle is refused in words', async () => {
    await using directory = await temporaryDirectory();
    const socket = directory.path('s');
    await using _server = await nbdkit(socket, '-o', 'memory', '64M');
    await expect(connect({ socket })).rejects.toThrow(/oldstyle/);
  });

  it('sparse-random: data and holes as nbdkit lays them out', async () => {
    await using directory = await temporaryDirectory();
    const socket = directory.path('s');
    await using _server = await nbdkit(socket, 'sparse-random', '256M', 'percent=20', 'runlength=1048576', 'seed=3');
    await using client = await connect({ socket, connections: 2 });
    const extents = (await client.blockStatus(0, client.info.sizeBytes)).get('base:allocation') ?? [];
    expect(extents.length).toBeGreaterThan(10);
    for (const extent of extents.slice(0, 30)) {
      const bytes = await client.read(extent.offset, Math.min(extent.length, MiB));
      expect(bytes.every((byte) => byte === 0)).toBe((extent.flags & 2) !== 0);
    }
    // nbdkit checks here that what is written is what it would have read.
    const first = extents.find((extent) => extent.flags === 0);
    if (first !== undefined) await client.write(first.offset, await client.read(first.offset, 65_536));
    expect(await codeOf(client.write(first?.offset ?? 0, Buffer.alloc(65_536, 1)))).toBe('NBD_EIO');
  });

  it('block sizes, errors and a read-only file', async () => {
    await using directory = await temporaryDirectory();
    const file = directory.path('disk');
    writeFileSync(file, random(4 * MiB, 5));
    const [sized, readOnly, faulty] = [directory.path('a'), directory.path('b'), directory.path('c')];
    await using _one = await nbdkit(
      sized,
      '--filter=blocksize-policy',
      'memory',
      '64M',
      'blocksize-minimum=4096',
      'blocksize-maximum=65536',
      'blocksize-error-policy=error',
    );
    await using client = await connect({ socket: sized });
    expect(client.info.blockSizes).toMatchObject({ minimumBytes: 4096, maximumBytes: 65_536 });
    const data = random(MiB, 6);
    await client.write(4096, data);
    expect((await client.read(4096, data.length)).equals(data)).toBe(true);
    expect(await codeOf(client.read(512, 512))).toBe('NBD_EINVAL');
    await using _two = await nbdkit(readOnly, '-r', 'file', file);
    await using reader = await connect({ socket: readOnly });
    expect((await reader.read(0, 4 * MiB)).equals(readFileSync(file))).toBe(true);
    expect(await codeOf(reader.write(0, Buffer.alloc(512)))).toBe('NBD_EPERM');
    await using _three = await nbdkit(faulty, '--filter=error', 'memory', '64M', 'error=ENOSPC', 'error-pwrite-rate=100%');
    await using writer = await connect({ socket: faulty });
    expect(await codeOf(writer.write(0, Buffer.alloc(512)))).toBe('NBD_ENOSPC');
    expect(await writer.read(0, 512)).toHaveLength(512);
  });

  it('replies out of order: slow reads do not hold fast writes up', async () => {
    await using directory = await temporaryDirectory();
    const socket = directory.path('s');
    await using _server = await nbdkit(socket, '--filter=delay', 'memory', '64M', 'delay-read=300ms');
    await using client = await connect({ socket });
    const order: string[] = [];
    await Promise.all([
      client.read(0, 512).then(() => order.push('read')),
      client.write(MiB, Buffer.alloc(512)).then(() => order.push('write')),
    ]);
    expect(order).toEqual(['write', 'read']);
  });

  it('a server that is killed and comes back', async () => {
    await using directory = await temporaryDirectory();
    const [socket, file] = [directory.path('s'), directory.path('disk')];
    writeFileSync(file, Buffer.alloc(8 * MiB));
    const first = await nbdkit(socket, 'file', file);
    await using client = await connect({ socket, connections: 2, reconnect: { backoffMs: 20 } });
    await client.write(0, Buffer.alloc(512, 1));
    await first[Symbol.asyncDispose]();
    const write = client.write(512, Buffer.alloc(512, 2));
    await run('rm', ['-f', socket]);
    await using _second = await nbdkit(socket, 'file', file);
    await write;
    expect(await codeOf(client.flush())).toBe('NBD_FLUSH_LOST');
    await client.flush();
    expect(readFileSync(file).subarray(0, 1024)).toEqual(Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]));
  });
});

describe.skipIf(!hasClient('qemu-nbd'))('qemu-nbd', () => {
  const serve = async (directory: TemporaryDirectory, ...args: string[]): Promise<ServerProcess> => {
    const disk = directory.path('disk');
    await run('truncate', ['-s', '64M', disk]);
    return new ServerProcess('qemu-nbd', ['-k', directory.path('s'), '-f', 'raw', '-t', '-e', '8', ...args, disk]).ready(
      directory.path('s'),
    );
  };

  it('a raw file, several connections', async () => {
    await using directory = await temporaryDirectory();
    await using _server = await serve(directory, '-x', 'disk one', '-D', 'a disk', '--discard=unmap');
    const uri = `nbd+unix:///disk%20one?socket=${directory.path('s')}`;
    await exercise(uri, 3);
    await using client = await connect({ uri, metaContexts: ['base:allocation', 'qemu:allocation-depth'] });
    expect(client.info).toMatchObject({ description: 'a disk', canFua: true, structuredReplies: true });
    expect(await listExports(uri)).toEqual([{ name: 'disk one', description: 'a disk' }]);
    expect(await codeOf(connect({ socket: directory.path('s'), exportName: 'no' }))).toBe('NBD_REFUSED');
  });

  it('a dirty bitmap of a qcow2 image', async () => {
    await using directory = await temporaryDirectory();
    const image = directory.path('disk.qcow2');
    await run('qemu-img', ['create', '-f', 'qcow2', image, '64M']);
    await run('qemu-img', ['bitmap', '--add', '-g', '64k', image, 'b0']);
    await run('qemu-io', ['-c', 'write -P 1 1M 128k', image]);
    await using _server = await new ServerProcess('qemu-nbd', [
      '-k',
      directory.path('s'),
      '-f',
      'qcow2',
      '-t',
      '-r',
      '-B',
      'b0',
      image,
    ]).ready(directory.path('s'));
    await using client = await connect({ socket: directory.path('s'), metaContexts: ['base:allocation', 'qemu:dirty-bitmap:b0'] });
    const dirty = (await client.blockStatus(0, 64 * MiB)).get('qemu:dirty-bitmap:b0')?.filter((extent) => extent.flags === 1);
    expect(dirty).toEqual([{ offset: MiB, length: 128 * 1024, flags: 1 }]);
  });
});

describe.skipIf(!hasClient('nbd-server'))('nbd-server', () => {
  it('a file with flush, FUA and trim', async () => {
    await using directory = await temporaryDirectory();
    const [disk, socket, config] = [directory.path('disk'), directory.path('s'), directory.path('config')];
    await run('truncate', ['-s', '64M', disk]);
    // It insists on a TCP port beside the unix socket; port 0 would mean that inetd started it.
    const port = 40_000 + (process.pid % 20_000);
    writeFileSync(
      config,
      `[generic]\nunixsock = ${socket}\nlistenaddr = 127.0.0.1\nport = ${port}\nallowlist = true\n[one]\nexportname = ${disk}\nflush = true\nfua = true\ntrim = true\nmulticonn = true\n`,
    );
    const pidFile = directory.path('pid');
    await using _server = await new ServerProcess('nbd-server', ['-C', config, '-p', pidFile], pidFile).ready(socket);
    await exercise(`nbd+unix:///one?socket=${socket}`, 2);
    expect((await listExports({ socket })).map((entry) => entry.name)).toEqual(['one']);
  });
});

/** An authority, a server's certificate for `localhost` and a client's, as GnuTLS programs expect them in a directory. */
const makeCertificates = async (directory: TemporaryDirectory): Promise<string> => {
  const pki = directory.path('pki');
  mkdirSync(pki);
  const openssl = async (...args: string[]): Promise<void> => {
    const result = await run('openssl', args, { cwd: pki });
    if (result.status !== 0) throw new Error(result.stderr);
  };
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  await openssl('req', '-x509', ...newKey, '-subj', '/CN=test authority', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem');
  for (const [name, extension] of [
    ['server', 'subjectAltName=DNS:localhost'],
    ['client', 'extendedKeyUsage=clientAuth'],
  ] as const) {
    writeFileSync(`${pki}/${name}.ext`, extension);
    await openssl('req', ...newKey.slice(0, 5), '-subj', `/CN=${name}`, '-keyout', `${name}-key.pem`, '-out', `${name}.csr`);
    await openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca-cert.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      `${name}.ext`,
      '-out',
      `${name}-cert.pem`,
    );
  }
  return pki;
};

describe.skipIf(!hasClient('openssl'))('TLS', () => {
  it.skipIf(!hasClient('nbdkit'))('nbdkit that demands it, with a client certificate', async () => {
    await using directory = await temporaryDirectory();
    const [pki, socket] = [await makeCertificates(directory), directory.path('s')];
    await using _server = await nbdkit(socket, '--tls=require', '--tls-verify-peer', `--tls-certificates=${pki}`, 'memory', '64M');
    await exercise(`nbds+unix:///?socket=${socket}&tls-certificates=${pki}`, 2);
    const [ca, cert, key] = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((name) => readFileSync(`${pki}/${name}`));
    await using client = await connect({ socket, tls: { ca: ca ?? '', cert: cert ?? '', key: key ?? '', servername: 'localhost' } });
    expect(await client.read(0, 512)).toHaveLength(512);
    expect(await codeOf(connect({ socket }))).toBe('NBD_TLS');
    expect(await codeOf(connect({ socket, tls: {} }))).toBe('NBD_TLS');
    expect(await codeOf(connect({ socket, tls: { ca: ca ?? '', servername: 'elsewhere' } }))).toBe('NBD_TLS');
  });

  it.skipIf(!hasClient('qemu-nbd'))('qemu-nbd, over TCP on the loopback', async () => {
    await using directory = await temporaryDirectory();
    const [pki, disk] = [await makeCertificates(directory), directory.path('disk')];
    await run('truncate', ['-s', '64M', disk]);
    const port = 20_000 + (process.pid % 20_000);
    await using _server = new ServerProcess('qemu-nbd', [
      ...['-b', '127.0.0.1', '-p', String(port), '-t', '-f', 'raw', '-e', '4', '-x', 'vol'],
      ...['--object', `tls-creds-x509,id=t,endpoint=server,dir=${pki},verify-peer=on`, '--tls-creds', 't', disk],
    ]);
    const uri = `nbds://127.0.0.1:${port}/vol?tls-hostname=localhost&tls-certificates=${pki}`;
    for (let tries = 0; tries < 100 && (await codeOf(connect(uri).then((client) => client.disconnect()))) === 'NBD_CONNECT'; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await exercise(uri, 2);
    expect(await codeOf(connect(`nbd://127.0.0.1:${port}/vol`))).toBe('NBD_TLS');
  });

  it.skipIf(!hasClient('nbdkit'))('a server without it, where it is demanded', async () => {
    await using directory = await temporaryDirectory();
    const socket = directory.path('s');
    await using _server = await nbdkit(socket, 'memory', '64M');
    expect(await codeOf(connect(`nbds+unix:///?socket=${socket}`))).toBe('NBD_TLS');
  });
});
