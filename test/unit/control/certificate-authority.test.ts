import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { CertificateAuthority } from '../../../src/control/certificate-authority.ts';
import type { PeerCertificate } from '../../../src/platform/mutual-tls.ts';
import { connectMutualTls, listenMutualTls, peerCertificate } from '../../../src/platform/mutual-tls.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const modeOf = (path: string): number => statSync(path).mode & 0o777;

describe('the certificate authority of a device', () => {
  it('is made once, and opened again with the same certificate', async () => {
    await using temporary = await temporaryDirectory();
    const made = await CertificateAuthority.open(temporary.root, 'twinvol store-a');
    const opened = await CertificateAuthority.open(temporary.root, 'another name');
    expect(opened.certificate).toBe(made.certificate);
    const certificate = new X509Certificate(made.certificate);
    expect(certificate.subject).toBe('CN=twinvol store-a');
    expect(certificate.ca).toBe(true);
    expect(modeOf(temporary.path('ca.key'))).toBe(0o600);
  });

  it('issues certificates that Node takes as issued by it, with keys that nobody else may read', async () => {
    await using temporary = await temporaryDirectory();
    const authority = await CertificateAuthority.open(temporary.root, 'twinvol');
    const host = await authority.issueHost('web1');
    const server = await authority.issueServer(['storage.example', '127.0.0.1', '::1']);
    const root = new X509Certificate(authority.certificate);
    for (const issued of [host, server]) {
      const certificate = new X509Certificate(issued.certificate);
      expect(certificate.checkIssued(root)).toBe(true);
      expect(certificate.verify(root.publicKey)).toBe(true);
      expect(certificate.ca).toBe(false);
      expect(modeOf(issued.keyFile)).toBe(0o600);
      expect(issued.expiresAtMs).toBe(new Date(certificate.validTo).getTime() + (issued.expiresAtMs % 1000));
    }
    const certificate = new X509Certificate(server.certificate);
    expect(certificate.checkHost('storage.example')).toBe('storage.example');
    expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(new X509Certificate(host.certificate).subject).toBe('CN=web1');
  });

  it('refuses names that are no host names, and a server without an address', async () => {
    await using temporary = await temporaryDirectory();
    const authority = await CertificateAuthority.open(temporary.root, 'twinvol');
    expect(() => authority.issueHost('../etc')).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
    expect(() => authority.issueServer([])).toThrow(expect.objectContaining({ code: 'USAGE' }));
    for (const wrong of ['a b', 'storage:10810', '[::1]', 'a..b', '-a', '192.0.2.300', '', '*']) {
      expect(() => authority.issueServer(['storage.example', wrong])).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
    for (const right of ['localhost', 'a-1.example', '2001:db8::1', '192.0.2.7']) await authority.issueServer([right]);
  });

  it('says so when its key is missing or is not the one of its certificate, and changes nothing', async () => {
    await using temporary = await temporaryDirectory();
    await using other = await temporaryDirectory();
    await CertificateAuthority.open(temporary.root, 'twinvol');
    await CertificateAuthority.open(other.root, 'twinvol');
    writeFileSync(temporary.path('ca.key'), readFileSync(other.path('ca.key')));
    await expect(CertificateAuthority.open(temporary.root, 'x')).rejects.toMatchObject({ code: 'STORE_DAMAGED' });
    unlinkSync(temporary.path('ca.key'));
    await expect(CertificateAuthority.open(temporary.root, 'x')).rejects.toMatchObject({ code: 'STORE_DAMAGED' });
  });
});

describe('mutual TLS with certificates of that authority', () => {
  const setUp = async (root: string) => {
    const authority = await CertificateAuthority.open(root, 'twinvol');
    return { server: await authority.issueServer(['localhost', '127.0.0.1']), web1: await authority.issueHost('web1') };
  };

  it('tells the server the name of the host, and which certificate it is', async () => {
    await using temporary = await temporaryDirectory();
    const { server, web1 } = await setUp(temporary.root);
    const seen: PeerCertificate[] = [];
    const sockets: TLSSocket[] = [];
    const listener = await listenMutualTls({ host: '127.0.0.1', port: 0 }, server, 10, {
      connection: (socket, certificate) => {
        sockets.push(socket);
        seen.push(certificate);
        socket.end('hello\n');
      },
      refused: () => {},
    });
    const client = await connectMutualTls({ ...listener.address, serverName: 'localhost' }, web1, new AbortController().signal);
    expect(peerCertificate(client)).toEqual({ name: 'localhost', sha256: server.sha256 });
    const said: string[] = [];
    for await (const chunk of client) said.push(String(chunk));
    expect(said.join('')).toBe('hello\n');
    expect(seen).toEqual([{ name: 'web1', sha256: web1.sha256 }]);
    client.destroy();
    for (const socket of sockets) socket.destroy();
    await listener.close();
  });

  it('lets nobody in without a certificate, with one of another authority, or with the one of the server', async () => {
    await using temporary = await temporaryDirectory();
    await using elsewhere = await temporaryDirectory();
    const { server, web1 } = await setUp(temporary.root);
    const stranger = await setUp(elsewhere.root);
    const refused: string[] = [];
    let welcomed = 0;
    const listener = await listenMutualTls({ host: '127.0.0.1', port: 0 }, server, 10, {
      connection: (socket) => {
        welcomed += 1;
        socket.destroy();
      },
      refused: (_peer, reason) => refused.push(reason),
    });
    const attempt = async (certificate: string, key: string): Promise<void> => {
      const identity = { certificate, key, authority: web1.authority };
      const socket = await connectMutualTls({ ...listener.address, serverName: 'localhost' }, identity, new AbortController().signal);
      // TLS 1.3: the server's refusal comes after the client's side of the handshake is done.
      await new Promise<void>((resolve) => {
        socket.on('error', () => {});
        socket.on('close', () => resolve());
        socket.resume();
      });
    };
    await attempt(stranger.web1.certificate, stranger.web1.key);
    await attempt(server.certificate, server.key);
    expect(welcomed).toBe(0);
    expect(refused).toHaveLength(2);
    await listener.close();
  });

  it('does not take a server of another name or authority for the device', async () => {
    await using temporary = await temporaryDirectory();
    const { server, web1 } = await setUp(temporary.root);
    const impostor = createServer({ cert: web1.certificate, key: web1.key });
    await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve));
    const { port } = impostor.address() as { port: number };
    const place = { host: '127.0.0.1', port };
    await expect(connectMutualTls({ ...place, serverName: 'web1' }, web1, new AbortController().signal)).rejects.toThrow();
    impostor.close();
    const listener = await listenMutualTls({ host: '127.0.0.1', port: 0 }, server, 10, {
      connection: (socket) => socket.destroy(),
      refused: () => {},
    });
    const call = connectMutualTls({ ...listener.address, serverName: 'other.example' }, web1, new AbortController().signal);
    await expect(call).rejects.toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    await listener.close();
  });
});
