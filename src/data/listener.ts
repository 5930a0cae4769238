/**
 * Accepts NBD connections on the main thread and hands each descriptor to a lane.
 *
 * Nothing is read here: the accepted socket is paused, its descriptor duplicated, and the original closed. A unix
 * socket that a dead engine left behind is replaced; one that somebody answers on is not.
 */
import fs from 'node:fs';
import net from 'node:net';
import { systemCode, TwinvolError } from '../core/faults.ts';
import { duplicateDescriptor } from '../platform/descriptor.ts';
import { isWithinReserve } from './descriptor-reserve.ts';

/** A TCP client that is not heard of for this long is asked whether it is still there. */
export const KEEP_ALIVE: { readonly keepAlive: true; readonly keepAliveInitialDelay: number } = {
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
};

/** Connections that may wait to be accepted: all the kernel grants, because a unix socket's client is turned away beyond. */
export const BACKLOG = 4096;

/** A unix socket's path has to fit sockaddr_un. */
const UNIX_PATH_BYTES_MAX = 107;

export type Accepted = { readonly fd: number; readonly transport: 'unix' | 'tcp'; readonly address: string };

export class Listener {
  readonly #servers: net.Server[] = [];
  readonly #onAccepted: (accepted: Accepted) => void;

  constructor(onAccepted: (accepted: Accepted) => void) {
    this.#onAccepted = onAccepted;
  }

  async unix(path: string): Promise<void> {
    await clearUnixPath(path);
    const server = this.#server('unix');
    // Only the engine's user may connect until somebody says otherwise.
    const mask = process.umask(0o077);
    try {
      await listening(server, { path });
    } finally {
      process.umask(mask);
    }
  }

  /** @returns the port, also where 0 asked for any */
  async tcp(host: string, port: number): Promise<number> {
    const server = this.#server('tcp');
    await listening(server, { host, port });
    return (server.address() as net.AddressInfo).port;
  }

  #server(transport: 'unix' | 'tcp'): net.Server {
    const server = net.createServer({ pauseOnConnect: true, noDelay: true, ...KEEP_ALIVE }, (socket) => {
      const fd = (socket as unknown as { readonly _handle: { readonly fd: number } | null })._handle?.fd ?? -1;
      const address = transport === 'unix' ? 'unix' : `${socket.remoteAddress}:${socket.remotePort}`;
      const duplicate = fd < 0 ? null : tryDuplicate(fd);
      socket.on('error', () => {});
      socket.destroy();
      if (duplicate !== null) this.#onAccepted({ fd: duplicate, transport, address });
    });
    this.#servers.push(server);
    return server;
  }

  close(): void {
    for (const server of this.#servers) server.close();
    this.#servers.length = 0;
  }
}

/** Null when the process has no descriptor to spare: that client is turned away, the others go on. */
const tryDuplicate = (fd: number): number | null => {
  try {
    const duplicate = duplicateDescriptor(fd);
    if (duplicate === null || isWithinReserve(duplicate)) return duplicate;
    fs.closeSync(duplicate);
    return null;
  } catch {
    return null;
  }
};

const listening = (server: net.Server, options: net.ListenOptions): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const where = options.path ?? `${options.host}:${options.port}`;
      reject(listenFault(where, systemCode(error) === '' ? error.message : systemCode(error), error));
    });
    server.listen({ ...options, backlog: BACKLOG }, resolve);
  });

/** @param code the system's error code, or a text where there is none */
export const listenFault = (where: string, code: string, cause: unknown): TwinvolError => {
  const why = code === 'EADDRINUSE' ? 'somebody else listens there' : code;
  return new TwinvolError('STORE_IO', `NBD cannot listen on ${where}: ${why}`, { remedy: 'choose another socket or port', cause });
};

/** Removes a socket file that nobody answers on. */
export const clearUnixPath = async (path: string): Promise<void> => {
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new TwinvolError('USAGE', `the socket path ${path} is longer than ${UNIX_PATH_BYTES_MAX} bytes`, {
      remedy: 'choose a shorter path with --nbd-unix',
    });
  }
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) {
    throw new TwinvolError('USAGE', `${path} exists and is not a socket`, { remedy: 'choose another path, or remove the file' });
  }
  const isAnswered = await new Promise<boolean>((resolve) => {
    const probe = net.connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (isAnswered)
    throw new TwinvolError('STORE_LOCKED', `another process listens on ${path}`, { remedy: 'choose another path with --nbd-unix' });
  fs.rmSync(path, { force: true });
};
