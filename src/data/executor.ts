/**
 * Carries out one request after another on a lane: validated once, then on the legs by synchronous calls, the reply
 * right into the outbox. Nothing is allocated for a plain read or write.
 *
 * What takes long is answered later: a flush and a FUA write when the sync has ended, a long range of zeros when the
 * zero worker has done it, one on a slow medium when the slow worker has, one on a volume that was told to be slow when its
 * time has come.
 */
import { type NbdErrno, nbdErrnoOf } from '../core/faults.ts';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_ENOTSUP,
  NBD_ESHUTDOWN,
} from '../wire/nbd-constants.ts';
import {
  ERROR_REPLY_BYTES_MAX,
  type NbdRequest,
  readHeaderBytes,
  validateRequest,
  writeDone,
  writeError,
  writeReadHeader,
} from '../wire/nbd-transmission.ts';
import { replyBlockStatus, STATUS_BYTES_MAX } from './block-status.ts';
import type { Connection, Session } from './connection.ts';
import { faultLatencyMs, type FaultOperation } from './fault-rules.ts';
import type { Lane, LaneVolume } from './lane.ts';
import { StreamedRead } from './streamed-read.ts';
import { StreamedWrite } from './streamed-write.ts';
import { truthLeg } from './write-path.ts';

/** A longer read goes out by itself, in pieces. */
const READ_INLINE_BYTES_MAX: number = 256 * 1024;
/** A reply of this length leaves at once, not with its neighbours. */
const READ_FLUSH_BYTES: number = 32 * 1024;
/** A longer range of zeros goes to the zero worker. */
const ZERO_INLINE_BYTES_MAX: number = 64 * 1024;
/** The zero worker serves all in turn; nobody keeps it longer than this takes, as holes or as zeros that are written. */
const PUNCH_JOB_BYTES_MAX: number = 256 * 1024 * 1024;
const ZERO_JOB_BYTES_MAX: number = 32 * 1024 * 1024;
/** CACHE reads this much; it is advice, and a lane has others to serve. */
const CACHE_BYTES_MAX: number = 1024 * 1024;

export class Executor {
  readonly #lane: Lane;
  readonly #scratch: Buffer = Buffer.alloc(ERROR_REPLY_BYTES_MAX);

  constructor(lane: Lane) {
    this.#lane = lane;
  }

