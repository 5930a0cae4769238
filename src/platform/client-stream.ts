/**
 * The client's end of a byte stream: TCP or a unix socket, in clear text or TLS that is started on the way.
 *
 * Received bytes are not handed over in fresh buffers: the socket reads into memory that the receiver names just
 * before each read, so the payload of a large read can land where it belongs without a copy. A TLS stream cannot do
 * that and hands over buffers of its own; the receiver tells by which buffer it gets.
 *
 * Invariants: `onBytes` and `nextBuffer` are never called after `onEnd`, `onEnd` is called exactly once.
 */
import { readFile, stat } from 'node:fs/promises';
import { connect, isIP, type OnReadOpts, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { TwinvolError } from '../core/faults.ts';
import { connectUnix } from './unix-socket.ts';

export type StreamTarget =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export type StreamHandlers = {
  /** Memory for the next read. Asked for before each read, so it may differ every time. */
  nextBuffer(): Buffer;
  /** `length` bytes are at the start of `bytes`, which is what `nextBuffer` gave, or another buffer. Valid during the call. */
  onBytes(bytes: Buffer, length: number): void;
  /** The stream is over: by the other side (null) or by an error. */
  onEnd(error: Error | null): void;
};

export type StreamTls = {
  /** PEM. */
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** The name that the server's certificate has to bear. */
  readonly servername?: string;
  /** Default true. */
  readonly verifyPeer?: boolean;
};

const TLS_FILES = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'] as const;

/**
 * The files of a certificate directory as GnuTLS-based NBD programs keep them; those that are missing stay absent. With
 * none of them the name is a wrong one: to go on would be to trust the system's authorities, which nobody asked for.
 * @throws TwinvolError `URI_INVALID` where there is no such directory, or none of the files; the system's error
 */
export const readTlsDirectory = async (directory: string): Promise<StreamTls> => {
  const read = async (name: string): Promise<Buffer | null> => {
    try {
      return await readFile(join(directory, name));
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw error;
    }
  };
  const [ca, cert, key] = await Promise.all(TLS_FILES.map(read));
  if (!ca && !cert && !key) {
    const isThere = (await stat(directory).catch(() => null))?.isDirectory() === true;
    const why = isThere ? `has none of ${TLS_FILES.join(', ')}` : 'is no directory';
    throw new TwinvolError('URI_INVALID', `the TLS certificates cannot be read: ${directory} ${why}`, {
      remedy: `give tls-certificates=DIR with ${TLS_FILES[0]} to trust the server, and ${TLS_FILES[1]} and ${TLS_FILES[2]} where it asks for them`,
    });
  }
  return { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
};

export class ClientStream {
  readonly #handlers: StreamHandlers;
  #socket: Socket | null = null;
  #isOver = false;
  /** Takes our listeners off the socket. */
  #release: () => void = () => {};

  constructor(handlers: StreamHandlers) {
    this.#handlers = handlers;
  }

  /**
   * @param expectsTls TLS will be started on this stream: then its reads go through fresh buffers
   * @throws the system's error
   */
  async open(target: StreamTarget, expectsTls: boolean): Promise<void> {
    const onread: OnReadOpts = {
      buffer: () => this.#handlers.nextBuffer(),
      callback: (length, bytes) => {
        if (!this.#isOver) this.#handlers.onBytes(bytes as Buffer, length);
        return true;
      },
    };
    const reads = expectsTls ? {} : { onread };
    const socket = target.kind === 'unix' ? await connectUnix(target.path, reads) : await this.#connectTcp(target, reads);
    if (this.#isOver) {
      socket.destroy();
      throw new Error('the stream was given up while it was being opened');
    }
    this.#adopt(socket);
    if (expectsTls) socket.on('data', this.#onData);
  }

  #connectTcp(target: { readonly host: string; readonly port: number }, reads: { readonly onread?: OnReadOpts }): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: target.host, port: target.port, noDelay: true, keepAlive: true, ...reads });
      // A stream that is given up while it connects takes its socket with it.
      this.#socket = socket;
      const onClose = (): void => reject(new Error('the connection was closed'));
      // They stay: an error between the connection and its adoption must find a listener.
      socket.on('error', reject).once('close', onClose);
      socket.once('connect', () => resolve(socket));
    });
  }

  /**
   * Goes on in TLS. Resolves when the other side has been verified.
   * @throws the error of the TLS handshake; the stream is over then
   */
  startTls(tls: StreamTls, host: string): Promise<void> {
    const plain = this.#socket;
    if (plain === null || this.#isOver) return Promise.reject(new Error('the stream is over'));
    this.#release();
    return new Promise((resolve, reject) => {
      const name = tls.servername ?? host;
      const secure = connectTls({
        socket: plain,
        host: name,
        rejectUnauthorized: tls.verifyPeer !== false,
        ...(isIP(name) === 0 ? { servername: name } : {}),
        ...(tls.ca === undefined ? {} : { ca: tls.ca }),
        ...(tls.cert === undefined ? {} : { cert: tls.cert }),
        ...(tls.key === undefined ? {} : { key: tls.key }),
      });
      plain.on('error', (error) => secure.destroy(error));
      const onClose = (): void => reject(new Error('the server closed the connection during the TLS handshake'));
      secure.once('error', reject).once('close', onClose);
      secure.once('secureConnect', () => {
        secure.off('error', reject).off('close', onClose);
        this.#adopt(secure);
        secure.on('data', this.#onData);
        resolve();
      });
    });
  }

  /** Nothing is copied: the bytes must stay as they are until `written` is called. */
  write(bytes: Buffer, written?: () => void): void {
    if (this.#socket !== null && !this.#isOver) this.#socket.write(bytes, written);
  }

  /** Several writes as one system call. */
  writeTogether(pieces: readonly Buffer[], written: () => void): void {
    const socket = this.#socket;
    if (socket === null || this.#isOver) return;
    socket.cork();
    for (let index = 0; index < pieces.length; index += 1) {
      const piece = pieces[index];
      if (piece !== undefined) socket.write(piece, index === pieces.length - 1 ? written : undefined);
    }
    socket.uncork();
  }

  /** Sends what is written, then ends the sending direction; the stream is over when the other side ends it too. */
  end(): void {
    this.#socket?.end();
  }

  /** Ends the stream at once. `onEnd` is not called. */
  destroy(): void {
    this.#isOver = true;
    this.#socket?.destroy();
    this.#socket = null;
  }

  #adopt(socket: Socket): void {
    this.#socket = socket;
    let failure: Error | null = null;
    const onError = (error: Error): void => {
      failure = error;
    };
    const onClose = (): void => {
      if (this.#isOver) return;
      this.#isOver = true;
      this.#socket = null;
      this.#handlers.onEnd(failure);
    };
    const onEnd = (): void => {
      socket.end();
    };
    socket.on('error', onError).once('close', onClose).once('end', onEnd);
    this.#release = () => {
      socket.off('error', onError).off('close', onClose).off('end', onEnd).off('data', this.#onData);
    };
  }

  readonly #onData = (bytes: Buffer): void => {
    if (!this.#isOver) this.#handlers.onBytes(bytes, bytes.length);
  };
}
