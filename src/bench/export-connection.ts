/**
 * Connections of a benchmark to its export: how they are made, what it means when one cannot be made, and how they are
 * left in bounded time.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { TwinvolError } from '../core/faults.ts';
import { connect, type NbdClient, type NbdClientInfo } from '../nbd-client/nbd-client.ts';
import { NbdError } from '../nbd-client/nbd-error.ts';
import type { ExportLimits, Workload } from './workload.ts';

const LEAVE_MS_MAX = 2000;

/** What to do about a failure of TLS; null where it is something else. */
const tlsRemedy = (uri: string, { code, cause }: NbdError): string | null => {
  if (code === 'NBD_TLS' && cause === undefined) {
    return 'write nbds:// or nbds+unix:// for a server with TLS, nbd:// or nbd+unix:// for one without';
  }
  // A server that does not take the client's certificate closes after the handshake of TLS 1.3, when we are content.
  const { syscall = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  const isClosed = code === 'NBD_CONNECT' && /^nbds/i.test(uri) && syscall !== 'connect' && syscall !== 'getaddrinfo';
  if (code !== 'NBD_TLS' && !isClosed) return null;
  return (
    'add ?tls-certificates=DIR to the URI: a folder with the ca-cert.pem that signed the server, and client-cert.pem and client-key.pem ' +
    'where it asks for them; tls-hostname=NAME where the certificate bears another name'
  );
};

/** An error of the NBD client, as one of the catalogue. */
const nbdFault = (uri: string, error: unknown): unknown => {
  if (!(error instanceof NbdError)) return error;
  // What is wrong with a URI comes with a remedy of its own.
  if (error.code === 'NBD_USAGE' && error.cause instanceof TwinvolError) return error.cause;
  if (error.code === 'NBD_USAGE') return new TwinvolError('URI_INVALID', error.message, { cause: error });
  if (error.code === 'NBD_ABORTED') return new TwinvolError('CANCELLED', 'the connecting was given up', { cause: error });
  const remedy = tlsRemedy(uri, error);
  return new TwinvolError('NBD_UNREACHABLE', `${uri}: ${error.message}`, {
    cause: error,
    details: { uri, code: error.code },
    ...(remedy === null ? {} : { remedy }),
  });
};

/** @throws TwinvolError `URI_INVALID`, `NBD_UNREACHABLE`, `CANCELLED` */
export const connectTo = async (uri: string, depth: number, signal: AbortSignal | undefined): Promise<NbdClient> => {
  try {
    return await connect({ uri, depth, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    throw nbdFault(uri, error);
  }
};

/**
 * The first connection: for a look at the export, its block status, and then the run (`BenchmarkInput.first`). One for
 * all three, because a server may end with its first client (`qemu-nbd` without `-t`).
 * @throws TwinvolError `URI_INVALID`, `NBD_UNREACHABLE`, `CANCELLED`
 */
export const openExport = (uri: string, { streams }: Workload, signal?: AbortSignal): Promise<NbdClient> =>
  // One more than the run needs: a block status that was given up may be under way still.
  connectTo(uri, (streams[0]?.depth ?? 0) + 1, signal);

export const limitsOf = ({ sizeBytes, blockSizes, readOnly, canFlush, canFua }: NbdClientInfo): ExportLimits => ({
  sizeBytes,
  minimumBlockBytes: blockSizes.minimumBytes,
  readOnly,
  canFlush,
  canFua,
});

/** A server that takes some of the connections is up and has the export: the remedy is another one than for none at all. */
export const tooFewConnections = ({ streams }: Workload, made: number, cause: TwinvolError): TwinvolError => {
  const wanted = streams.reduce((sum, { connections }) => sum + connections, 0);
  const raise = `let the server take ${wanted} at once (qemu-nbd: -e ${wanted})`;
  return new TwinvolError('NBD_UNREACHABLE', `the server took ${made} of ${wanted} connections; the next one: ${cause.message}`, {
    cause,
    details: { ...cause.details, connectionsMade: made, connectionsWanted: wanted },
    remedy: streams.length === 1 ? `${raise}, or give --connections ${made}` : raise,
  });
};

/** Says goodbye, as long as the server listens: a request of ours that it never answers must not keep us. */
export const leave = async (clients: readonly NbdClient[]): Promise<void> => {
  const timer = new AbortController();
  const late = delay(LEAVE_MS_MAX, null, { signal: timer.signal }).catch(() => null);
  await Promise.race([Promise.all(clients.map((client) => client.disconnect())), late]);
  timer.abort();
  for (const client of clients) client.destroy();
};