  /** False: it has to wait, nothing was done, and the connection says for what. */
  execute(connection: Connection, session: Session, request: NbdRequest, buffer: Buffer, payloadAt: number): boolean {
    const { outbox } = this.#lane;
    if (!outbox.reserve(connection, ERROR_REPLY_BYTES_MAX)) return false;
    const refused = connection.isShutDown ? NBD_ESHUTDOWN : validateRequest(request, session.rules);
    if (refused !== 0) {
      outbox.at = writeError(outbox.buffer, outbox.at, session.mode, request, refused);
      return true;
    }
    this.#lane.countRequest();
    const { volume } = session;
    if (volume.mayDelay && this.#delay(connection, session, request, buffer, payloadAt)) return true;
    switch (request.type) {
      case NBD_CMD_READ:
        return this.#read(connection, session, request);
      case NBD_CMD_WRITE:
        return this.#write(connection, session, request, buffer, payloadAt);
      case NBD_CMD_FLUSH:
        this.#flushThenReply(connection, session, request, false);
        return true;
      case NBD_CMD_TRIM:
      case NBD_CMD_WRITE_ZEROES:
        return this.#zero(connection, session, request);
      case NBD_CMD_CACHE: {
        // Advice, which is not worth that the lane waits for a medium.
        const bytes = Math.min(request.length, CACHE_BYTES_MAX, outbox.buffer.length - outbox.at);
        if (!volume.reads.isSlow) truthLeg(volume).read(outbox.buffer, outbox.at, request.offset, bytes);
        this.#reply(session, request, '');
        return true;
      }
      default:
        if (!outbox.reserve(connection, STATUS_BYTES_MAX)) return false;
        outbox.at = replyBlockStatus(this.#lane, session, request, outbox.buffer, outbox.at);
        return true;
    }
  }

  #read(connection: Connection, session: Session, request: NbdRequest): boolean {
    const { outbox } = this.#lane;
    const { length } = request;
    if (length > READ_INLINE_BYTES_MAX) return this.#readStreamed(connection, session, request);
    const { reads } = session.volume;
    if (reads.isSlow) return this.#readAside(connection, session, request);
    if (!outbox.reserve(connection, readHeaderBytes(session.mode) + length)) return false;
    const at = writeReadHeader(outbox.buffer, outbox.at, session.mode, request);
    const leg = truthLeg(session.volume);
    const began = reads.isTimed ? performance.now() : 0;
    const isRead = leg.read(outbox.buffer, at, request.offset, length);
    if (began !== 0) reads.called((performance.now() - began) * 1000, length);
    if (isRead) {
      outbox.at = at + length;
      connection.readBytes += length;
      // The client takes this one while the next is read; and what a full socket leaves behind stays short.
      if (length >= READ_FLUSH_BYTES) outbox.flush(connection);
      return true;
    }
    this.#reply(session, request, leg.failure);
    return true;
  }

  /** The medium keeps its callers waiting: the slow worker reads, and the lane's other clients go on. */
  #readAside(connection: Connection, session: Session, request: NbdRequest): boolean {
    const kept = request.copy();
    const { length } = kept;
    connection.defer(false, length);
    this.#lane.aside(session.volume, kept.offset, length, { kind: 'read' }, ({ code, tookUs, data }) => {
      session.volume.reads.calledAside(tookUs, length);
      if (code !== '') return this.#replyLate(connection, session, kept, code, false, length);
      const reply = Buffer.allocUnsafe(readHeaderBytes(session.mode) + length);
      reply.set(data, writeReadHeader(reply, 0, session.mode, kept));
      connection.readBytes += length;
      this.#lane.outbox.sendLate(connection, reply, reply.length);
      connection.undefer(false, length);
    });
    return true;
  }

  #readStreamed(connection: Connection, session: Session, request: NbdRequest): boolean {
    this.#lane.outbox.flush(connection);
    if (connection.stopped !== '') return false;
    connection.stop('streaming');
    connection.stream = new StreamedRead(this.#lane, connection, session.volume, request.copy(), session.mode);
    connection.stream.pump();
    return true;
  }

  #write(connection: Connection, session: Session, request: NbdRequest, buffer: Buffer, payloadAt: number): boolean {
    const { volume } = session;
    if (volume.isHeld) {
      connection.stop('held');
      return false;
    }
    const { writes } = volume;
    if (writes.isSlow) return this.#writeAside(connection, session, request, buffer, payloadAt);
    const began = writes.isTimed ? performance.now() : 0;
    const code = this.#lane.path.write(volume, buffer, payloadAt, request.offset, request.length);
    if (began !== 0) writes.called((performance.now() - began) * 1000, request.length);
    if (code === '') {
      connection.writtenBytes += request.length;
      if ((request.flags & NBD_CMD_FLAG_FUA) !== 0) {
        this.#flushThenReply(connection, session, request, true);
        return true;
      }
    }
    this.#reply(session, request, code);
    return true;
  }

  #writeAside(connection: Connection, session: Session, request: NbdRequest, buffer: Buffer, payloadAt: number): boolean {
    const kept = request.copy();
    const { length } = kept;
    const payload = new Uint8Array(buffer.subarray(payloadAt, payloadAt + length));
    connection.defer(true, length);
    this.#lane.aside(session.volume, kept.offset, length, { kind: 'write', payload }, ({ code, tookUs }) => {
      session.volume.writes.calledAside(tookUs, length);
      this.#writtenAside(connection, session, kept, code, length);
    });
    return true;
  }

  /** A write of the slow worker has ended: flushes where it has to, and answers. */
  #writtenAside(connection: Connection, session: Session, request: NbdRequest, code: string, heldBytes: number): void {
    if (code === '') connection.writtenBytes += request.length;
    const answer = (late: string): void => this.#replyLate(connection, session, request, late, true, heldBytes);
    if (code === '' && (request.flags & NBD_CMD_FLAG_FUA) !== 0) this.#lane.flushes.flush(session.volume, answer);
    else answer(code);
  }

  /** A WRITE whose payload is long: `writePiece` carries it out. */
  beginWrite(connection: Connection, session: Session, request: NbdRequest): StreamedWrite {
    const refused = connection.isShutDown ? NBD_ESHUTDOWN : validateRequest(request, session.rules);
    if (refused === 0) this.#lane.countRequest();
    return new StreamedWrite(request.copy(), refused);
  }

  /** `bytes` of its payload are at `at`. False: it has to wait, nothing was done. Behind the last piece it is answered. */
  writePiece(connection: Connection, session: Session, writing: StreamedWrite, buffer: Buffer, at: number, bytes: number): boolean {
    const { outbox } = this.#lane;
    const { volume } = session;
    const { request } = writing;
    if (!outbox.reserve(connection, ERROR_REPLY_BYTES_MAX)) return false;
    if (!writing.isVain && connection.isShutDown) writing.refused = NBD_ESHUTDOWN;
    if (!writing.isVain) {
      if (volume.isHeld) {
        connection.stop('held');
        return false;
      }
      if (volume.writes.isSlow) return this.#pieceAside(connection, session, writing, buffer, at, bytes);
      const began = performance.now();
      writing.failure = this.#lane.path.write(volume, buffer, at, request.offset + writing.doneBytes, bytes);
      volume.writes.called((performance.now() - began) * 1000, bytes);
    }
    writing.doneBytes += bytes;
    // Behind pieces that the slow worker still has, the last of them answers.
    if (writing.leftBytes > 0 || writing.pieces > 0) return true;
    if (writing.refused !== 0) outbox.at = writeError(outbox.buffer, outbox.at, session.mode, request, writing.refused);
    else this.#written(connection, session, request, writing.failure);
    return true;
  }

  #pieceAside(connection: Connection, session: Session, writing: StreamedWrite, buffer: Buffer, at: number, bytes: number): boolean {
    const payload = new Uint8Array(buffer.subarray(at, at + bytes));
    const offset = writing.request.offset + writing.doneBytes;
    writing.doneBytes += bytes;
    writing.pieces += 1;
    connection.defer(true, bytes);
    this.#lane.aside(session.volume, offset, bytes, { kind: 'write', payload }, ({ code, tookUs }) => {
      session.volume.writes.calledAside(tookUs, bytes);
      writing.pieces -= 1;
      if (writing.failure === '') writing.failure = code;
      if (writing.leftBytes > 0 || writing.pieces > 0) return connection.undefer(true, bytes);
      if (writing.refused === 0) return this.#writtenAside(connection, session, writing.request, writing.failure, bytes);
      this.#refuseLate(connection, session, writing.request, writing.refused, bytes);
    });
    return true;
  }

  /** Answers a long write, later where a rule makes the volume slow. */
  #written(connection: Connection, session: Session, request: NbdRequest, code: string): void {
    if (code === '') connection.writtenBytes += request.length;
    const latencyMs = session.volume.mayDelay ? latencyOf(session.volume, 'write', request.offset, request.length) : 0;
    const isDurable = code === '' && (request.flags & NBD_CMD_FLAG_FUA) !== 0;
    if (latencyMs > 0) {
      connection.defer(true);
      const answer = (late: string): void => this.#replyLate(connection, session, request, late, true);
      setTimeout(() => (isDurable ? this.#lane.flushes.flush(session.volume, answer) : answer(code)), latencyMs);
    } else if (isDurable) this.#flushThenReply(connection, session, request, true);
    else this.#reply(session, request, code);
  }

  #zero(connection: Connection, session: Session, request: NbdRequest): boolean {
    const { volume } = session;
    if (volume.isHeld) {
      connection.stop('held');
      return false;
    }
    const isAllocating = request.type === NBD_CMD_WRITE_ZEROES && (request.flags & NBD_CMD_FLAG_NO_HOLE) !== 0;
    const isLong = request.length > ZERO_INLINE_BYTES_MAX || volume.writes.isSlow;
    // Where looking for holes means reading, a long range is left to the zero worker.
    const isHole = !isAllocating && (this.#lane.findsHolesFast || !isLong) && truthLeg(volume).isHole(request.offset, request.length);
    const isFast = isHole || (isLong && !isAllocating && this.#lane.canPunch);
    if ((request.flags & NBD_CMD_FLAG_FAST_ZERO) !== 0 && request.type === NBD_CMD_WRITE_ZEROES && !isFast) {
      this.#replyErrno(session, request, NBD_ENOTSUP, 'zeros cannot be faster than a write here');
      return true;
    }
    if (isLong && !isHole) {
      this.#zeroElsewhere(connection, session, request, !isAllocating);
      return true;
    }
    const code = isHole ? '' : this.#lane.path.clear(volume, request.offset, request.length, isAllocating);
    if (code === '' && (request.flags & NBD_CMD_FLAG_FUA) !== 0) this.#flushThenReply(connection, session, request, true);
    else this.#reply(session, request, code);
    return true;
  }

  #zeroElsewhere(connection: Connection, session: Session, request: NbdRequest, punch: boolean): void {
    const kept = request.copy();
    const end = request.offset + request.length;
    const answer = (code: string): void => this.#replyLate(connection, session, kept, code, true);
    const { zeroes } = this.#lane;
    // A client that is gone needs no more of it: a request without an answer may be done in part.
    const zeroFrom = (offset: number): void => zeroes.add(connection, () => zeroPart(offset));
    const zeroPart = (offset: number): void => {
      if (connection.isShutDown) {
        this.#refuseLate(connection, session, kept, NBD_ESHUTDOWN, 0);
        return zeroes.done();
      }
      const length = Math.min(end - offset, punch ? PUNCH_JOB_BYTES_MAX : ZERO_JOB_BYTES_MAX);
      this.#lane.aside(session.volume, offset, length, { kind: 'zero', punch }, ({ code }) => {
        if (code === '' && offset + length < end && !connection.isGone) zeroFrom(offset + length);
        else if (code === '' && (kept.flags & NBD_CMD_FLAG_FUA) !== 0) this.#lane.flushes.flush(session.volume, answer);
        else answer(code);
        zeroes.done();
      });
    };
    connection.defer(true);
    zeroFrom(request.offset);
  }

  #flushThenReply(connection: Connection, session: Session, request: NbdRequest, isWrite: boolean): void {
    const kept = request.copy();
    connection.defer(isWrite);
    this.#lane.flushes.flush(session.volume, (code) => this.#replyLate(connection, session, kept, code, isWrite));
  }

  /** A rule says that this volume is slow: the request is carried out later. True when it was put off. */
  #delay(connection: Connection, session: Session, request: NbdRequest, buffer: Buffer, payloadAt: number): boolean {
    const isWrite = request.type === NBD_CMD_WRITE || request.type === NBD_CMD_TRIM || request.type === NBD_CMD_WRITE_ZEROES;
    // What is known of holes and dirty regions comes from no medium.
    if (request.type === NBD_CMD_BLOCK_STATUS || (isWrite && session.volume.isHeld)) return false;
    const latencyMs = latencyOf(session.volume, operationOf(request.type), request.offset, request.length);
    if (latencyMs === 0) return false;
    const kept = request.copy();
    const payload = request.payloadBytes === 0 ? buffer : Buffer.from(buffer.subarray(payloadAt, payloadAt + request.payloadBytes));
    connection.defer(isWrite, heldBytesOf(kept));
    setTimeout(() => this.#delayed(connection, session, kept, payload, isWrite), latencyMs);
    return true;
  }

  #delayed(connection: Connection, session: Session, request: NbdRequest, payload: Buffer, isWrite: boolean): void {
    // Nobody waits for it any more, and whoever held the volume since believes that nothing is under way.
    if (connection.isGone) return connection.undefer(isWrite, heldBytesOf(request));
    if (isLongRead(request)) return this.#readLate(connection, session, request);
    const { volume } = session;
    const { path, flushes } = this.#lane;
    const answer = (code: string): void => this.#replyLate(connection, session, request, code, isWrite, heldBytesOf(request));
    if (request.type === NBD_CMD_READ) {
      const head = readHeaderBytes(session.mode);
      const reply = Buffer.allocUnsafe(head + request.length);
      const leg = truthLeg(volume);
      if (!leg.read(reply, head, request.offset, request.length)) return answer(leg.failure);
      writeReadHeader(reply, 0, session.mode, request);
      connection.readBytes += request.length;
      this.#lane.outbox.sendLate(connection, reply, reply.length);
      return connection.undefer(isWrite, heldBytesOf(request));
    }
    let code = '';
    if (request.type === NBD_CMD_WRITE) code = path.write(volume, payload, 0, request.offset, request.length);
    else if (isWrite) code = path.clear(volume, request.offset, request.length, (request.flags & NBD_CMD_FLAG_NO_HOLE) !== 0);
    if (request.type === NBD_CMD_WRITE && code === '') connection.writtenBytes += request.length;
    const isDurable = request.type === NBD_CMD_FLUSH || (isWrite && (request.flags & NBD_CMD_FLAG_FUA) !== 0);
    if (isDurable && code === '') flushes.flush(volume, answer);
    else answer(code);
  }

  /** A long read whose time has come. It goes out piece by piece as any other, one of a connection at a time. */
  #readLate(connection: Connection, session: Session, request: NbdRequest): void {
    if (connection.stream !== null) {
      if (connection.lateReads.length === 0) connection.lateReads = [];
      connection.lateReads.push(request);
      return;
    }
    connection.stop('streaming');
    connection.stream = new StreamedRead(this.#lane, connection, session.volume, request, session.mode);
    connection.undefer(false);
    connection.stream.pump();
  }

  /** The long read that waits next, if one does. */
  readNextLate(connection: Connection): void {
    const next = connection.isGone ? undefined : connection.lateReads.shift();
    if (next !== undefined) this.#readLate(connection, connection.session as Session, next);
  }

  #reply(session: Session, request: NbdRequest, code: string): void {
    const { outbox } = this.#lane;
    if (code === '') outbox.at = writeDone(outbox.buffer, outbox.at, session.mode, request);
    else this.#replyErrno(session, request, nbdErrnoOf({ code }), failureText(session.volume, request, code));
  }

  #replyErrno(session: Session, request: NbdRequest, errno: number, message: string): void {
    const { outbox } = this.#lane;
    outbox.at = writeError(outbox.buffer, outbox.at, session.mode, request, errno, message);
  }

  #refuseLate(connection: Connection, session: Session, request: NbdRequest, errno: NbdErrno, heldBytes: number): void {
    this.#lane.outbox.sendLate(connection, this.#scratch, writeError(this.#scratch, 0, session.mode, request, errno));
    connection.undefer(true, heldBytes);
    this.#lane.checkHolds();
  }

  #replyLate(connection: Connection, session: Session, request: NbdRequest, code: string, isWrite: boolean, heldBytes = 0): void {
    const scratch = this.#scratch;
    const length =
      code === ''
        ? writeDone(scratch, 0, session.mode, request)
        : writeError(scratch, 0, session.mode, request, nbdErrnoOf({ code }), failureText(session.volume, request, code));
    this.#lane.outbox.sendLate(connection, scratch, length);
    connection.undefer(isWrite, heldBytes);
    if (isWrite) this.#lane.checkHolds();
  }
}

