/**
 * One NBD connection on a lane: frames requests out of the byte stream, keeps the order of replies, and stops reading
 * whenever it cannot go on (the socket is full, writes are held, too much is under way).
 *
 * Bytes are parsed where libuv put them. Only what is left of a request that is not there in full is copied: a short
 * rest in front of the lane's next read, a long one into a buffer of the pool, which the socket then fills directly. A long write
 * that need not be whole at a split is not waited for at all (data/streamed-write.ts).
 * Invariant: `stopped` is empty or the one reason why requests wait; whoever removes the reason calls `proceed`.
 */
import { NBD_CMD_DISC } from '../wire/nbd-constants.ts';
import type { ServerNegotiation } from '../wire/nbd-negotiation.ts';
import type { NegotiationStep } from '../wire/nbd-negotiation-steps.ts';
import { type NbdRequest, parseRequest, type ReplyMode, type RequestRules, requestHeaderBytes } from '../wire/nbd-transmission.ts';
import { DeferredRequests } from './deferred-requests.ts';
import type { Lane, LaneVolume } from './lane.ts';
import type { LaneSocket } from './lane-socket.ts';
import { turnUsMax } from './medium-watch.ts';
import type { ExportGrant } from './plane-api.ts';
import type { StreamedRead } from './streamed-read.ts';
import { STREAM_BYTES_MIN, type StreamedWrite, WRITE_PIECE_BYTES } from './streamed-write.ts';
import { isFollowed } from './write-path.ts';

/** A longer request is gathered in a buffer of its own. */
const GATHER_BYTES_MIN: number = 32 * 1024;
/** What comes behind a request that is gathered is read together with it: three 64 KiB writes with one look at the socket. */
const GATHER_AHEAD_BYTES: number = 256 * 1024;
/** Work done for one connection before the others of the lane get their turn: bytes, and so much for each request. */
const TURN_BYTES: number = 8 * 1024 * 1024;
const TURN_REQUEST_BYTES = 4096;
const TURN_LENGTH_MAX: number = 1024 * 1024;
/** The one busy client of a lane gets its replies after so many short requests: it makes new ones while the rest is carried out. */
const REPLIES_EARLY = 4;
const SHORT_BYTES: number = 16 * 1024;

/** Most connections never have one. */
const NONE: NbdRequest[] = [];

export type Phase = 'handshake' | 'tls' | 'transmission' | 'closing';
/** Why requests wait. */
export type StopReason = '' | 'socket-full' | 'held' | 'deferred' | 'budget' | 'streaming' | 'turn';

/** What the handshake settled. */
export type Session = {
  readonly volume: LaneVolume;
  readonly grant: ExportGrant;
  readonly rules: RequestRules;
  readonly mode: ReplyMode;
  /** Context id -> what it shows. */
  readonly contexts: ReadonlyArray<'allocation' | 'dirty'>;
};

export class Connection {
  readonly id: number;
  readonly transport: 'unix' | 'tcp';
  readonly address: string;
  readonly connectedAtMs: number = Date.now();
  /** When the handshake began; the time in which the client waited for an answer of the main thread is added. */
  handshakeSinceMs: number = Date.now();
  /** When the main thread was asked for what the handshake waits for; 0: it was not. */
  askedAtMs = 0;
  /** When it was told to leave; 0 before. */
  leftAtMs = 0;
  socket!: LaneSocket;
  negotiation: ServerNegotiation | null;
  session: Session | null = null;
  phase: Phase = 'handshake';
  isTls = false;
  certificateName: string | null = null;
  certificateSha256: string | null = null;
  /** See `ConnectionReport`. */
  ref: string | null = null;
  stopped: StopReason = '';
  /** Requests whose reply is still to come. */
  readonly deferred: DeferredRequests;
  /** The client said goodbye, or was told to go: nothing more is executed. */
  isLeaving = false;
  /** It goes of its own accord, and may take its time to read what it is owed. */
  isPatient = false;
  /** Everything that was asked is answered, or cannot be any more: only the socket's end is waited for. */
  isGone = false;
  /** Every request is answered with the shutdown error. */
  isShutDown = false;
  endReason = '';
  requests = 0;
  readBytes = 0;
  writtenBytes = 0;
  lastActivityMs: number = Date.now();
  /** Replies that were ready while the socket was full. */
  readonly waitingReplies: Buffer[] = [];
  /** A long read that goes out piece by piece. */
  stream: StreamedRead | null = null;
  /** Long reads that were put off, and wait for the end of that one. */
  lateReads: NbdRequest[] = NONE;
  /** A long write whose payload is coming in. */
  writing: StreamedWrite | null = null;
  readonly #lane: Lane;
  /** A rest that is in front of the next read. */
  #rest: Buffer | null = null;
  #restBytes = 0;
  /** A long request on its way. */
  #gather: Buffer | null = null;
  #gathered = 0;
  #needed = 0;
  /** When the gathering began. */
  #gatherSinceMs = 0;
  #isProcessing = false;
  #hasInputEnded = false;

