/**
 * Certificates for TLS tests, made by openssl: an authority, a server and two clients of it, a stranger's authority and
 * a client of that. In the folder layout that libnbd and qemu expect (ca-cert.pem, client-cert.pem, client-key.pem).
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './clients.ts';

export type Certificates = {
  /** Folder of a client whose certificate says `host-a`. */
  readonly client: string;
  /** The authority alone: a client that shows nothing. */
  readonly nobody: string;
  /** A client of another authority, that trusts the right one. */
  readonly stranger: string;
  /** A client with a good certificate, that trusts another authority. */
  readonly distrustful: string;
  readonly server: { readonly certPem: string; readonly keyPem: string; readonly caPem: string };
  readonly serverFiles: { readonly cert: string; readonly key: string; readonly ca: string };
};

const openssl = async (...args: string[]): Promise<void> => {
  const { status, stderr } = await run('openssl', args);
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr}`);
};

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const;

const authority = async (folder: string, name: string): Promise<void> => {
  await mkdir(folder, { recursive: true });
  await openssl(
    'req',
    '-x509',
    ...KEY,
    '-keyout',
    join(folder, 'ca-key.pem'),
    '-out',
    join(folder, 'ca-cert.pem'),
    '-days',
    '2',
    '-subj',
    `/CN=${name}`,
  );
};

const issue = async (ca: string, folder: string, role: 'server' | 'client', name: string): Promise<void> => {
  await mkdir(folder, { recursive: true });
  const path = (ending: string): string => join(folder, `${role}-${ending}`);
  await writeFile(
    path('ext'),
    `basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=${role}Auth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n`,
  );
  await openssl('req', '-new', ...KEY, '-keyout', path('key.pem'), '-out', path('csr.pem'), '-subj', `/CN=${name}`);
  await openssl(
    ...['x509', '-req', '-in', path('csr.pem'), '-CA', join(ca, 'ca-cert.pem'), '-CAkey', join(ca, 'ca-key.pem'), '-CAcreateserial'],
    ...['-out', path('cert.pem'), '-days', '2', '-extfile', path('ext')],
  );
};

export const makeCertificates = async (root: string): Promise<Certificates> => {
  const at = (name: string): string => join(root, name);
  await authority(at('ca'), 'twinvol test authority');
  await authority(at('other-ca'), 'another authority');
  await issue(at('ca'), at('server'), 'server', 'localhost');
  await issue(at('ca'), at('client'), 'client', 'host-a');
  await issue(at('ca'), at('distrustful'), 'client', 'host-b');
  await issue(at('other-ca'), at('stranger'), 'client', 'host-a');
  const ca = await readFile(join(at('ca'), 'ca-cert.pem'));
  await mkdir(at('nobody'));
  for (const folder of ['client', 'nobody', 'stranger', 'server']) await writeFile(join(at(folder), 'ca-cert.pem'), ca);
  await writeFile(join(at('distrustful'), 'ca-cert.pem'), await readFile(join(at('other-ca'), 'ca-cert.pem')));
  const serverFiles = {
    cert: join(at('server'), 'server-cert.pem'),
    key: join(at('server'), 'server-key.pem'),
    ca: join(at('server'), 'ca-cert.pem'),
  };
  return {
    client: at('client'),
    nobody: at('nobody'),
    stranger: at('stranger'),
    distrustful: at('distrustful'),
    server: { certPem: await readFile(serverFiles.cert, 'utf8'), keyPem: await readFile(serverFiles.key, 'utf8'), caPem: ca.toString() },
    serverFiles,
  };
};
