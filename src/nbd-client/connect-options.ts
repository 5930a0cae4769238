/**
 * What a caller may say about a connection, and what it comes to: one settled record with every default filled in.
 */
import { TwinvolError } from '../core/faults.ts';
import { readTlsDirectory } from '../platform/client-stream.ts';
import type { StreamTarget, StreamTls } from '../platform/client-stream.ts';
import { NBD_PORT, NBD_STRING_BYTES_MAX } from '../wire/nbd-constants.ts';
import { parseNbdUri } from '../wire/nbd-uri.ts';
import { NbdError } from './nbd-error.ts';

/** TLS of a connection: PEM texts, and the name that the server's certificate has to bear. */
export type NbdTlsOptions = StreamTls;

export type ReconnectOptions = {
  /** The first wait between two attempts; it doubles from there. Default 100 ms. */
  readonly backoffMs?: number;
  /** The longest wait. Default 5 s. */
  readonly backoffMsMax?: number;
  /** How long to try before the client is given up. Default 60 s. */
  readonly deadlineMs?: number;
  /** How often one request is sent at most. Default 5. */
  readonly attemptsMax?: number;
};

/** A change of the client's connections that no request was needed to notice. */
export type ConnectionEvent =
  | { readonly kind: 'lost'; readonly error: NbdError; readonly connections: number }
  | { readonly kind: 'reconnected'; readonly connections: number }
  /** The client is given up; every further request fails with this error. */
  | { readonly kind: 'broken'; readonly error: NbdError };

export type ConnectOptions = {
  /** An NBD URI; or `socket`; or `host` and `port`. */
  readonly uri?: string;
  /** Path of a unix socket. */
  readonly socket?: string;
  /** Default localhost. */
  readonly host?: string;
  /** Default 10809. */
  readonly port?: number;
  /** Default: the name in the URI, or the server's default export (the empty name). */
  readonly exportName?: string;
  /** With these TLS is demanded, as with `nbds://`. */
  readonly tls?: NbdTlsOptions;
  /** How many connections; only one where the server does not allow several (CAN_MULTI_CONN). Default 1. */
  readonly connections?: number;
  /** Requests in flight on one connection; more wait in a queue. Default 64. */
  readonly depth?: number;
  /** Metadata contexts to select, for `blockStatus`. Default `base:allocation`. */
  readonly metaContexts?: readonly string[];
  /** Default true both. */
  readonly structuredReplies?: boolean;
  readonly extendedHeaders?: boolean;
  /** The whole handshake. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /** A request from its call to its end, reconnections included. Default 0: no limit. */
  readonly requestTimeoutMs?: number;
  /** Without it the first lost connection breaks the client. */
  readonly reconnect?: boolean | ReconnectOptions;
  /** Gives the connecting up. */
  readonly signal?: AbortSignal;
  readonly onConnectionEvent?: (event: ConnectionEvent) => void;
};

export type SettledOptions = {
  readonly target: StreamTarget;
  /** For messages: `host:port` or the socket's path. */
  readonly place: string;
  readonly tls: StreamTls | null;
  readonly tlsHost: string;
  readonly exportName: string;
  readonly connections: number;
  readonly depth: number;
  readonly metaContexts: readonly string[];
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly reconnect: Required<ReconnectOptions> | null;
  readonly signal: AbortSignal | null;
  readonly onConnectionEvent: (event: ConnectionEvent) => void;
};

const RECONNECT_DEFAULT: Required<ReconnectOptions> = { backoffMs: 100, backoffMsMax: 5000, deadlineMs: 60_000, attemptsMax: 5 };
const CONNECTIONS_MAX = 64;
const DEPTH_MAX = 4096;

const usage = (message: string, cause?: unknown): NbdError => new NbdError('NBD_USAGE', message, cause === undefined ? {} : { cause });