  constructor(lane: Lane, id: number, transport: 'unix' | 'tcp', address: string, negotiation: ServerNegotiation) {
    this.#lane = lane;
    this.deferred = new DeferredRequests(lane);
    this.id = id;
    this.transport = transport;
    this.address = address;
    this.negotiation = negotiation;
  }

  /** Where the socket puts its next bytes. */
  nextBuffer(): Buffer {
    const gather = this.#gather;
    if (gather !== null) return gather.subarray(this.#gathered);
    return this.#lane.pool.isScarce ? this.#lane.shortReadBuffer : this.#lane.readBuffer;
  }

  received(buffer: Buffer, start: number, length: number): void {
    this.lastActivityMs = this.#lane.nowMs;
    if (this.phase === 'transmission' || this.phase === 'closing') {
      if (this.#gather !== null) this.#receivedGather(buffer, start, length);
      else this.#receivedPlain(buffer, start, length);
    } else if (this.negotiation !== null) {
      this.#negotiate(this.negotiation.feed(buffer.subarray(start, start + length)));
    }
  }

  /** The handshake's answer from another thread arrived. */
  negotiate(steps: NegotiationStep[]): void {
    if (this.phase !== 'closing') this.#negotiate(steps);
  }

  #negotiate(steps: NegotiationStep[]): void {
    for (const step of steps) {
      // A step may find that the client is gone.
      if (this.isGone) return;
      this.#lane.connections.negotiationStep(this, step);
    }
  }

  /** From the handshake to requests; `readAhead` came behind the handshake. */
  startTransmission(session: Session, readAhead: Buffer): void {
    this.session = session;
    this.negotiation = null;
    this.phase = 'transmission';
    if (readAhead.length > 0) this.#process(readAhead, 0, readAhead.length);
  }

  #receivedPlain(buffer: Buffer, start: number, length: number): void {
    const rest = this.#rest;
    if (rest === null) return this.#process(buffer, start, start + length);
    const restBytes = this.#restBytes;
    this.#rest = null;
    const { readBuffer, withHeadroom, headroomBytes, pool } = this.#lane;
    if (restBytes <= headroomBytes && length <= readBuffer.length) {
      // The lane's read buffer starts behind a head room: the rest goes right in front of the new bytes.
      if (buffer.buffer !== readBuffer.buffer) buffer.copy(readBuffer, 0, start, start + length);
      const at = headroomBytes - restBytes;
      rest.copy(withHeadroom, at, 0, restBytes);
      pool.giveRest(rest);
      return this.#process(withHeadroom, at, headroomBytes + length);
    }
    const joined = Buffer.concat([rest.subarray(0, restBytes), buffer.subarray(start, start + length)]);
    pool.giveRest(rest);
    this.#process(joined, 0, joined.length);
  }

