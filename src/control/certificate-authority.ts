/**
 * A small certificate authority for one device: its own key and certificate, one certificate for the device's listeners,
 * one for each host. It exists so that mutual TLS between device and hosts takes one command and no knowledge of X.509;
 * who has an authority of their own gives the PEM files of that one instead.
 *
 * Keys are ECDSA on P-256. A host's certificate is good for a client only, the device's for a server only, so a host
 * cannot pass itself off as the device. The name in a host's certificate is the host's name. There is no revocation list:
 * the device's tables name the certificates that prove a host, and no other one does.
 *
 * All files are PEM; keys have mode 0600 and are on disk before the certificate that they belong to.
 */
// The X.509 library needs it, and wants its user to load it first.
import 'reflect-metadata';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { systemCode, TwinvolError } from '../core/faults.ts';
import { printable } from '../core/inquiry-text.ts';
import { requireName } from '../core/names.ts';
import { writeFileDurable } from '../platform/durable-file.ts';
import { readPrivateFile } from '../platform/private-file.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const AUTHORITY_DAYS = 3650;
const LEAF_DAYS = 730;
/** Certificates begin a little earlier: clocks of hosts differ. */
const CLOCK_SKEW_MS = 10 * 60 * 1000;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** What a party of mutual TLS needs, as PEM text. */
export type IssuedIdentity = {
  readonly certificate: string;
  readonly key: string;
  /** The authority's certificate. */
  readonly authority: string;
  /** SHA-256 of the certificate, hex. */
  readonly sha256: string;
  readonly expiresAtMs: number;
};
/** Where the same is on disk. */
export type IssuedFiles = { readonly certificateFile: string; readonly keyFile: string; readonly authorityFile: string };
export type Issued = IssuedIdentity & IssuedFiles;

type KeyPair = webcrypto.CryptoKeyPair;

const newKeys = (): Promise<KeyPair> => webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);

