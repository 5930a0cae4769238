/**
 * The connections of a lane: how they come (adopted, or accepted here), shake hands, and end.
 *
 * A handshake has a deadline, and so has a request whose rest does not come; a client that is slow or gone costs
 * nobody else anything. An export is looked up by asking the main thread; the answer is bound to the connection.
 */
import fs from 'node:fs';
import net from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';
import { TwinvolError } from '../core/faults.ts';
import { tcpConnectionRef, unixConnectionRef } from '../core/mount-facts.ts';
import { NBD_PAYLOAD_BYTES_MAX } from '../core/units.ts';
import * as nbd from '../wire/nbd-constants.ts';
import { BLOCK_SIZES_DEFAULT } from '../wire/nbd-handshake.ts';
import { CONTEXT_ALLOCATION, CONTEXT_DIRTY, contextOfBitmap } from '../wire/nbd-meta-context.ts';
import { ServerNegotiation } from '../wire/nbd-negotiation.ts';
import type { ExportInfo, NegotiationStep, TransmissionStart } from '../wire/nbd-negotiation-steps.ts';
import { replyModeOf } from '../wire/nbd-transmission.ts';
import { Connection } from './connection.ts';
import type { Lane } from './lane.ts';
import type { ClientDeadlines, ConnectionReport, TlsMaterial, ToLane } from './lane-messages.ts';
import { isWithinReserve } from './descriptor-reserve.ts';
import { LaneSocket, type SocketEvents } from './lane-socket.ts';
import { BACKLOG, KEEP_ALIVE } from './listener.ts';
import type { ExportGrant, ExportRefusal, PeerIdentity } from './plane-api.ts';

/** Clients in the handshake at one time; for one more the oldest of them has to go, which an honest one never is. */
const HANDSHAKES_MAX = 512;
/** Connections of a lane. */
const CONNECTIONS_MAX = 4096;
/** Unread replies to options; who asks for more before reading them is up to no good. */
const HANDSHAKE_UNREAD_BYTES_MAX: number = 1024 * 1024;
/** While others wait for buffers, a client has this long to send, or to take, the piece that it holds one for. */
const PIECE_MS = 2000;
/** How long a client that was told to leave may take to read what it is owed, or one that goes to close its side. */
const LEAVING_MS = 3000;
/** How long an ended client may still ask and be told that the export shuts down. */
const SHUTDOWN_GRACE_MS = 100;

const READ_FLAGS: number =
  nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH | nbd.NBD_FLAG_SEND_FUA | nbd.NBD_FLAG_CAN_MULTI_CONN | nbd.NBD_FLAG_SEND_CACHE;