  #receivedGather(buffer: Buffer, start: number, length: number): void {
    const gather = this.#gather as Buffer;
    const end = start + length;
    let at = start;
    if (buffer.buffer === gather.buffer) {
      this.#gathered += length;
      at = end;
    } else {
      // Bytes that came elsewhere: from a stream socket, or from a read that had begun before the gathering.
      const taken = Math.min(length, gather.length - this.#gathered);
      buffer.copy(gather, this.#gathered, at, at + taken);
      this.#gathered += taken;
      at += taken;
    }
    if (this.#gathered < this.#needed) return;
    const tail = at < end ? Buffer.from(buffer.subarray(at, end)) : null;
    this.#gatherDone();
    if (tail !== null) this.received(tail, 0, tail.length);
  }

  #gatherDone(): void {
    const gather = this.#gather as Buffer;
    const end = this.#gathered;
    this.#gather = null;
    this.#process(gather, 0, end);
    this.#lane.pool.give(gather);
  }

  /** Handles the requests in [at, end) of `buffer`; keeps what is left. */
  #process(buffer: Buffer, at: number, end: number): void {
    const lane = this.#lane;
    lane.begin(this);
    this.#isProcessing = true;
    let position = at;
    let work = 0;
    let short = 0;
    const beganMs = performance.now();
    while (this.stopped === '' && !this.isLeaving && position < end) {
      const used = this.writing === null ? this.#one(buffer, position, end) : this.#piece(this.writing, buffer, position, end);
      if (used === 0) break;
      position += used;
      work += TURN_REQUEST_BYTES + Math.min(lane.request.length, TURN_LENGTH_MAX);
      if (lane.poll.isOn && lane.request.length <= SHORT_BYTES) short += 1;
      if (short === REPLIES_EARLY) {
        lane.outbox.flush(this);
        short = 0;
      }
      if (work > TURN_BYTES && position < end) {
        this.stop('turn');
        lane.laterTurn(this);
      }
    }
    this.#isProcessing = false;
    if ((performance.now() - beganMs) * 1000 > turnUsMax(work)) this.#suspectMedium();
    lane.finish(this);
    if (position < end && !this.isLeaving) this.#keep(buffer, position, end);
    this.#throttle();
  }