const wholeNumber = (name: string, value: number, min: number, max: number): number => {
  if (!Number.isInteger(value) || value < min || value > max) throw usage(`${name} is a whole number from ${min} to ${max}, not ${value}`);
  return value;
};

type Where = {
  readonly target: StreamTarget;
  readonly exportName: string;
  readonly demandsTls: boolean;
  readonly tlsHost: string;
  readonly tls: StreamTls;
};

const fromUri = async (uri: string): Promise<Where> => {
  try {
    const parsed = parseNbdUri(uri);
    const files = parsed.tlsCertificates === undefined ? {} : await readTlsDirectory(parsed.tlsCertificates);
    return {
      target: parsed.where,
      exportName: parsed.exportName,
      demandsTls: parsed.tls,
      tlsHost: parsed.where.kind === 'tcp' ? parsed.where.host : 'localhost',
      tls: {
        ...files,
        ...(parsed.tlsHostname === undefined ? {} : { servername: parsed.tlsHostname }),
        ...(parsed.tlsVerifyPeer === undefined ? {} : { verifyPeer: parsed.tlsVerifyPeer }),
      },
    };
  } catch (error) {
    throw usage(error instanceof TwinvolError ? error.message : `the TLS certificates cannot be read: ${(error as Error).message}`, error);
  }
};

const fromParts = (options: ConnectOptions): Where => {
  const host = options.host ?? 'localhost';
  const port = wholeNumber('port', options.port ?? NBD_PORT, 1, 65_535);
  const target: StreamTarget = options.socket === undefined ? { kind: 'tcp', host, port } : { kind: 'unix', path: options.socket };
  return { target, exportName: '', demandsTls: false, tlsHost: options.socket === undefined ? host : 'localhost', tls: {} };
};

/** @throws NbdError `NBD_USAGE` */
export const settleOptions = async (given: string | ConnectOptions): Promise<SettledOptions> => {
  const options: ConnectOptions = typeof given === 'string' ? { uri: given } : given;
  if (options.uri !== undefined && (options.socket !== undefined || options.host !== undefined || options.port !== undefined)) {
    throw usage('give a URI, or a socket, or a host and port, not several of them');
  }
  if (options.socket !== undefined && options.host !== undefined) throw usage('give a socket or a host, not both');
  const where = options.uri === undefined ? fromParts(options) : await fromUri(options.uri);
  const exportName = options.exportName ?? where.exportName;
  if (exportName.includes('\0') || Buffer.byteLength(exportName) > NBD_STRING_BYTES_MAX)
    throw usage('an export name has at most 4096 bytes and no NUL');
  const reconnect = options.reconnect === true ? {} : options.reconnect;
  return {
    target: where.target,
    place: where.target.kind === 'unix' ? where.target.path : `${where.target.host}:${where.target.port}`,
    tls: where.demandsTls || options.tls !== undefined ? { ...where.tls, ...options.tls } : null,
    tlsHost: where.tlsHost,
    exportName,
    connections: wholeNumber('connections', options.connections ?? 1, 1, CONNECTIONS_MAX),
    depth: wholeNumber('depth', options.depth ?? 64, 1, DEPTH_MAX),
    metaContexts: options.metaContexts ?? ['base:allocation'],
    structuredReplies: options.structuredReplies ?? true,
    extendedHeaders: (options.extendedHeaders ?? true) && options.structuredReplies !== false,
    connectTimeoutMs: wholeNumber('connectTimeoutMs', options.connectTimeoutMs ?? 10_000, 1, 2 ** 31 - 1),
    requestTimeoutMs: wholeNumber('requestTimeoutMs', options.requestTimeoutMs ?? 0, 0, 2 ** 31 - 1),
    reconnect: reconnect === undefined || reconnect === false ? null : { ...RECONNECT_DEFAULT, ...reconnect },
    signal: options.signal ?? null,
    onConnectionEvent: options.onConnectionEvent ?? (() => {}),
  };
};
