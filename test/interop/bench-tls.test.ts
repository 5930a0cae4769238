/** A benchmark over TLS: what is refused, and what its user is told to do about it. */
import { mkdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leave, openExport } from '../../src/bench/export-connection.ts';
import { workloadOf } from '../../src/bench/workload.ts';
import { MiB } from '../../src/core/units.ts';
import { needClient } from '../support/clients.ts';
import { type Certificates, makeCertificates } from '../support/nbd-server-certificates.ts';
import { type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

const READS = workloadOf(undefined, {});

let temporary: TemporaryDirectory;
let pki: Certificates;
let server: NbdServerProcess;

beforeAll(async () => {
  temporary = await temporaryDirectory();
  needClient('openssl');
  pki = await makeCertificates(temporary.root);
  server = await startNbdServer({
    tcp: true,
    tls: { ...pki.server, required: true },
    volumes: [{ name: 'v', capacityBytes: 16 * MiB }],
  });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await temporary?.[Symbol.asyncDispose]();
});

describe('a benchmark over TLS', () => {
  it('connects with the folder of certificates', async () => {
    const client = await openExport(`${server.tcpUri('v')}?tls-certificates=${pki.client}`, READS);
    expect(client.info.sizeBytes).toBe(16 * MiB);
    await leave([client]);
  });

  it('refuses a folder that is not there, or has none of the files', async () => {
    const open = (folder: string) => openExport(`${server.tcpUri('v')}?tls-certificates=${folder}`, READS);
    const empty = temporary.path('empty');
    await mkdir(empty);
    const remedy = expect.stringContaining('ca-cert.pem');
    await expect(open(`${empty}-not`)).rejects.toMatchObject({
      code: 'URI_INVALID',
      message: expect.stringContaining('is no directory'),
      remedy,
    });
    const none = expect.stringContaining('has none of ca-cert.pem, client-cert.pem, client-key.pem');
    await expect(open(empty)).rejects.toMatchObject({ code: 'URI_INVALID', message: none, remedy });
  });

  it('says how to trust the server, and how to be trusted', async () => {
    const remedy = expect.stringContaining('tls-certificates=DIR');
    await expect(openExport(server.tcpUri('v'), READS)).rejects.toMatchObject({ code: 'NBD_UNREACHABLE', remedy });
    for (const folder of [pki.nobody, pki.stranger, pki.distrustful]) {
      await expect(openExport(`${server.tcpUri('v')}?tls-certificates=${folder}`, READS)).rejects.toMatchObject({ remedy });
    }
    const plain = server.tcpUri('v').replace('nbds:', 'nbd:');
    await expect(openExport(plain, READS)).rejects.toMatchObject({ remedy: expect.stringContaining('nbds://') });
  });
});
