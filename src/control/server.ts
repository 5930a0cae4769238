/**
 * The control socket's server: accepts, counts and closes connections; each of them is a ControlConnection.
 *
 * The socket has mode 0600: who may connect is who owns the store, or root. One process owns a store, so a socket that
 * is found at the path when the server starts is one that a dead process left.
 */
import type { Server, Socket } from 'node:net';
import { TwinvolError } from '../core/faults.ts';
import type { Engine } from '../engine/api.ts';
import { listenPrivately } from '../platform/unix-socket.ts';
import { encodeError, errorBodyOf } from '../wire/control-frames.ts';
import { ControlConnection } from './connection.ts';
import { CONTROL_LIMITS_DEFAULT, type ControlLimits } from './control-limits.ts';
import { type ControlLog, SILENT_LOG } from './control-log.ts';

export type ControlServerOptions = { readonly log?: ControlLog; readonly limits?: Partial<ControlLimits> };

export class ControlServer {
  readonly path: string;
  readonly #engine: Engine;
  readonly #limits: ControlLimits;
  readonly #log: ControlLog;
  readonly #connections = new Map<ControlConnection, Socket>();
  #server: Server | null = null;
  #nextId = 1;

  constructor(engine: Engine, path: string, options: ControlServerOptions = {}) {
    this.#engine = engine;
    this.path = path;
    this.#limits = { ...CONTROL_LIMITS_DEFAULT, ...options.limits };
    this.#log = options.log ?? SILENT_LOG;
  }

  /** Connections right now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** @throws TwinvolError `STORE_IO`, `NOT_SUPPORTED` */
  async listen(): Promise<void> {
    this.#server = await listenPrivately(this.path, (socket) => this.#accept(socket));
    this.#server.on('error', (error) => this.#log.error({ err: error }, 'the control socket failed to accept'));
  }

  /** Takes no more connections; waits and streams are given up, what is in flight is answered, and every connection closes. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    this.#server = null;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const connection of this.#connections.keys())
      connection.finishQuietly(new TwinvolError('ENGINE_STOPPING', 'the engine is stopping'));
    const cutOff = setTimeout(() => {
      for (const socket of this.#connections.values()) socket.destroy();
    }, this.#limits.graceMs);
    await closed;
    clearTimeout(cutOff);
  }

  #accept(socket: Socket): void {
    if (this.#server === null || this.#connections.size >= this.#limits.connections) {
      this.#refuse(socket);
      return;
    }
    const connection = new ControlConnection(this.#nextId, socket, this.#engine, this.#limits, this.#log);
    this.#nextId += 1;
    this.#connections.set(connection, socket);
    socket.on('close', () => this.#connections.delete(connection));
  }

  #refuse(socket: Socket): void {
    const max = this.#limits.connections;
    const error =
      this.#server === null
        ? new TwinvolError('ENGINE_STOPPING', 'the engine is stopping')
        : new TwinvolError('LIMIT', `the control socket has ${max} connections already`, { remedy: 'end one of them', details: { max } });
    this.#log.warn({ connections: this.#connections.size }, error.message);
    socket.on('error', () => socket.destroy());
    socket.end(encodeError(null, errorBodyOf(error)), () => socket.destroy());
  }
}
