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
import type { BusyPoll } from './busy-poll.ts';
import { type PeerCertificate, peerCertificate } from '../platform/mutual-tls.ts';

export type SocketEvents = {
  /** Bytes at [start, start + length) of `buffer`; they are gone when the call returns. False: stop reading. */
  readonly received: (buffer: Buffer, start: number, length: number) => void;
  /** Where the next bytes should go: called after each read of a direct socket. */
  readonly nextBuffer: () => Buffer;
  /** The blocked write has left. */
  readonly drained: () => void;
  /** The client sends nothing more; it may still read. */
  readonly inputEnded: () => void;
  readonly ended: (reason: string) => void;
  readonly poll: BusyPoll;
};

/** Reads what is there at once; the number of bytes, 0 at the end, or -1 when there is nothing or an error. */
const readNow = (fd: number, buffer: Buffer): number => {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return fs.readSync(fd, buffer, 0, buffer.length, null);
  } catch {
    // Whatever it is, the event loop's own read meets it again.
    return -1;
  } finally {
    Error.stackTraceLimit = limit;
  }
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

  /** Takes over a descriptor: from here on it is closed with this socket. Throws when it is no socket that can be used. */
  static adopt(fd: number, events: SocketEvents): LaneSocket {
    let current: LaneSocket | null = null;
    let buffer = events.nextBuffer();
    const socket = new net.Socket({
      fd,
      readable: true,
      writable: true,
      // Who has said goodbye may close its side at once (libnbd does), and still has replies to come.
      allowHalfOpen: true,
      onread: {
        buffer: () => {
          buffer = events.nextBuffer();
          return buffer;
        },
        callback: (bytes: number) => {
          if (current === null) {
            events.received(buffer, 0, bytes);
            return true;
          }
          current.#turn(buffer, bytes);
          return !current.#isPaused;
        },
      },
    } as net.SocketConstructorOpts);
    current = new LaneSocket(socket, fd, events);
    socket.resume();
    return current;
  }

  /** A turn of the event loop: what libuv has read, and what follows at once as long as busy polling allows. */
  #turn(first: Buffer, length: number): void {
    const { poll, received, nextBuffer } = this.#events;
    poll.begin(this);
    received(first, 0, length);
    for (let isOn = poll.look(); isOn && !this.#isPaused && !this.#hasEnded && this.#fd >= 0; ) {
      const buffer = nextBuffer();
      const bytes = readNow(this.#fd, buffer);
      // The end, and every error, are the event loop's.
      if (bytes === 0) break;
      if (bytes > 0) received(buffer, 0, bytes);
      isOn = bytes > 0 ? poll.hit() : poll.miss();
    }
    poll.end();
  }

  /** A socket that this thread accepted. */
  static stream(socket: net.Socket, events: SocketEvents): LaneSocket {
    const made = new LaneSocket(socket, -1, events);
    socket.on('data', (chunk: Buffer) => events.received(chunk, 0, chunk.length));
    return made;
  }

  /**
   * Starts TLS on the connection; `onSecure` gets what the client's verified certificate says, or null.
   * Must be called from within `received` of the client's STARTTLS, so that no byte of the TLS handshake is lost.
   */
  startTls(options: tls.TLSSocketOptions, onSecure: (certificate: PeerCertificate | null) => void): void {
    const raw = this.#socket;
    raw.removeAllListeners();
    this.#fd = -1;
    const secure = new tls.TLSSocket(raw, { ...options, isServer: true });
    this.#socket = secure;
    this.#watch(secure);
    secure.once('secure', () => {
      const asksForCertificate = options.requestCert === true;
      if (asksForCertificate && verifyErrorOf(secure) !== null) return this.destroy('tls-unauthorized');
      onSecure(asksForCertificate ? peerCertificate(secure) : null);
    });
    secure.on('data', (chunk: Buffer) => this.#events.received(chunk, 0, chunk.length));
  }

  /** Bytes that wait because the client does not read. */
  get waitingBytes(): number {
    return this.#socket.writableLength;
  }

  /** Writes a part of a buffer that may be used again afterwards. */
  write(buffer: Buffer, start: number, end: number): void {
    const taken = this.#take(buffer, start, end);
    if (taken < end) this.#writeStream(Buffer.from(buffer.subarray(taken, end)));
  }

  /** Writes a part of a buffer that stays untouched until `drained`, or until the call returns unblocked. */
  writeKept(buffer: Buffer, start: number, end: number): void {
    const taken = this.#take(buffer, start, end);
    if (taken < end) this.#writeStream(buffer.subarray(taken, end));
  }

  /** Writes directly what the socket takes at once, unless earlier bytes wait. @returns where the rest starts */
  #take(buffer: Buffer, start: number, end: number): number {
    if (this.#hasEnded) return end;
    if (this.#fd < 0 || this.isBlocked) return start;
    const { poll } = this.#events;
    for (let at = start, isFirst = true; ; isFirst = false) {
      const done = writeNow(this.#fd, buffer, at, end - at);
      if (done < 0) {
        this.destroy('write-failed');
        return end;
      }
      at += done;
      if (at === end) return at;
      // What it takes of the first write is no sign that it will soon take more.
      if (!(isFirst ? poll.look() : done > 0 ? poll.hit() : poll.miss())) return at;
    }
  }

  #writeStream(bytes: Buffer): void {
    const socket = this.#socket;
    socket.write(bytes, this.#onWritten);
    // What the socket took during the call is gone from the stream's own count at once.
    this.isBlocked = socket.writableLength > 0;
  }

  readonly #onWritten = (error?: Error | null): void => {
    // An error is followed by the event that ends the connection; until then its descriptor is not to be touched.
    if (!this.isBlocked || this.#hasEnded || (error !== undefined && error !== null) || this.#socket.writableLength > 0) return;
    this.isBlocked = false;
    const { poll, drained } = this.#events;
    poll.begin(this);
    drained();
    poll.end();
  };

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

  /** Sends what waits, then ends the connection. A client that does not read it is cut off by whoever watches the time. */
  end(): void {
    if (this.#hasEnded) return;
    this.#socket.end();
    // What it still sends is read and dropped: unread bytes would turn the end into a reset, and replies would be lost.
    this.resume();
  }

  destroy(reason: string): void {
    this.#socket.destroy();
    this.#finish(reason);
  }

  #watch(socket: net.Socket): void {
    socket.on('error', (error) => this.#finish(systemCode(error) || 'error'));
    socket.on('end', () => this.#events.inputEnded());
    socket.on('close', () => this.#finish('client-closed'));
  }

  #finish(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#events.ended(reason);
    this.#socket.destroy();
  }
}

/** What is wrong with the client's certificate, or null. Node tells it only to its own TLS server, and there by this call. */
const verifyErrorOf = (socket: tls.TLSSocket): Error | null => {
  const { ssl } = socket as unknown as { readonly ssl: { verifyError(): Error | null | undefined } | null };
  return ssl === null ? new Error('the connection is gone') : (ssl.verifyError() ?? null);
};
