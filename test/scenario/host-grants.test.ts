/**
 * Hosts prove who they are by certificates that are bound to them, reach what they were granted, and nothing else exists
 * for them: on a real device with the certificates of its own authority, over real TLS.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runAgent } from '../../src/agent/agent.ts';
import { initAuthority, issueServer, serverIdentity } from '../../src/certificates.ts';
import { SILENT_LOG } from '../../src/control/control-log.ts';
import type { CertificateView, Device, HostAdded } from '../../src/index.ts';
import { openDevice } from '../../src/index.ts';
import { connect, listExports, type NbdClient } from '../../src/nbd-client/index.ts';
import { initStore } from '../../src/store/init.ts';
import { capturedHost } from '../support/captured-host.ts';
import { eventually } from '../support/fake-agent.ts';
import { failure, later } from '../support/pair-device.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

let temporary: TemporaryDirectory;
let device: Device;
let port: number;

beforeAll(async () => {
  temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await initStore(store, { pvBytes: 1024 ** 3 });
  const issued = await issueServer(store, ['127.0.0.1', 'localhost']);
  const [certPem, keyPem, caPem] = [issued.certificateFile, issued.keyFile, issued.authorityFile].map((path) => readFileSync(path, 'utf8'));
  const tls = { certPem: certPem ?? '', keyPem: keyPem ?? '', caPem: caPem ?? '', required: true };
  const nbdUnix = temporary.path('nbd.sock');
  device = await openDevice({ store, lanes: 2, control: true, nbdUnix, nbdTcp: '127.0.0.1:0', tls, agentTcp: '127.0.0.1:0' });
  port = Number(/:(\d+)/.exec(device.status().sockets.nbd.find((uri) => uri.startsWith('nbds:')) ?? '')?.[1]);
  for (const name of ['db', 'log', 'secret']) await device.createVolume(name, '4M');
});
afterAll(async () => {
  await device.close();
  await temporary[Symbol.asyncDispose]();
});

const added = async (name: string): Promise<HostAdded> => {
  const result = await device.engine.hostAdd({ name, certificate: true });
  if ('plan' in result) throw new Error('a plan was not asked for');
  return result;
};
const identityOf = ({ certificateFile, keyFile, authorityFile }: CertificateView) => ({
  certificate: readFileSync(certificateFile, 'utf8'),
  key: readFileSync(keyFile, 'utf8'),
  authority: readFileSync(authorityFile, 'utf8'),
});
const tlsOf = (files: CertificateView) => {
  const { certificate, key, authority } = identityOf(files);
  return { host: '127.0.0.1', port, tls: { cert: certificate, key, ca: authority } };
};
const open = (files: CertificateView, exportName: string): Promise<NbdClient> => connect({ ...tlsOf(files), exportName });
const listed = async (files: CertificateView): Promise<string[]> => (await listExports(tlsOf(files))).map(({ name }) => name);
/** The message with which an export is refused. */
const refusal = async (files: CertificateView, exportName: string): Promise<string> =>
  (await failure(open(files, exportName).then((client) => client.disconnect()))).message;

/** With exports that follow grants, and without the hosts afterwards. */
const following = async (work: () => Promise<void>): Promise<void> => {
  await device.set({ exportsFollowGrants: true });
  try {
    await work();
  } finally {
    await device.set({ exportsFollowGrants: false });
    for (const { name } of await device.engine.hostList()) await device.engine.hostRemove({ name });
  }
};