const failureText = (volume: LaneVolume, request: NbdRequest, code: string): string =>
  `volume ${volume.name}: ${operationOf(request.type)} of ${request.length} bytes at ${request.offset} failed: ${code}`;

/** What a request that is carried out later holds until then: its payload, or the reply with data. */
const heldBytesOf = (request: NbdRequest): number => {
  if (request.type !== NBD_CMD_READ) return request.payloadBytes;
  return isLongRead(request) ? 0 : request.length;
};

const isLongRead = (request: NbdRequest): boolean => request.type === NBD_CMD_READ && request.length > READ_INLINE_BYTES_MAX;

const operationOf = (type: number): FaultOperation => {
  if (type === NBD_CMD_FLUSH) return 'flush';
  return type === NBD_CMD_WRITE || type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES ? 'write' : 'read';
};

/** The longest delay of the legs that the request reaches. */
const latencyOf = (volume: LaneVolume, operation: FaultOperation, offset: number, length: number): number => {
  let latencyMs = volume.leg.faults === null ? 0 : faultLatencyMs(volume.leg.faults, operation, offset, length);
  if (operation === 'read') return latencyMs;
  for (const pair of volume.primaryOf) {
    const { faults } = pair.secondary.leg;
    if (faults !== null) latencyMs = Math.max(latencyMs, faultLatencyMs(faults, operation, offset, length));
  }
  return latencyMs;
};