const keyPem = async (key: webcrypto.CryptoKey): Promise<string> => {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), x509.PemConverter.PrivateKeyTag)}\n`;
};

const certificatePem = (certificate: x509.X509Certificate): string => `${certificate.toString('pem')}\n`;

/** A positive number of 128 random bits, as the CA/Browser Forum and RFC 5280 (4.1.2.2) want it. */
const newSerial = (): string => {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
};

const validity = (nowMs: number, days: number): { readonly notBefore: Date; readonly notAfter: Date } => {
  return { notBefore: new Date(nowMs - CLOCK_SKEW_MS), notAfter: new Date(nowMs + days * DAY_MS) };
};

/** An IP address in contrast to a name. */
const isAddress = (text: string): boolean => isIP(text) !== 0;
/** RFC 1123, section 2.1; underscores are in use as well. A name whose last part is a number would be an address. */
const DNS_NAME = /^(?=.{1,253}$)(?:[a-z\d_](?:[a-z\d_-]{0,61}[a-z\d_])?\.)*(?!\d+$)[a-z\d_](?:[a-z\d_-]{0,61}[a-z\d_])?$/i;

/** @throws TwinvolError `USAGE` */
const requireServerName = (text: string): void => {
  if (isAddress(text) || DNS_NAME.test(text)) return;
  throw new TwinvolError('USAGE', `"${printable(text)}" is neither a host name nor an IP address`, {
    remedy: 'give names and addresses without ports and brackets, such as storage.example 192.0.2.10',
  });
};

const commonName = (name: string): x509.JsonName => [{ CN: [name] }];

const { clientAuth, serverAuth } = x509.ExtendedKeyUsage;
const { keyCertSign, digitalSignature } = x509.KeyUsageFlags;

export class CertificateAuthority {
  readonly #directory: string;
  readonly #certificate: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;

  private constructor(directory: string, certificate: x509.X509Certificate, key: webcrypto.CryptoKey) {
    this.#directory = directory;
    this.#certificate = certificate;
    this.#key = key;
  }

  /**
   * The authority kept in this directory (which has to exist); it is made where there is none.
   * @param name what its certificate is called, when it is made
   * @throws TwinvolError `STORE_DAMAGED` if its files do not belong together, `STORE_IO`
   */
  static async open(directory: string, name: string, nowMs: number = Date.now()): Promise<CertificateAuthority> {
    const files = authorityFiles(directory);
    const [keyText, certificateText] = [readPrivateFile(files.key), readPrivateFile(files.certificate)];
    // A key alone is what a crash in between leaves: nothing was signed with it yet.
    if (certificateText === null) return CertificateAuthority.#create(directory, name, nowMs);
    if (keyText === null) throw damaged(files.key, 'the key of the certificate authority is missing');
    try {
      const certificate = new x509.X509Certificate(certificateText);
      const pkcs8 = x509.PemConverter.decodeFirst(keyText);
      const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, ALGORITHM, true, ['sign']);
      await requireMatch(certificate, key);
      return new CertificateAuthority(directory, certificate, key);
    } catch (error) {
      throw damaged(files.key, 'the key and the certificate of the certificate authority do not belong together', error);
    }
  }

  static async #create(directory: string, name: string, nowMs: number): Promise<CertificateAuthority> {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: newSerial(),
      name: commonName(name),
      ...validity(nowMs, AUTHORITY_DAYS),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(keyCertSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false),
      ],
    });
    const files = authorityFiles(directory);
    write(files.key, await keyPem(keys.privateKey), 0o600);
    write(files.certificate, certificatePem(certificate), 0o644);
    return new CertificateAuthority(directory, certificate, keys.privateKey);
  }

  /** PEM text of the authority's certificate. */
  get certificate(): string {
    return certificatePem(this.#certificate);
  }

  /**
   * A new key and certificate for a host, in `host-NAME.key` and `host-NAME.crt`; an earlier one of the host is replaced
   * there, and stays valid until it expires.
   * @throws TwinvolError `NAME_INVALID`, `STORE_IO`
   */
  issueHost(host: string, nowMs: number = Date.now()): Promise<Issued> {
    requireName('host', host);
    return this.#issue(`host-${host}`, host, clientAuth, [host], nowMs);
  }

  /**
   * A new key and certificate for the device's own listeners, in `server.key` and `server.crt`.
   * @param addresses every name and address by which hosts reach the device; the first is the certificate's common name
   * @throws TwinvolError `USAGE`, `STORE_IO`
   */
  issueServer(addresses: readonly string[], nowMs: number = Date.now()): Promise<Issued> {
    const first = addresses[0];
    if (first === undefined) throw new TwinvolError('USAGE', 'a certificate for the device needs a name or address of it');
    for (const address of addresses) requireServerName(address);
    return this.#issue('server', first, serverAuth, addresses, nowMs);
  }

  async #issue(fileName: string, name: string, use: x509.ExtendedKeyUsage, addresses: readonly string[], nowMs: number): Promise<Issued> {
    const keys = await newKeys();
    const names = addresses.map((address) => ({ type: isAddress(address) ? 'ip' : 'dns', value: address }) as const);
    const span = validity(nowMs, LEAF_DAYS);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: newSerial(),
      subject: commonName(name),
      issuer: this.#certificate.subject,
      ...span,
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: this.#key,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([use], false),
        new x509.SubjectAlternativeNameExtension([...names]),
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate, false),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false),
      ],
    });
    const keyFile = join(this.#directory, `${fileName}.key`);
    const certificateFile = join(this.#directory, `${fileName}.crt`);
    const key = await keyPem(keys.privateKey);
    write(keyFile, key, 0o600);
    write(certificateFile, certificatePem(certificate), 0o644);
    const authorityFile = authorityFiles(this.#directory).certificate;
    const sha256 = createHash('sha256').update(new Uint8Array(certificate.rawData)).digest('hex');
    const issued = {
      certificate: certificatePem(certificate),
      key,
      authority: this.certificate,
      sha256,
      expiresAtMs: span.notAfter.getTime(),
    };
    return { ...issued, certificateFile, keyFile, authorityFile };
  }
}

const authorityFiles = (directory: string): { readonly key: string; readonly certificate: string } => {
  return { key: join(directory, 'ca.key'), certificate: join(directory, 'ca.crt') };
};

const damaged = (path: string, text: string, cause?: unknown): TwinvolError => {
  return new TwinvolError('STORE_DAMAGED', `${text}: ${path}`, {
    remedy: 'restore ca.key and ca.crt from a backup, or remove both and issue all certificates anew',
    details: { path },
    cause,
  });
};

const requireMatch = async (certificate: x509.X509Certificate, key: webcrypto.CryptoKey): Promise<void> => {
  const probe = new TextEncoder().encode('the key and the certificate belong together');
  const signature = await webcrypto.subtle.sign(ALGORITHM, key, probe);
  const publicKey = await certificate.publicKey.export(ALGORITHM, ['verify']);
  if (!(await webcrypto.subtle.verify(ALGORITHM, publicKey, signature, probe))) throw new Error('the signature of the key does not verify');
};

const write = (path: string, text: string, mode: number): void => {
  try {
    writeFileDurable(path, Buffer.from(text), mode);
  } catch (error) {
    throw new TwinvolError('STORE_IO', `cannot write ${path}: ${systemCode(error)}`, { cause: error, details: { path } });
  }
};