describe('with exports that follow grants', () => {
  it('a host sees what it was granted; the rest does not exist for it, in the list and in errors', () =>
    following(async () => {
      const { certificate } = await added('web1');
      const files = certificate as CertificateView;
      expect(await listed(files)).toEqual([]);
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'rw' });
      await device.engine.grant({ volume: 'log', host: 'web1', access: 'ro' });
      expect(await listed(files)).toEqual(['db', 'log']);
      expect((await refusal(files, 'secret')).replaceAll('secret', 'NAME')).toBe(
        (await refusal(files, 'nobody')).replaceAll('nobody', 'NAME'),
      );
      expect((await refusal(files, '3')).replaceAll('"3"', 'NAME')).toBe((await refusal(files, '77')).replaceAll('"77"', 'NAME'));
      await using db = await open(files, 'db');
      await db.write(0, Buffer.alloc(512, 1));
      await using log = await open(files, 'log');
      expect(log.info).toMatchObject({ readOnly: true });
      await expect(log.write(0, Buffer.alloc(512, 1))).rejects.toThrow();
      const [first, second] = await device.engine.clientList();
      expect([first?.host, second?.host]).toEqual(['web1', 'web1']);
      expect(first?.ref).toMatch(/^tcp:127\.0\.0\.1:\d+$/);
    }));

  it("the device's own user has every volume on the unix socket, and a caller over TCP without a certificate has none", () =>
    following(async () => {
      const socket = temporary.path('nbd.sock');
      expect((await listExports({ socket })).map(({ name }) => name)).toEqual(['db', 'log', 'secret']);
      await expect(connect({ host: '127.0.0.1', port, exportName: 'db' })).rejects.toThrow();
    }));

  it('a grant that is taken away ends the connection that it gave, and one that is narrowed ends a writer', () =>
    following(async () => {
      const { certificate } = await added('web1');
      const files = certificate as CertificateView;
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'rw' });
      const writer = await open(files, 'db');
      await writer.read(0, 512);
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'ro' });
      await failure(writer.read(0, 512));
      const reader = await open(files, 'db');
      await reader.read(0, 512);
      expect(await device.engine.revoke({ volume: 'db', host: 'web1', plan: true })).toMatchObject({ plan: true });
      await device.engine.revoke({ volume: 'db', host: 'web1' });
      await failure(reader.read(0, 512));
      expect((await failure(device.engine.revoke({ volume: 'db', host: 'web1' }))).code).toBe('GRANT_NOT_FOUND');
      await writer[Symbol.asyncDispose]();
      await reader[Symbol.asyncDispose]();
    }));

  it('a host that was removed and added again under its name has a certificate of its own; the former one proves nothing', () =>
    following(async () => {
      const former = (await added('web1')).certificate as CertificateView;
      // The files are written over by the next one: kept as a thief would.
      const stolen = tlsOf(former);
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'rw' });
      const client = await connect({ ...stolen, exportName: 'db' });
      await client.read(0, 512);
      await device.engine.hostRemove({ name: 'web1' });
      await failure(client.read(0, 512));
      const present = (await added('web1')).certificate as CertificateView;
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'rw' });
      expect((await listExports(stolen)).length).toBe(0);
      await expect(connect({ ...stolen, exportName: 'db' })).rejects.toThrow(/no export/);
      expect(await listed(present)).toEqual(['db']);
      await client[Symbol.asyncDispose]();
    }));

  it('a certificate can be renewed beside the former one, or in its place at once', () =>
    following(async () => {
      const first = tlsOf((await added('web1')).certificate as CertificateView);
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'rw' });
      const beside = await device.engine.hostIssue({ name: 'web1' });
      expect(beside.host.certificates).toHaveLength(2);
      const client = await connect({ ...first, exportName: 'db' });
      await client.read(0, 512);
      const instead = await device.engine.hostIssue({ name: 'web1', replace: true });
      expect(instead.host.certificates).toEqual([instead.certificate?.sha256]);
      await failure(client.read(0, 512));
      expect(await listExports(first)).toEqual([]);
      expect(await listed(instead.certificate as CertificateView)).toEqual(['db']);
      await client[Symbol.asyncDispose]();
    }));

  it('only the hosts that were granted the volume are asked about it', () =>
    following(async () => {
      await added('web1');
      await added('web2');
      await device.engine.grant({ volume: 'db', host: 'web1', access: 'ro' });
      expect(await device.engine.inquiry('db')).toMatchObject({ hosts: ['web1'], findings: [{ key: 'no-answer:web1' }] });
      expect(await device.engine.inquiry('secret')).toMatchObject({ hosts: [], clear: true });
      await device.set({ exportsFollowGrants: false });
      expect(await device.engine.inquiry('secret')).toMatchObject({ hosts: ['web1', 'web2'] });
    }));
});

