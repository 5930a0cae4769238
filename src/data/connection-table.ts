/**
 * The connections of a lane: how they come (adopted, or accepted here), shake hands, and end.
 *
 * A handshake has a deadline, and so has a request whose rest does not come; a client that is slow or gone costs
 * nobody else anything. An export is looked up by asking the main thread; the answer is bound to the connection.
 */
import net from 'node:net';
import { TwinvolError } from '../core/faults.ts';
import { NBD_PAYLOAD_BYTES_MAX } from '../core/units.ts';
import * as nbd from '../wire/nbd-constants.ts';
import { BLOCK_SIZES_DEFAULT } from '../wire/nbd-handshake.ts';
import { CONTEXT_ALLOCATION, CONTEXT_DIRTY, contextOfBitmap } from '../wire/nbd-meta-context.ts';
import { type ExportInfo, type NegotiationStep, ServerNegotiation, type TransmissionStart } from '../wire/nbd-negotiation.ts';
import { replyModeOf } from '../wire/nbd-transmission.ts';
import { Connection } from './connection.ts';
import type { Lane } from './lane.ts';
import type { ConnectionReport, TlsMaterial, ToLane } from './lane-messages.ts';
import { LaneSocket, type SocketEvents } from './lane-socket.ts';
import type { ExportGrant, ExportRefusal, PeerIdentity } from './plane-api.ts';

const HANDSHAKE_MS = 10_000;
/** A request whose bytes stop coming half-way. */
const STALLED_MS = 120_000;
/** How long an ended client may still ask and be told that the export shuts down. */
const SHUTDOWN_GRACE_MS = 100;

const TRANSMISSION_FLAGS: number =
  nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH | nbd.NBD_FLAG_SEND_FUA | nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES |
  nbd.NBD_FLAG_CAN_MULTI_CONN | nbd.NBD_FLAG_SEND_CACHE | nbd.NBD_FLAG_SEND_FAST_ZERO;

type Listen = Extract<ToLane, { type: 'listen' }>;
type Ending = { readonly waiting: Set<Connection>; readonly count: number; readonly done: (count: number) => void };

export class ConnectionTable {
  readonly #lane: Lane;
  readonly #all = new Map<number, Connection>();
  readonly #asks = new Map<number, Connection>();
  readonly #grants = new WeakMap<Connection, ExportGrant>();
  readonly #servers: net.Server[] = [];
  #endings: Ending[] = [];
  #ask = 0;
  #ownId = 0;
  #tls: TlsMaterial | null;

  constructor(lane: Lane, tls: TlsMaterial | null) {
    this.#lane = lane;
    this.#tls = tls;
  }

  setTls(tls: TlsMaterial | null): void {
    this.#tls = tls;
  }

  adopt(fd: number, id: number, transport: 'unix' | 'tcp', address: string): void {
    const connection = this.#make(id, transport, address);
    this.#start(connection, LaneSocket.adopt(fd, this.#events(connection)));
  }

  /** Listens on this thread (no descriptor can be handed over). Answers with the port, or what went wrong. */
  listen(message: Listen, answer: (port: number, error?: string) => void): void {
    const transport = message.unixPath === null ? 'tcp' : 'unix';
    const server = net.createServer((socket) => {
      this.#ownId += 1;
      const connection = this.#make(this.#ownId, transport, transport === 'unix' ? 'unix' : `${socket.remoteAddress}:${socket.remotePort}`);
      this.#start(connection, LaneSocket.stream(socket.setNoDelay(true), this.#events(connection)));
    });
    server.once('error', (error: NodeJS.ErrnoException) => answer(0, error.code ?? error.message));
    const listening = (): void => {
      const address = server.address();
      answer(typeof address === 'object' && address !== null ? address.port : 0);
    };
    if (message.unixPath !== null) server.listen(message.unixPath, listening);
    else server.listen({ host: message.host ?? '127.0.0.1', port: message.port }, listening);
    this.#servers.push(server);
  }