  #suspectMedium(): void {
    this.session?.volume.reads.suspect();
    this.session?.volume.writes.suspect();
  }

  /** One request at `position`: the bytes it took, or 0 when it is not there in full or has to wait. */
  #one(buffer: Buffer, position: number, end: number): number {
    const session = this.session as Session;
    const headerBytes = requestHeaderBytes(session.mode);
    this.#needed = headerBytes;
    if (end - position < headerBytes) return 0;
    const request = this.#lane.request;
    if (!parseRequest(buffer, position, session.mode, request)) {
      this.leave('bad-magic');
      return 0;
    }
    const { payloadBytes } = request;
    if (payloadBytes > session.rules.payloadBytesMax) {
      // The stream cannot be followed past a payload that is not taken.
      this.leave('payload-too-large');
      return 0;
    }
    if (
      payloadBytes > WRITE_PIECE_BYTES ||
      (payloadBytes >= STREAM_BYTES_MIN && end - position < headerBytes + payloadBytes && !isFollowed(session.volume))
    ) {
      this.writing = this.#lane.executor.beginWrite(this, session, request);
      return headerBytes;
    }
    this.#needed = headerBytes + payloadBytes;
    if (end - position < this.#needed) return 0;
    if (request.type === NBD_CMD_DISC) {
      this.leave('client-disconnected');
      return 0;
    }
    if (!this.#lane.executor.execute(this, session, request, buffer, position + headerBytes)) return 0;
    this.requests += 1;
    return this.#needed;
  }

  /** The next piece of a long write at `position`: the bytes it took, or 0 when it is not there in full or has to wait. */
  #piece(writing: StreamedWrite, buffer: Buffer, position: number, end: number): number {
    this.#needed = writing.neededBytes;
    if (end - position < this.#needed) return 0;
    const bytes = writing.pieceOf(end - position);
    if (!this.#lane.executor.writePiece(this, this.session as Session, writing, buffer, position, bytes)) return 0;
    if (writing.leftBytes === 0) {
      this.writing = null;
      this.requests += 1;
    }
    return bytes;
  }

  #keep(buffer: Buffer, position: number, end: number): void {
    const bytes = end - position;
    const isPartial = this.stopped === '';
    if (isPartial && this.#needed > GATHER_BYTES_MIN && bytes < this.#needed) {
      const gather = this.#lane.buffers.take(this, this.#needed, GATHER_AHEAD_BYTES);
      if (gather !== null) {
        buffer.copy(gather, 0, position, end);
        this.#gather = gather;
        this.#gathered = bytes;
        this.#gatherSinceMs = this.#lane.nowMs;
        return;
      }
      this.stop('budget');
    }
    this.#keepRest(buffer, position, end);
  }

  /** A rest is short or its sender is paused; it is taken even beyond the budget, because the bytes are here. */
  #keepRest(buffer: Buffer, position: number, end: number): void {
    const rest = this.#lane.pool.takeRest(end - position);
    buffer.copy(rest, 0, position, end);
    this.#rest = rest;
    this.#restBytes = end - position;
  }

  /** Reads on only while requests can be executed. */
  #throttle(): void {
    if (this.phase === 'closing' && this.isLeaving) return;
    if (this.stopped !== '') return this.socket.pause();
    // What is left of a request that never comes whole is no request.
    if (this.#hasInputEnded) this.leave('client-closed');
    else this.socket.resume();
  }

  /** The client sends nothing more: what it has asked for is carried out and answered. */
  inputEnded(): void {
    if (this.isLeaving) return;
    if (this.session === null) return this.socket.destroy('client-closed');
    this.#hasInputEnded = true;
    if (this.stopped === '' && !this.#isProcessing) this.leave('client-closed');
  }

  stop(reason: StopReason): void {
    if (this.stopped === '') this.stopped = reason;
  }

  /** The reason why requests waited is gone: goes on with what is here, then reads again. */
  proceed(reason: StopReason): void {
    if (this.stopped !== reason || this.session === null) return;
    if (this.stream !== null) {
      // A long read that was put off goes out meanwhile: no other reply may come between its pieces.
      this.stopped = 'streaming';
      return;
    }
    if (this.socket.isBlocked || this.waitingReplies.length > 0) {
      // A reply was sent meanwhile that the client does not take.
      this.stopped = 'socket-full';
      return;
    }
    this.stopped = '';
    if (this.#isProcessing) return;
    const rest = this.#rest;
    if (rest === null) return this.#throttle();
    this.#rest = null;
    const bytes = this.#restBytes;
    this.#process(rest, 0, bytes);
    this.#lane.pool.giveRest(rest);
  }

  /** There may be a buffer again. */
  goOn(): void {
    if (this.stream === null) this.proceed('budget');
    else this.stream.pump();
  }

  /** A request has come in part: its rest has to follow. */
  get isMidRequest(): boolean {
    return this.stopped === '' && (this.#rest !== null || this.#gather !== null || this.writing !== null);
  }

  /** A reply will come later; until then `heldBytes` of memory are in use for it. */
  defer(isWrite: boolean, heldBytes = 0): void {
    if (!this.deferred.add(isWrite, heldBytes)) this.stop('deferred');
  }

  undefer(isWrite: boolean, heldBytes = 0): void {
    const isOut = this.isGone || (!this.socket.isBlocked && this.waitingReplies.length === 0);
    this.deferred.remove(isWrite, heldBytes, isOut);
    if (this.isLeaving) this.endWhenAnswered();
    else if (this.stopped === 'deferred' && this.deferred.hasRoom) this.proceed('deferred');
  }

  /** Nothing more is executed; what is under way is answered, then the connection ends. */
  leave(reason: string): void {
    if (this.isLeaving) return;
    this.isLeaving = true;
    this.isPatient = reason === 'client-disconnected' || reason === 'client-closed';
    this.phase = 'closing';
    this.endReason = reason;
    this.leftAtMs = Date.now();
    this.endWhenAnswered();
  }

  /** Ends a leaving connection as soon as every reply is on its way. */
  endWhenAnswered(): void {
    if (this.isGone || this.deferred.count > 0 || this.stream !== null || this.waitingReplies.length > 0) return;
    this.isGone = true;
    this.leftAtMs = Date.now();
    // Replies that this very call is still gathering go out first: `finish` writes them, then the socket ends.
    queueMicrotask(() => this.socket.end());
  }

  /** The client was going; now it is told to: what it does not take at once it will not get. */
  hurry(): void {
    this.isPatient = false;
    this.leftAtMs = Date.now();
  }

  /** A long read has gone out: whatever could not go on meanwhile does. */
  streamEnded(): void {
    if (this.isLeaving) this.endWhenAnswered();
    else if (this.stopped === 'streaming' || this.stopped === 'socket-full' || this.stopped === 'budget') this.proceed(this.stopped);
  }

  /** How long it has held a large buffer for the same piece of a transfer; null when it holds none. */
  heldMs(nowMs: number): number | null {
    if (this.stream !== null) return this.stream.heldMs(nowMs);
    return this.#gather === null ? null : nowMs - this.#gatherSinceMs;
  }

  /** The socket is gone: gives back what it held. */
  release(): void {
    this.phase = 'closing';
    this.isLeaving = true;
    this.isGone = true;
    if (this.#rest !== null) this.#lane.pool.giveRest(this.#rest);
    if (this.#gather !== null) this.#lane.pool.give(this.#gather);
    this.#rest = null;
    this.#gather = null;
    this.waitingReplies.length = 0;
    this.lateReads = NONE;
    this.deferred.settle();
  }
}
