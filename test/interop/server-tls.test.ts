/**
 * TLS with certificates on both sides, as nbdinfo, nbdcopy, qemu-img and our own client do it: who shows a certificate of
 * the device's authority gets in, nobody else does, and large transfers arrive whole.
 */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, listExports } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeInfoRequest } from '../../src/wire/nbd-handshake.ts';
import type { ClientView } from '../../src/core/views.ts';
import { needClient, run } from '../support/clients.ts';
import { type Certificates, makeCertificates } from '../support/nbd-server-certificates.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd } from '../support/nbd-server-raw.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const MiB = 2 ** 20;
const CAPACITY_BYTES = 96 * MiB;

let temporary: TemporaryDirectory;
let pki: Certificates;

beforeAll(async () => {
  temporary = await temporaryDirectory();
  needClient('openssl');
  pki = await makeCertificates(temporary.root);
});
afterAll(() => temporary?.[Symbol.asyncDispose]());

describe.each(BOTH_KINDS)('TLS, $kind', ({ native }) => {
  let server: NbdServerProcess;
  const uri = (certificates: string, name = 'v'): string => `${server.tcpUri(name)}?tls-certificates=${certificates}`;

  beforeAll(async () => {
    server = await startNbdServer({
      native,
      tcp: true,
      tls: { ...pki.server, required: true },
      volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }],
    });
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  it('nbdinfo with a certificate of the authority sees the export', async () => {
    const { status, stdout, stderr } = await run(needClient('nbdinfo'), [uri(pki.client)]);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/newstyle-fixed with TLS/);
    expect(stdout).toMatch(/export-size: 100663296/);
  });

  it('the name in the certificate is the host in the list of clients', async () => {
    await using _client = await connect(uri(pki.client));
    const [view] = (await server.call<readonly ClientView[]>('clients')) ?? [];
    expect(view).toMatchObject({ transport: 'tls', host: 'host-a', phase: 'transmission' });
  });

  it.each(['nobody', 'stranger', 'distrustful'] as const)('nbdinfo as %s gets nothing', async (who) => {
    const { status, stdout } = await run(needClient('nbdinfo'), [uri(pki[who])]);
    expect(status).not.toBe(0);
    expect(stdout).not.toMatch(/export-size/);
  });

  it.each(['nobody', 'stranger', 'distrustful'] as const)('our own client as %s is refused', async (who) => {
    await expect(connect(uri(pki[who]))).rejects.toMatchObject({ code: expect.stringMatching(/^NBD_(TLS|CLOSED|CONNECT)$/) as string });
  });

  it('a client without TLS learns that TLS is needed, and nothing else', async () => {
    const { status, stdout } = await run(needClient('nbdinfo'), [`nbd://127.0.0.1:${server.tcpPort}/v`]);
    expect(status).toBe(1);
    expect(stdout).not.toMatch(/export/);
    const plain = `nbd://127.0.0.1:${server.tcpPort}`;
    await expect(connect(`${plain}/v`)).rejects.toThrow(/TLS/);
    await expect(listExports(plain)).rejects.toThrow(/TLS/);
  });

  it('nbdcopy brings 96 MiB there and back over four TLS connections', async () => {
    const data = randomBytes(CAPACITY_BYTES);
    const [from, to] = [temporary.path('from.raw'), temporary.path('to.raw')];
    await writeFile(from, data);
    const nbdcopy = needClient('nbdcopy');
    expect(await run(nbdcopy, ['--connections=4', '--flush', from, uri(pki.client)])).toMatchObject({ status: 0 });
    expect(await run(nbdcopy, ['--connections=4', uri(pki.client), to])).toMatchObject({ status: 0 });
    expect((await readFile(to)).equals(data)).toBe(true);
  });

  it('qemu-img reads and compares over TLS', async () => {
    const image = temporary.path('image.qcow2');
    const tls = ['--object', `tls-creds-x509,id=t,endpoint=client,dir=${pki.client}`];
    const source = `driver=nbd,host=127.0.0.1,port=${server.tcpPort},export=v,tls-creds=t`;
    const qemuImg = needClient('qemu-img');
    expect(await run(qemuImg, ['info', ...tls, '--image-opts', source])).toMatchObject({ status: 0, stderr: '' });
    const converted = await run(qemuImg, ['convert', ...tls, '--image-opts', '-O', 'qcow2', source, image]);
    expect(converted).toMatchObject({ status: 0, stderr: '' });
    expect(await run(qemuImg, ['compare', ...tls, '--image-opts', source, `driver=qcow2,file.filename=${image}`])).toMatchObject({
      status: 0,
    });
  });

  it('our own client writes and reads 32 MiB in one request, with many small ones beside it', async () => {
    await using client = await connect({ uri: uri(pki.client), connections: 2 });
    const data = randomBytes(32 * MiB);
    const small = Array.from({ length: 200 }, (_, index) => client.write(64 * MiB + index * 5001, data.subarray(index, index + 5001)));
    await Promise.all([client.write(MiB + 1, data, { fua: true }), ...small]);
    expect((await client.read(MiB + 1, 32 * MiB)).equals(data)).toBe(true);
    for (const index of [0, 77, 199])
      expect((await client.read(64 * MiB + index * 5001, 5001)).equals(data.subarray(index, index + 5001))).toBe(true);
  });

  it('STARTTLS after options in clear text forgets what they settled', async () => {
    using raw = await RawNbd.open({ host: '127.0.0.1', port: server.tcpPort });
    await raw.greet();
    // TLS is required, so even a harmless option is refused before it, and the client may go on to STARTTLS.
    await expect(raw.option(nbd.NBD_OPT_STRUCTURED_REPLY)).rejects.toThrow(/error 5/);
    await expect(raw.option(nbd.NBD_OPT_GO, encodeInfoRequest('v', []))).rejects.toThrow(/error 5/);
    await expect(raw.option(nbd.NBD_OPT_STARTTLS)).resolves.toEqual([]);
  });

  it('a client that asks for TLS and then talks nonsense is cut off, and leaves nothing behind', async () => {
    const before = await server.figures();
    for (let round = 0; round < 50; round += 1) {
      using raw = await RawNbd.open({ host: '127.0.0.1', port: server.tcpPort });
      await raw.greet();
      await raw.option(nbd.NBD_OPT_STARTTLS);
      raw.socket.write(randomBytes(200));
      if (round % 2 === 0) await raw.ended();
    }
    await server.settled(({ descriptors }) => descriptors <= before.descriptors, 5000);
    expect(await run(needClient('nbdinfo'), ['--size', uri(pki.client)])).toMatchObject({ status: 0, stdout: `${CAPACITY_BYTES}\n` });
  });
});

it('where TLS is offered and not required, STARTTLS after plain options starts afresh', async () => {
  await using server = await startNbdServer({
    tcp: true,
    tls: { ...pki.server, required: false },
    volumes: [{ name: 'v', capacityBytes: MiB }],
  });
  const tlsUri = `${server.tcpUri('v')}?tls-certificates=${pki.client}`;
  await using client = await connect(tlsUri);
  await client.write(0, Buffer.from('by TLS'));
  // In clear text on the same port, after options that would not have been allowed with TLS required.
  await using plain = await connect(`nbd://127.0.0.1:${server.tcpPort}/v`);
  expect((await plain.read(0, 6)).toString()).toBe('by TLS');
  const { stdout } = await run(needClient('nbdinfo'), ['--json', tlsUri]);
  expect(JSON.parse(stdout)).toMatchObject({ TLS: true, structured: true });
});
