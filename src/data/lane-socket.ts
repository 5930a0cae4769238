/**
 * A connection's socket as a lane uses it: libuv reads straight into the lane's buffer, and replies go out by one
 * direct write on the descriptor; only what the socket does not take goes through the stream.
 *
 * Three kinds behind one interface: an adopted descriptor (direct), TLS, and a socket that the lane accepted itself
 * (native-free); the last two are streams all the way. Invariant: while a write waits (`isBlocked`), nothing else is
 * written, so bytes never overtake each other.
 */
import fs from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { systemCode } from '../core/faults.ts';

export type SocketEvents = {
  /** Bytes at [start, start + length) of `buffer`; they are gone when the call returns. False: stop reading. */
  readonly received: (buffer: Buffer, start: number, length: number) => void;
  /** Where the next bytes should go: called after each read of a direct socket. */
  readonly nextBuffer: () => Buffer;
  /** The blocked write has left. */
  readonly drained: () => void;
  readonly ended: (reason: string) => void;
};

/** Writes what the socket takes at once; the number of bytes, or -1 when the other end is gone. */
const writeNow = (fd: number, buffer: Buffer, start: number, length: number): number => {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return fs.writeSync(fd, buffer, start, length);
  } catch (error) {
    return systemCode(error) === 'EAGAIN' ? 0 : -1;
  } finally {
    Error.stackTraceLimit = limit;
  }
};

export class LaneSocket {
  isBlocked = false;
  #socket: net.Socket;
  /** The descriptor for direct writes, or -1. */
  #fd: number;
  readonly #events: SocketEvents;
  #hasEnded = false;
  #isPaused = false;

  private constructor(socket: net.Socket, fd: number, events: SocketEvents) {
    this.#socket = socket;
    this.#fd = fd;
    this.#events = events;
    this.#watch(socket);
  }

  /** Takes over a descriptor: from here on it is closed with this socket. */
  static adopt(fd: number, events: SocketEvents): LaneSocket {
    let current: LaneSocket | null = null;
    let buffer = events.nextBuffer();
    const socket = new net.Socket({
      fd,
      readable: true,
      writable: true,
      allowHalfOpen: false,
      onread: {
        buffer: () => {
          buffer = events.nextBuffer();
          return buffer;
        },
        callback: (bytes: number) => {
          events.received(buffer, 0, bytes);
          return current === null || !current.#isPaused;
        },
      },
    } as net.SocketConstructorOpts);
    current = new LaneSocket(socket, fd, events);
    socket.resume();
    return current;
  }

  /** A socket that this thread accepted. */
  static stream(socket: net.Socket, events: SocketEvents): LaneSocket {
    const made = new LaneSocket(socket, -1, events);
    socket.on('data', (chunk: Buffer) => events.received(chunk, 0, chunk.length));
    return made;
  }

  /**
   * Starts TLS on the connection; `onSecure` gets the verified certificate's common name, or null.
   * Must be called from within `received` of the client's STARTTLS, so that no byte of the TLS handshake is lost.
   */
  startTls(options: tls.TLSSocketOptions, onSecure: (certificateName: string | null) => void): void {
    const raw = this.#socket;
    raw.removeAllListeners();
    this.#fd = -1;
    const secure = new tls.TLSSocket(raw, { ...options, isServer: true });
    this.#socket = secure;
    this.#watch(secure);
    secure.once('secure', () => {
      if (options.requestCert === true && options.rejectUnauthorized !== false && !secure.authorized) {
        this.destroy('tls-unauthorized');
        return;
      }
      const subject = secure.getPeerCertificate().subject as { readonly CN?: string | string[] } | undefined;
      const name = subject?.CN;
      onSecure(typeof name === 'string' && secure.authorized ? name : null);
    });
    secure.on('data', (chunk: Buffer) => this.#events.received(chunk, 0, chunk.length));
  }

  /** Writes a part of a buffer that may be used again afterwards. */
  write(buffer: Buffer, start: number, end: number): void {
    if (this.#hasEnded) return;
    if (this.#fd < 0) return this.#writeStream(Buffer.from(buffer.subarray(start, end)));
    const done = writeNow(this.#fd, buffer, start, end - start);
    if (done < 0) return this.destroy('write-failed');
    if (done < end - start) this.#writeStream(Buffer.from(buffer.subarray(start + done, end)));
  }

  /** Writes a part of a buffer that stays untouched until `drained`, or until the call returns unblocked. */
  writeKept(buffer: Buffer, start: number, end: number): void {
    if (this.#hasEnded) return;
    const done = this.#fd < 0 ? 0 : writeNow(this.#fd, buffer, start, end - start);
    if (done < 0) return this.destroy('write-failed');
    if (done < end - start) this.#writeStream(buffer.subarray(start + done, end));
  }

  #writeStream(bytes: Buffer): void {
    this.isBlocked = true;
    this.#socket.write(bytes, () => {
      this.isBlocked = false;
      if (!this.#hasEnded) this.#events.drained();
    });
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket.resume();
  }

  /** Sends what waits, then ends the connection; a client that does not read is cut off. */
  end(reason: string, graceMs: number): void {
    if (this.#hasEnded) return;
    this.#socket.end();
    const timer = setTimeout(() => this.destroy(reason), graceMs);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }

  destroy(reason: string): void {
    this.#socket.destroy();
    this.#finish(reason);
  }

  #watch(socket: net.Socket): void {
    socket.on('error', (error) => this.#finish(systemCode(error) || 'error'));
    socket.on('end', () => this.#finish('client-closed'));
    socket.on('close', () => this.#finish('client-closed'));
  }

  #finish(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#events.ended(reason);
    this.#socket.destroy();
  }
}