  #make(id: number, transport: 'unix' | 'tcp', address: string): Connection {
    const mode = this.#tls === null ? 'off' : this.#tls.required ? 'required' : 'optional';
    const negotiation = new ServerNegotiation({ tls: transport === 'unix' ? (mode === 'required' ? 'optional' : mode) : mode });
    return new Connection(this.#lane, id, transport, address, negotiation);
  }

  #events(connection: Connection): SocketEvents {
    return {
      received: (buffer, start, length) => connection.received(buffer, start, length),
      nextBuffer: () => connection.nextBuffer(),
      drained: () => this.#lane.drained(connection),
      ended: (reason) => this.#ended(connection, reason),
    };
  }

  #start(connection: Connection, socket: LaneSocket): void {
    connection.socket = socket;
    this.#all.set(connection.id, connection);
    const greeting = (connection.negotiation as ServerNegotiation).greeting();
    socket.write(greeting, 0, greeting.length);
  }

  /** Does one step of the handshake. */
  negotiationStep(connection: Connection, step: NegotiationStep): void {
    switch (step.kind) {
      case 'send':
        return connection.socket.write(step.bytes, 0, step.bytes.length);
      case 'need-export':
        return this.#lane.send({ type: 'find', ask: this.#newAsk(connection), name: step.name, peer: identityOf(connection) });
      case 'need-list':
        return this.#lane.send({ type: 'list', ask: this.#newAsk(connection), peer: identityOf(connection) });
      case 'start-tls':
        return this.#startTls(connection);
      case 'transmission':
        return this.#transmission(connection, step);
      case 'close':
        return connection.leave(step.reason);
    }
  }

  #newAsk(connection: Connection): number {
    this.#ask += 1;
    this.#asks.set(this.#ask, connection);
    return this.#ask;
  }

  found(ask: number, answer: ExportGrant | ExportRefusal): void {
    const connection = this.#takeAsk(ask);
    if (connection === null) return;
    const volume = 'refused' in answer ? undefined : this.#lane.volumes.get(answer.volume);
    if ('refused' in answer || volume === undefined) {
      const refusal = 'refused' in answer ? answer : ({ refused: 'unknown', message: 'the volume is gone' } as const);
      connection.negotiate(connection.negotiation?.resumeExport(refusal) ?? []);
      return;
    }
    this.#grants.set(connection, answer);
    const info: ExportInfo = {
      canonicalName: volume.name,
      description: answer.description,
      sizeBytes: volume.leg.capacityBytes,
      transmissionFlags: TRANSMISSION_FLAGS | (answer.readOnly ? nbd.NBD_FLAG_READ_ONLY : 0),
      blockSizes: { ...BLOCK_SIZES_DEFAULT, maximumBytes: NBD_PAYLOAD_BYTES_MAX },
      metaContexts: answer.dirty === null ? [CONTEXT_ALLOCATION] : [CONTEXT_ALLOCATION, CONTEXT_DIRTY, contextOfBitmap(volume.name)],
    };
    connection.negotiate(connection.negotiation?.resumeExport(info) ?? []);
  }

  listed(ask: number, entries: ReadonlyArray<{ readonly name: string; readonly description: string }>): void {
    const connection = this.#takeAsk(ask);
    if (connection !== null) connection.negotiate(connection.negotiation?.resumeList(entries) ?? []);
  }

  #takeAsk(ask: number): Connection | null {
    const connection = this.#asks.get(ask) ?? null;
    this.#asks.delete(ask);
    return connection === null || connection.phase === 'closing' ? null : connection;
  }

  #startTls(connection: Connection): void {
    const material = this.#tls;
    if (material === null) throw new TwinvolError('INTERNAL', 'TLS was negotiated without a certificate');
    connection.phase = 'tls';
    const options = {
      cert: material.certPem,
      key: material.keyPem,
      requestCert: material.caPem !== null,
      rejectUnauthorized: material.caPem !== null,
      ...(material.caPem === null ? {} : { ca: material.caPem }),
    };
    connection.socket.startTls(options, (certificateName) => {
      connection.isTls = true;
      connection.certificateName = certificateName;
      connection.phase = 'handshake';
      connection.negotiation?.resumeTls();
    });
  }

  #transmission(connection: Connection, start: TransmissionStart): void {
    const grant = this.#grants.get(connection);
    const volume = grant === undefined ? undefined : this.#lane.volumes.get(grant.volume);
    if (grant === undefined || volume === undefined) return connection.leave('volume-gone');
    const mode = replyModeOf(start);
    this.#lane.send({ type: 'opened', id: connection.id, volume: grant.volume, peer: connection.address });
    connection.startTransmission(
      {
        volume,
        grant,
        mode,
        rules: {
          sizeBytes: start.export.sizeBytes,
          transmissionFlags: start.transmissionFlags,
          mode,
          metaContextCount: start.metaContexts.length,
          minimumBytes: 1,
          payloadBytesMax: NBD_PAYLOAD_BYTES_MAX,
        },
        contexts: start.metaContexts.map(({ name }) => (name === CONTEXT_ALLOCATION ? 'allocation' : 'dirty')),
      },
      start.readAhead,
    );
  }

  /** Ends connections with the shutdown error; `done` when they are gone. */
  end(which: { readonly client: number | null; readonly volume: number | null }, done: (count: number) => void): void {
    const waiting = new Set<Connection>();
    for (const connection of this.#all.values()) {
      const volume = connection.session?.volume.leg.number ?? this.#grants.get(connection)?.volume ?? null;
      const isMeant = (which.client === null || which.client === connection.id) && (which.volume === null || which.volume === volume);
      if (isMeant) waiting.add(connection);
    }
    if (waiting.size === 0) return done(0);
    this.#endings.push({ waiting, count: waiting.size, done });
    for (const connection of [...waiting]) this.#shutDown(connection);
  }

  #shutDown(connection: Connection): void {
    if (connection.session === null) return connection.socket.destroy('ended');
    connection.isShutDown = true;
    connection.proceed('held');
    setTimeout(() => connection.leave('ended'), SHUTDOWN_GRACE_MS);
  }

  proceedHeld(volume: number): void {
    for (const connection of this.#all.values()) {
      if (connection.session?.volume.leg.number === volume) connection.proceed('held');
    }
  }

  hasDeferredWrites(volume: number): boolean {
    for (const connection of this.#all.values()) {
      if (connection.deferredWrites > 0 && connection.session?.volume.leg.number === volume) return true;
    }
    return false;
  }

  /** Cuts off handshakes and requests that do not go on. */
  expire(nowMs: number): void {
    for (const connection of this.#all.values()) {
      const idleMs = nowMs - connection.lastActivityMs;
      if ((connection.phase === 'handshake' || connection.phase === 'tls') && nowMs - connection.connectedAtMs > HANDSHAKE_MS) {
        connection.socket.destroy('handshake-timeout');
      } else if (connection.isMidRequest && idleMs > STALLED_MS) {
        connection.socket.destroy('request-timeout');
      }
    }
  }

  report(): ConnectionReport[] {
    return [...this.#all.values()].map((connection) => connection.report());
  }

  destroyAll(reason: string): void {
    for (const server of this.#servers) server.close();
    for (const connection of [...this.#all.values()]) connection.socket.destroy(reason);
  }

  #ended(connection: Connection, reason: string): void {
    if (!this.#all.delete(connection.id)) return;
    const volume = connection.session?.volume.leg.number ?? null;
    connection.release();
    this.#lane.closed(connection);
    this.#lane.send({ type: 'closed', id: connection.id, volume, peer: connection.address, reason: connection.endReason || reason });
    this.#endings = this.#endings.filter(({ waiting, count, done }) => {
      waiting.delete(connection);
      if (waiting.size > 0) return true;
      done(count);
      return false;
    });
  }
}

const identityOf = (connection: Connection): PeerIdentity => ({
  transport: connection.isTls ? 'tls' : connection.transport,
  address: connection.address,
  certificateName: connection.certificateName,
});
