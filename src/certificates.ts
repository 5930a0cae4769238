/**
 * The device's own certificate authority, in `ca` of the store: made when it is first needed, by the engine or by the
 * command line without one. One of them works on it at a time (a lock). The X.509 library takes half a second to load, so
 * that happens only here and only then.
 */
import { mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import type { CertificateAuthority, Issued } from './control/certificate-authority.ts';
import { TwinvolError } from './core/faults.ts';
import type { CertificateView } from './core/host-views.ts';
import type { CertificateDesk } from './engine/agent-desk.ts';
import { acquireFileLock } from './platform/file-lock.ts';
import type { FileLock } from './platform/file-lock.ts';
import type { TlsIdentity } from './platform/mutual-tls.ts';
import { readPrivateFile } from './platform/private-file.ts';

const LOCK_WAIT_MS = 5000;
const LOCK_RETRY_MS = 50;

export const certificateDirectory = (store: string): string => join(resolve(store), 'ca');

const locked = async (directory: string): Promise<FileLock> => {
  const path = join(directory, 'lock');
  const until = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      return acquireFileLock(path);
    } catch (error) {
      const isTaken = error instanceof TwinvolError && error.code === 'STORE_LOCKED';
      if (!isTaken || performance.now() > until) throw error;
      await new Promise((again) => setTimeout(again, LOCK_RETRY_MS));
    }
  }
};

const withAuthority = async <T>(store: string, work: (authority: CertificateAuthority) => Promise<T>): Promise<T> => {
  const directory = certificateDirectory(store);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const lock = await locked(directory);
  try {
    const { CertificateAuthority: Authority } = await import('./control/certificate-authority.ts');
    return await work(await Authority.open(directory, `twinvol on ${hostname()}`));
  } finally {
    lock.release();
  }
};

const viewOf = ({ certificateFile, keyFile, authorityFile, sha256, expiresAtMs }: Issued): CertificateView => ({
  certificateFile,
  keyFile,
  authorityFile,
  sha256,
  expiresAtMs,
});

/** Makes the authority if there is none. @returns the PEM text of its certificate, and where it is */
export const initAuthority = (store: string): Promise<{ readonly certificate: string; readonly authorityFile: string }> => {
  const authorityFile = join(certificateDirectory(store), 'ca.crt');
  return withAuthority(store, async (authority) => ({ certificate: authority.certificate, authorityFile }));
};

/**
 * A certificate for the device's own listeners.
 * @param addresses every name and address by which hosts reach the device
 */
export const issueServer = (store: string, addresses: readonly string[]): Promise<CertificateView> =>
  withAuthority(store, async (authority) => viewOf(await authority.issueServer(addresses)));

export const certificateDesk = (store: string): CertificateDesk => ({
  issueHost: (host) => withAuthority(store, async (authority) => viewOf(await authority.issueHost(host))),
});

/**
 * What the device's own listeners show: the certificate that `issueServer` made last.
 * @throws TwinvolError `USAGE` if there is none
 */
export const serverIdentity = (store: string): TlsIdentity => {
  const directory = certificateDirectory(store);
  const [certificate, key, authority] = ['server.crt', 'server.key', 'ca.crt'].map((name) => readPrivateFile(join(directory, name)));
  if (typeof certificate === 'string' && typeof key === 'string' && typeof authority === 'string') return { certificate, key, authority };
  throw new TwinvolError('USAGE', 'the device has no certificate to show to the agents of hosts', {
    remedy: 'make one with twinvol ca issue-server ADDRESS..., or give --tls-cert, --tls-key and --tls-ca',
  });
};