describe('an agent over TLS', () => {
  it('is let in by the certificate of its host alone, and goes when that is replaced', async () => {
    const files = (await added('web1')).certificate as CertificateView;
    const captured = await capturedHost([]);
    const end = new AbortController();
    const [host = '', agentPort = ''] = (device.agents?.tls ?? '').split(':');
    const agent = runAgent(
      {
        control: { kind: 'tls', host, port: Number(agentPort), identity: identityOf(files) },
        host: 'web1',
        log: SILENT_LOG,
        probe: captured.probe,
        retry: { firstMs: 20, lastMs: 50 },
      },
      end.signal,
    );
    const view = async () => (await device.engine.hostShow('web1')).agent;
    await eventually(async () => (await view()) !== null, 'the agent is welcome');
    expect(await view()).toMatchObject({ host: 'web1', transport: 'tls' });
    expect(await device.engine.inquiry('db')).toMatchObject({ clear: true, answers: [{ host: 'web1', outcome: 'answered' }] });
    await device.engine.hostIssue({ name: 'web1', replace: true });
    await eventually(async () => (await view()) === null, 'the agent is gone');
    await later(200);
    expect(await view()).toBeNull();
    end.abort();
    await agent;
    captured[Symbol.dispose]();
    await device.engine.hostRemove({ name: 'web1' });
  });
});

describe('a certificate of another authority', () => {
  it('proves a host when it is bound to it, and only if it carries its name', async () => {
    const elsewhere = temporary.path('elsewhere');
    await initStore(elsewhere, { pvBytes: 1024 ** 3 });
    const foreign = await issueServer(elsewhere, ['web9']);
    const certificatePem = readFileSync(foreign.certificateFile, 'utf8');
    await added('web9');
    expect((await device.engine.hostTrust({ name: 'web9', certificatePem })).host.certificates.at(-1)).toBe(foreign.sha256);
    await added('web8');
    expect((await failure(device.engine.hostTrust({ name: 'web8', certificatePem }))).code).toBe('USAGE');
    expect((await failure(device.engine.hostTrust({ name: 'web8', certificatePem: 'nonsense' }))).code).toBe('USAGE');
    expect((await failure(device.engine.hostTrust({ name: 'nobody', certificatePem }))).code).toBe('HOST_NOT_FOUND');
    for (const name of ['web8', 'web9']) await device.engine.hostRemove({ name });
  });

  it('is made once: the authority of a store stays, and what it issued last is what the device shows', async () => {
    const store = temporary.path('store');
    const first = await initAuthority(store);
    expect((await initAuthority(store)).certificate).toBe(first.certificate);
    expect(serverIdentity(store).authority).toBe(first.certificate);
    expect(readFileSync(join(store, 'ca', 'server.crt'), 'utf8')).toBe(serverIdentity(store).certificate);
    expect(() => serverIdentity(temporary.path('nowhere'))).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

it('hosts have names of their own, limits, and plans that change nothing', async () => {
  expect(await device.engine.hostAdd({ name: 'web1', plan: true })).toMatchObject({ plan: true, hosts: ['web1'] });
  expect(await device.engine.hostList()).toEqual([]);
  await added('web1');
  expect((await failure(device.engine.hostAdd({ name: 'web1' }))).code).toBe('HOST_EXISTS');
  expect((await failure(device.engine.hostAdd({ name: '7' }))).code).toBe('NAME_INVALID');
  expect((await failure(device.engine.grant({ volume: 'db', host: 'nobody', access: 'ro' }))).code).toBe('HOST_NOT_FOUND');
  expect((await failure(device.engine.grant({ volume: 'none', host: 'web1', access: 'ro' }))).code).toBe('VOLUME_NOT_FOUND');
  for (let renewals = 0; renewals < 7; renewals += 1) await device.engine.hostIssue({ name: 'web1' });
  expect((await failure(device.engine.hostIssue({ name: 'web1' }))).code).toBe('LIMIT');
  expect(await device.engine.hostRemove({ name: 'web1', plan: true })).toMatchObject({ plan: true });
  expect(await device.engine.hostRemove({ name: 'web1' })).toMatchObject({ name: 'web1' });
  expect((await failure(device.engine.hostShow('web1'))).code).toBe('HOST_NOT_FOUND');
  const changes = (await device.engine.audit()).flatMap((record) =>
    record.kind === 'host' && record.host === 'web1' ? [record.change] : [],
  );
  expect([changes[0], changes.at(-1)]).toEqual(['added', 'removed']);
});
