/**
 * TLS connections in which both sides show a certificate of the same certificate authority, and the name in the client's
 * certificate says who it is.
 *
 * TLS 1.2 at least. A client without a certificate of that authority never gets past the handshake. A handshake that
 * takes too long is ended. Certificates and keys are given as PEM text.
 */
import type { AddressInfo } from 'node:net';
import { connect as connectPlain, isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { connect, createServer } from 'node:tls';
import { TwinvolError } from '../core/faults.ts';

export type TlsIdentity = { readonly certificate: string; readonly key: string; readonly authority: string };

export type TlsListener = {
  /** The address in use; the port is the system's choice if 0 was asked for. */
  readonly address: { readonly host: string; readonly port: number };
  close(): Promise<void>;
};

const HANDSHAKE_MS_MAX = 5000;
const MIN_VERSION = 'TLSv1.2';

/** Who the other side is by its certificate: the common name, and the SHA-256 of the certificate (hex, lower case). */
export type PeerCertificate = { readonly name: string; readonly sha256: string };

/** `AB:CD:...` as `abcd...`. */
export const fingerprintHex = (fingerprint: string): string => fingerprint.replaceAll(':', '').toLowerCase();

/** Of the peer's certificate; null if it has none, or no common name, or several. */
export const peerCertificate = (socket: TLSSocket): PeerCertificate | null => {
  // Node gives null for a socket that is closed already, whatever its types say.
  const certificate = socket.getPeerCertificate() as {
    readonly subject?: { readonly CN?: unknown };
    readonly fingerprint256?: string;
  } | null;
  const name = certificate?.subject?.CN;
  if (typeof name !== 'string' || name === '' || certificate?.fingerprint256 === undefined) return null;
  return { name, sha256: fingerprintHex(certificate.fingerprint256) };
};

export type TlsListenHandlers = {
  /** The handshake is done. The handler owns the socket. */
  connection(socket: TLSSocket, certificate: PeerCertificate): void;
  /** Somebody did not get through the handshake. */
  refused(peer: string, reason: string): void;
};

/**
 * @param connectionsMax connections at one time, handshakes included; more are closed at once
 * @throws TwinvolError `USAGE` for a certificate or key that cannot be used, `NOT_SUPPORTED` if the address cannot be listened on
 */
export const listenMutualTls = async (
  place: { readonly host: string; readonly port: number },
  identity: TlsIdentity,
  connectionsMax: number,
  handlers: TlsListenHandlers,
): Promise<TlsListener> => {
  const server = createTlsServer(identity);
  server.maxConnections = connectionsMax;
  server.on('secureConnection', (socket: TLSSocket) => {
    const certificate = socket.authorized ? peerCertificate(socket) : null;
    if (certificate !== null) return handlers.connection(socket, certificate);
    handlers.refused(socket.remoteAddress ?? 'unknown', 'its certificate has no common name');
    socket.on('error', () => {});
    socket.destroy();
  });
  server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
    handlers.refused(socket.remoteAddress ?? 'unknown', error.message);
    socket.destroy();
  });
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error): void => {
      reject(new TwinvolError('NOT_SUPPORTED', `cannot listen on ${place.host}:${place.port}: ${error.message}`, { cause: error }));
    };
    server.once('error', fail);
    server.listen(place.port, place.host, () => {
      server.removeListener('error', fail);
      resolve();
    });
  });
  const { address, port } = server.address() as AddressInfo;
  const close = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  return { address: { host: address, port }, close };
};

const identityError = (error: unknown): TwinvolError => {
  return new TwinvolError('USAGE', `the certificate or key cannot be used: ${(error as Error).message}`, {
    cause: error,
    remedy: 'give PEM files that belong together, and the certificate of their authority',
  });
};

const createTlsServer = (identity: TlsIdentity): ReturnType<typeof createServer> => {
  try {
    return createServer({
      cert: identity.certificate,
      key: identity.key,
      ca: identity.authority,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: MIN_VERSION,
      handshakeTimeout: HANDSHAKE_MS_MAX,
    });
  } catch (error) {
    throw identityError(error);
  }
};

/**
 * Connects, shows the certificate and checks the server's: of the same authority, and for the name `serverName`.
 * @throws TwinvolError `USAGE` for a certificate or key that cannot be used; the system's or the TLS error otherwise
 */
export const connectMutualTls = (
  place: { readonly host: string; readonly port: number; readonly serverName: string },
  identity: TlsIdentity,
  signal: AbortSignal,
): Promise<TLSSocket> => {
  return new Promise((resolve, reject) => {
    const plain = connectPlain({ host: place.host, port: place.port, signal });
    const timer = setTimeout(() => plain.destroy(new Error('the TLS handshake took too long')), HANDSHAKE_MS_MAX);
    const settle = (action: () => void): void => {
      clearTimeout(timer);
      action();
    };
    plain.once('error', (error) => settle(() => reject(error)));
    plain.once('connect', () => {
      try {
        const secure = connect({
          socket: plain,
          // The name that the certificate is checked against; an address is not sent along (RFC 6066, section 3).
          host: place.serverName,
          ...(isIP(place.serverName) === 0 ? { servername: place.serverName } : {}),
          cert: identity.certificate,
          key: identity.key,
          ca: identity.authority,
          minVersion: MIN_VERSION,
        });
        secure.once('error', (error: Error) => settle(() => reject(error)));
        secure.once('secureConnect', () => settle(() => resolve(secure)));
      } catch (error) {
        plain.destroy();
        settle(() => reject(identityError(error)));
      }
    });
  });
};
