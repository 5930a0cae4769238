/**
 * The engine's process with the field's clients on it: found by the URIs that it prints and that `twinvol uri` gives,
 * listed and ended by the command line, with certificates, and told to stop while fio is at work.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import { initialised, serving, type Serving, twinvol } from '../scenario/cli-process.ts';
import { needClient, run, type RunResult } from '../support/clients.ts';
import { type Certificates, makeCertificates } from '../support/nbd-server-certificates.ts';
import { figuresOf } from '../support/nbd-server-process.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const MiB = 2 ** 20;

let temporary: TemporaryDirectory;
let pki: Certificates;

beforeAll(async () => {
  temporary = await temporaryDirectory();
  needClient('openssl');
  pki = await makeCertificates(temporary.path('pki'));
});
afterAll(() => temporary?.[Symbol.asyncDispose]());

const ok = async (client: string, args: readonly string[]): Promise<RunResult> => {
  const result = await run(needClient(client), args);
  if (result.status !== 0) throw new Error(`${client} ${args.join(' ')} ended with ${result.status}\n${result.stdout}${result.stderr}`);
  return result;
};
const uriOf = async (engine: Serving, volume: string): Promise<string> => {
  const { status, stdout, stderr } = await engine.line(`uri ${volume}`);
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
};

it('a store, an engine and a volume in three lines, and nbdinfo, nbdcopy, qemu-img and fio work on its URI', async () => {
  const store = temporary.path('one');
  await initialised(store);
  await using engine = await serving(store);
  expect((await engine.line('volume create db --size 64M')).status).toBe(0);
  const uri = await uriOf(engine, 'db');
  expect(JSON.parse((await ok('nbdinfo', ['--json', uri])).stdout)).toMatchObject({
    exports: [{ 'export-name': 'db', 'export-size': 64 * MiB }],
  });
  expect((await ok('nbdinfo', ['--size', await uriOf(engine, '1')])).stdout.trim()).toBe(String(64 * MiB));
  const [from, to] = [temporary.path('from.raw'), temporary.path('to.raw')];
  writeFileSync(from, randomBytes(64 * MiB));
  await ok('nbdcopy', ['--connections=4', from, uri]);
  await ok('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, to]);
  expect(readFileSync(to).equals(readFileSync(from))).toBe(true);
  await ok('fio', [
    '--name=j',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bs=8k',
    '--size=32M',
    '--numjobs=2',
    '--offset_increment=32M',
    '--iodepth=16',
    '--verify=crc32c',
    '--verify_fatal=1',
  ]);
  expect(await engine.end('SIGTERM')).toEqual({ code: 0, signal: null });
  expect((await twinvol(['store', 'check', store])).status).toBe(0);
});

it('client list shows who is connected, client end ends it, and no descriptor stays', async () => {
  const store = temporary.path('two');
  await initialised(store);
  await using engine = await serving(store, ['--nbd-unix', temporary.path('s'), '--nbd-tcp', '127.0.0.1:0']);
  await engine.line('volume create db --size 16M');
  const tcp = /nbd:\/\/127\.0\.0\.1:\d+/.exec(engine.banner)?.[0] ?? '';
  const before = await figuresOf(engine.pid);
  const client = await connect(`${tcp}/db`);
  await client.write(0, Buffer.alloc(8192));
  const [view] = (await engine.json('client list')) as Array<{ id: number }>;
  expect(view).toMatchObject({ volume: { name: 'db' }, transport: 'tcp', phase: 'transmission', requests: 1, writtenBytes: 8192 });
  expect((await engine.line(`client end ${view?.id}`)).status).toBe(0);
  await expect(client.read(0, 1)).rejects.toThrow();
  expect(await engine.json('client list')).toEqual([]);
  client.destroy();
  for (let waitedMs = 0; (await figuresOf(engine.pid)).sockets > before.sockets && waitedMs < 3000; waitedMs += 50) await sleep(50);
  expect((await figuresOf(engine.pid)).sockets).toBeLessThanOrEqual(before.sockets);
});

it('with certificates: who has one of the authority gets in over TCP, and nobody else', async () => {
  const store = temporary.path('three');
  await initialised(store);
  const { cert, key, ca } = pki.serverFiles;
  await using engine = await serving(store, ['--nbd-tcp', '127.0.0.1:0', '--tls-cert', cert, '--tls-key', key, '--tls-ca', ca]);
  await engine.line('volume create db --size 16M');
  const uri = `${/nbds:\/\/127\.0\.0\.1:\d+/.exec(engine.banner)?.[0] ?? ''}/db`;
  expect((await ok('nbdinfo', ['--size', `${uri}?tls-certificates=${pki.client}`])).stdout.trim()).toBe(String(16 * MiB));
  for (const who of [pki.nobody, pki.stranger, pki.distrustful]) {
    expect((await run(needClient('nbdinfo'), ['--size', `${uri}?tls-certificates=${who}`])).status).not.toBe(0);
  }
  expect((await run(needClient('nbdinfo'), ['--size', uri.replace('nbds:', 'nbd:')])).status).not.toBe(0);
});

it('SIGTERM with fio at work: fio is told to go, the engine ends in order, and every acknowledged write is there', async () => {
  const store = temporary.path('four');
  await initialised(store);
  const engine = await serving(store);
  await engine.line('volume create db --size 64M');
  await engine.line('volume create load --size 64M');
  const fio = run(
    needClient('fio'),
    [
      '--name=j',
      '--ioengine=nbd',
      `--uri=${await uriOf(engine, 'load')}`,
      '--rw=randwrite',
      '--bs=4k',
      '--size=64M',
      '--iodepth=16',
      '--time_based',
      '--runtime=30',
      '--numjobs=2',
    ],
    { timeoutMs: 20_000 },
  );
  const writer = await connect(await uriOf(engine, 'db'));
  let acknowledged = 0;
  const writing = (async () => {
    for (let block = 1; ; block += 1) {
      await writer.write((block % 16_384) * 4096, Buffer.alloc(4096, block & 0xff), { fua: block % 7 === 0 });
      acknowledged = block;
    }
  })().catch((error: unknown) => error);
  await sleep(1500);
  const startedMs = performance.now();
  expect(await engine.end('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(performance.now() - startedMs).toBeLessThan(6000);
  const { status, stderr, stdout } = await fio;
  expect(status).not.toBe(0);
  expect(stdout + stderr).toMatch(/shutdown|nbd_/i);
  expect(String(await writing)).toMatch(/shut|closed/i);
  expect(acknowledged).toBeGreaterThan(10);
  await using again = await serving(store);
  await using reader = await connect(await uriOf(again, 'db'));
  for (let block = Math.max(1, acknowledged - 2000); block <= acknowledged; block += 1) {
    const found = await reader.read((block % 16_384) * 4096, 4096);
    if (found[0] !== (block & 0xff) || found[4095] !== (block & 0xff)) throw new Error(`block ${block} of ${acknowledged} is lost`);
  }
});
