/**
 * Unix sockets under paths of any length, with the access rights that were asked for from the first moment.
 *
 * A socket's address has room for 107 bytes. A longer path is reached through the directory: it is opened, and the
 * socket is named `/proc/self/fd/N/name`, which the kernel resolves to the same place (Linux, proc(5)). The name itself
 * has to be short then. Rights are set by the umask around `bind`, so there is no moment in which others can connect.
 */
import { chmodSync, closeSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { connect, createServer, type OnReadOpts, type Server, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { systemCode, TwinvolError } from '../core/faults.ts';

/** Linux, unix(7): 108 bytes with the closing zero. */
export const UNIX_PATH_BYTES_MAX: number = 107;

/** A path that fits an address, and the directory descriptor that has to stay open as long as it is used. */
type Address = { readonly path: string; release(): void };

const addressOf = (path: string): Address => {
  if (Buffer.byteLength(path) <= UNIX_PATH_BYTES_MAX) return { path, release: () => {} };
  if (process.platform !== 'linux') {
    throw new TwinvolError('NOT_SUPPORTED', `the socket path ${path} is longer than ${UNIX_PATH_BYTES_MAX} bytes`, {
      remedy: 'use a directory with a shorter path',
      details: { path, bytesMax: UNIX_PATH_BYTES_MAX },
    });
  }
  const fd = openSync(dirname(path), 'r');
  const short = `/proc/self/fd/${fd}/${basename(path)}`;
  let isOpen = true;
  const release = (): void => {
    if (isOpen) closeSync(fd);
    isOpen = false;
  };
  if (Buffer.byteLength(short) > UNIX_PATH_BYTES_MAX) {
    release();
    throw new TwinvolError('NOT_SUPPORTED', `the socket name ${basename(path)} is too long`, {
      remedy: 'use a shorter name',
      details: { path },
    });
  }
  return { path: short, release };
};

/** Removes a socket that a dead process left behind; anything else at that place stays. */
const removeStale = (path: string): void => {
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
};

const bind = (server: Server, path: string): Promise<void> => {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
};

/**
 * Listens with mode 0600. The caller owns the place (it holds the store's lock): a socket that is there is stale.
 * The server is one with half-open connections: a client that has said all may still wait for its replies.
 * @throws TwinvolError `STORE_IO`, `NOT_SUPPORTED`
 */
export const listenPrivately = async (path: string, onConnection: (socket: Socket) => void): Promise<Server> => {
  let address: Address | null = null;
  try {
    address = addressOf(path);
    removeStale(path);
    const server = createServer({ allowHalfOpen: true }, onConnection);
    const held = address;
    server.on('close', () => held.release());
    const umask = isMainThread ? process.umask(0o177) : null;
    let bound: Promise<void>;
    try {
      bound = bind(server, address.path);
    } finally {
      if (umask !== null) process.umask(umask);
    }
    await bound;
    chmodSync(path, 0o600);
    return server;
  } catch (error) {
    address?.release();
    if (error instanceof TwinvolError) throw error;
    throw new TwinvolError('STORE_IO', `cannot listen on ${path}: ${(error as Error).message}`, { cause: error, details: { path } });
  }
};

/**
 * Connects to a unix socket. `reads.onread` lets the caller name the memory that is read into.
 * @throws the system's error (`ENOENT`, `ECONNREFUSED`, `EACCES`, ...), or TwinvolError `NOT_SUPPORTED`
 */
export const connectUnix = (path: string, reads: { readonly onread?: OnReadOpts } = {}): Promise<Socket> => {
  return new Promise((resolve, reject) => {
    const address = addressOf(path);
    const socket = connect({ path: address.path, ...reads });
    const fail = (error: Error): void => {
      address.release();
      reject(error);
    };
    socket.once('error', fail);
    socket.once('connect', () => {
      address.release();
      socket.removeListener('error', fail);
      resolve(socket);
    });
  });
};