const WRITE_FLAGS: number = nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO;

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
  readonly #deadlines: ClientDeadlines;
  #tls: TlsMaterial | null;
  /** Made once for all connections. */
  #secureContext: SecureContext | null = null;
  /** Connections in the handshake, the oldest first. */
  readonly #handshakes = new Set<Connection>();

  constructor(lane: Lane, tls: TlsMaterial | null, deadlines: ClientDeadlines) {
    this.#lane = lane;
    this.#tls = tls;
    this.#deadlines = deadlines;
  }

  setTls(tls: TlsMaterial | null): void {
    this.#tls = tls;
    this.#secureContext = null;
  }

  adopt(fd: number, id: number, transport: 'unix' | 'tcp', address: string): void {
    const connection = this.#make(id, transport, address);
    let socket: LaneSocket | null = null;
    try {
      connection.ref = refOf(fd, transport, address);
      if (this.#all.size < CONNECTIONS_MAX) socket = LaneSocket.adopt(fd, this.#events(connection));
    } catch {
      // Whatever it is, it is no socket that can be served.
    }
    if (socket !== null) return this.#start(connection, socket);
    fs.closeSync(fd);
    this.#lane.send({ type: 'closed', id, volume: null, peer: address, reason: 'too-many-connections' });
  }

  /** Listens on this thread (no descriptor can be handed over). Answers with the port, or what went wrong. */
  listen(message: Listen, answer: (port: number, error?: string) => void): void {
    const transport = message.unixPath === null ? 'tcp' : 'unix';
    const server = net.createServer({ allowHalfOpen: true, noDelay: true, ...KEEP_ALIVE }, (socket) => {
      const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
      if (this.#all.size >= CONNECTIONS_MAX || !isWithinReserve(fd)) {
        socket.destroy();
        return;
      }
      this.#ownId += 1;
      const connection = this.#make(this.#ownId, transport, transport === 'unix' ? 'unix' : `${socket.remoteAddress}:${socket.remotePort}`);
      connection.ref = refOf(fd, transport, connection.address);
      this.#start(connection, LaneSocket.stream(socket, this.#events(connection)));
    });
    server.once('error', (error: NodeJS.ErrnoException) => answer(0, error.code ?? error.message));
    const listening = (): void => {
      const address = server.address();
      answer(typeof address === 'object' && address !== null ? address.port : 0);
    };
    const where = message.unixPath === null ? { host: message.host ?? '127.0.0.1', port: message.port } : { path: message.unixPath };
    server.listen({ ...where, backlog: BACKLOG }, listening);
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
      inputEnded: () => connection.inputEnded(),
      ended: (reason) => this.#ended(connection, reason),
      poll: this.#lane.poll,
    };
  }

  #start(connection: Connection, socket: LaneSocket): void {
    connection.socket = socket;
    this.#all.set(connection.id, connection);
    this.#handshakes.add(connection);
    if (this.#handshakes.size > HANDSHAKES_MAX) {
      for (const oldest of this.#handshakes) {
        oldest.socket.destroy('too-many-handshakes');
        break;
      }
    }
    const greeting = (connection.negotiation as ServerNegotiation).greeting();
    socket.write(greeting, 0, greeting.length);
  }

  /** Does one step of the handshake. */
  negotiationStep(connection: Connection, step: NegotiationStep): void {
    switch (step.kind) {
      case 'send':
        if (connection.socket.waitingBytes > HANDSHAKE_UNREAD_BYTES_MAX) return connection.socket.destroy('handshake-not-read');
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
    connection.askedAtMs = Date.now();
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
      transmissionFlags: READ_FLAGS | (answer.readOnly ? nbd.NBD_FLAG_READ_ONLY : WRITE_FLAGS),
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
    if (connection === null || connection.phase === 'closing') return null;
    // The client waited for us: for a list, or while a command held the volume.
    connection.handshakeSinceMs += Date.now() - connection.askedAtMs;
    connection.askedAtMs = 0;
    return connection;
  }

  #startTls(connection: Connection): void {
    const material = this.#tls;
    if (material === null) throw new TwinvolError('INTERNAL', 'TLS was negotiated without a certificate');
    connection.phase = 'tls';
    this.#secureContext ??= createSecureContext({
      cert: material.certPem,
      key: material.keyPem,
      minVersion: 'TLSv1.2',
      ...(material.caPem === null ? {} : { ca: material.caPem }),
    });
    const needsCertificate = material.caPem !== null;
    const options = { secureContext: this.#secureContext, requestCert: needsCertificate, rejectUnauthorized: needsCertificate };
    connection.socket.startTls(options, (certificate) => {
      connection.isTls = true;
      connection.certificateName = certificate?.name ?? null;
      connection.certificateSha256 = certificate?.sha256 ?? null;
      connection.phase = 'handshake';
      connection.negotiation?.resumeTls();
    });
  }

  #transmission(connection: Connection, start: TransmissionStart): void {
    const grant = this.#grants.get(connection);
    const volume = grant === undefined ? undefined : this.#lane.volumes.get(grant.volume);
    if (grant === undefined || volume === undefined) return connection.leave('volume-gone');
    const mode = replyModeOf(start);
    this.#handshakes.delete(connection);
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
    if (connection.isLeaving) return connection.hurry();
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
      if (connection.deferred.writes > 0 && connection.session?.volume.leg.number === volume) return true;
    }
    return false;
  }

  /** Cuts off handshakes and requests that do not go on. */
  expire(nowMs: number): void {
    const { isShort } = this.#lane.buffers;
    for (const connection of [...this.#all.values()]) {
      const reason = expiryOf(connection, nowMs, this.#deadlines, isShort);
      if (reason !== '') connection.socket.destroy(reason);
    }
  }

  report(): ConnectionReport[] {
    return [...this.#all.values()].map(reportOf);
  }

  destroyAll(reason: string): void {
    for (const server of this.#servers) server.close();
    for (const connection of [...this.#all.values()]) connection.socket.destroy(reason);
  }

  #ended(connection: Connection, reason: string): void {
    if (!this.#all.delete(connection.id)) return;
    this.#handshakes.delete(connection);
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

/** How the other end can name the connection: by its own address, or by the inode of our end of a unix socket. */
const refOf = (fd: number, transport: 'unix' | 'tcp', address: string): string | null => {
  if (transport === 'unix') return fd < 0 ? null : unixConnectionRef(fs.fstatSync(fd).ino);
  const colon = address.lastIndexOf(':');
  const port = Number(address.slice(colon + 1));
  return Number.isInteger(port) && colon > 0 ? tcpConnectionRef(address.slice(0, colon), port) : null;
};

const identityOf = (connection: Connection): PeerIdentity => ({
  transport: connection.isTls ? 'tls' : connection.transport,
  address: connection.address,
  certificateName: connection.certificateName,
  certificateSha256: connection.certificateSha256,
});

/** Why the connection's time is up, or an empty string. */
const expiryOf = (connection: Connection, nowMs: number, deadlines: ClientDeadlines, isShort: boolean): string => {
  if (connection.phase === 'handshake' || connection.phase === 'tls') {
    return connection.askedAtMs === 0 && nowMs - connection.handshakeSinceMs > deadlines.handshakeMs ? 'handshake-timeout' : '';
  }
  if (isShort && (connection.heldMs(nowMs) ?? 0) > PIECE_MS) return 'too-slow';
  if (connection.isLeaving) {
    const isOwed = connection.isPatient && (!connection.isGone || connection.socket.waitingBytes > 0);
    const limitMs = isOwed ? deadlines.requestMs : LEAVING_MS;
    return connection.deferred.count === 0 && nowMs - connection.leftAtMs > limitMs ? connection.endReason : '';
  }
  return connection.isMidRequest && nowMs - connection.lastActivityMs > deadlines.requestMs ? 'request-timeout' : '';
};

const reportOf = (connection: Connection): ConnectionReport => {
  const { session } = connection;
  return {
    id: connection.id,
    volume: session?.volume.leg.number ?? null,
    volumeName: session?.volume.name ?? null,
    peer: connection.address,
    transport: connection.isTls ? 'tls' : connection.transport,
    phase: connection.phase === 'tls' ? 'handshake' : connection.phase,
    readOnly: session?.grant.readOnly ?? false,
    // A name in a certificate is no host until the engine says so.
    host: session?.grant.host ?? null,
    ref: connection.ref,
    connectedAtMs: connection.connectedAtMs,
    readBytes: connection.readBytes,
    writtenBytes: connection.writtenBytes,
    requests: connection.requests,
  };
};
