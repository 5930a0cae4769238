/**
 * A lane: one thread with an event loop that serves many NBD connections by synchronous I/O.
 *
 * It runs as one long task of the worker pool. Connections arrive as descriptors from the main thread; the handshake
 * is done here too (TLS cannot be handed over in mid-stream), with the engine asked for exports by message. The lane
 * knows volumes and pairs as the main thread tells them (data/worker-volumes.ts) and shares all state that matters to
 * writes through shared memory.
 */
import type { MessagePort } from 'node:worker_threads';
import { fsExt } from '../platform/native.ts';
import { NbdRequest } from '../wire/nbd-transmission.ts';
import { BufferPool } from './buffer-pool.ts';
import { BusyPoll } from './busy-poll.ts';
import { BufferQueue } from './buffer-queue.ts';
import type { Connection } from './connection.ts';
import { ConnectionTable } from './connection-table.ts';
import { Executor } from './executor.ts';
import { FlushGroup } from './flush-group.ts';
import type { AsideDone, AsideKind, FromLane, LaneStart, ToLane } from './lane-messages.ts';
import { MediumWatch, READS, WRITES } from './medium-watch.ts';
import { Outbox } from './outbox.ts';
import { DEVICE } from './shared-memory.ts';
import { WorkerVolumes, type PictureMessage } from './worker-volumes.ts';
import { WritePath, type LegFailure, type WorkerPair, type WorkerVolume } from './write-path.ts';
import { ZeroQueue } from './zero-queue.ts';

/** Bytes read from a socket at once. */
const READ_BYTES: number = 256 * 1024;
const SHORT_READ_BYTES: number = 16 * 1024;
/** Room in front of them for the rest of a request that is not there in full. */
const HEADROOM_BYTES: number = 64 * 1024;

/** A volume as a lane knows it. */
export type LaneVolume = WorkerVolume & {
  /** A command holds it: writes wait. */
  isHeld: boolean;
  /** A rule may make requests to it, or to a secondary of it, wait. */
  mayDelay: boolean;
  readonly reads: MediumWatch;
  readonly writes: MediumWatch;
};

export class Lane {
  readonly pool: BufferPool = new BufferPool();
  readonly buffers: BufferQueue = new BufferQueue(this.pool);
  readonly withHeadroom: Buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + READ_BYTES);
  readonly readBuffer: Buffer = this.withHeadroom.subarray(HEADROOM_BYTES);
  /** The same for a connection that may have to wait with what it reads, because buffers are scarce. */
  readonly shortReadBuffer: Buffer = this.withHeadroom.subarray(HEADROOM_BYTES, HEADROOM_BYTES + SHORT_READ_BYTES);
  readonly headroomBytes: number = HEADROOM_BYTES;
  /** The request that is being executed; filled again for each. */
  readonly request: NbdRequest = new NbdRequest();
  readonly outbox: Outbox = new Outbox();
  readonly poll: BusyPoll = new BusyPoll();
  readonly path: WritePath;
  readonly flushes: FlushGroup;
  readonly zeroes: ZeroQueue = new ZeroQueue();
  readonly executor: Executor;
  readonly connections: ConnectionTable;
  readonly canPunch: boolean;
  /** Finding a hole is one system call; otherwise it takes reading. */
  readonly findsHolesFast: boolean = fsExt !== null;
  nowMs: number = Date.now();
  /** Bytes of payloads and replies of requests that are carried out later, of all connections. */
  deferredBytes = 0;
  readonly #picture: WorkerVolumes<LaneVolume>;
  readonly #device: Int32Array;
  readonly #requestsWord: number;
  readonly #port: MessagePort;
  readonly #jobs = new Map<number, (done: AsideDone) => void>();
  #job = 0;
  #holds: Array<{ readonly id: number; readonly volume: number }> = [];
  #onStop: () => void = () => {};

  constructor(start: LaneStart & { readonly canPunch: boolean }, port: MessagePort) {
    this.#port = port;
    this.canPunch = start.canPunch;
    this.#device = new Int32Array(start.device);
    this.#requestsWord = DEVICE.SLOT_FIRST + start.slot * DEVICE.SLOT_WORDS + DEVICE.SLOT_REQUESTS;
    const report = (failure: LegFailure): void => this.send({ type: 'leg-failed', failure });
    this.path = new WritePath(this.#device, start.slot, report);
    this.flushes = new FlushGroup(this.#device, report);
    this.executor = new Executor(this);
    this.#picture = new WorkerVolumes(start.slot, makeLaneVolume);
    this.connections = new ConnectionTable(this, start.tls, start.deadlines);
  }

  /** Serves until it is told to stop. */
  run(): Promise<void> {
    this.#port.on('message', (message: ToLane) => this.#on(message));
    const tick = setInterval(() => this.#tick(), 500);
    this.send({ type: 'ready' });
    return new Promise((resolve) => {
      this.#onStop = () => {
        clearInterval(tick);
        this.connections.destroyAll('engine-stopped');
        this.#port.close();
        resolve();
      };
    });
  }

  get volumes(): ReadonlyMap<number, LaneVolume> {
    return this.#picture.volumes;
  }

  get pairs(): ReadonlyMap<number, WorkerPair> {
    return this.#picture.pairs;
  }

  send(message: FromLane): void {
    this.#port.postMessage(message);
  }

  /** Tells the copy that hosts are at work. */
  countRequest(): void {
    const words = this.#device;
    words[this.#requestsWord] = ((words[this.#requestsWord] as number) + 1) | 0;
  }

  begin(connection: Connection): void {
    this.outbox.begin(connection);
  }

  finish(connection: Connection): void {
    this.outbox.finish(connection);
  }

  /** Has something done on a thread beside the lanes. */
  aside(volume: LaneVolume, offset: number, length: number, kind: AsideKind, done: (done: AsideDone) => void): void {
    this.#job += 1;
    this.#jobs.set(this.#job, done);
    const job = { job: this.#job, volume: volume.leg.number, offset, length, ...kind };
    this.#port.postMessage({ type: 'aside', job } satisfies FromLane, kind.kind === 'write' ? [kind.payload.buffer as ArrayBuffer] : []);
  }

  /** The connection has had its share; it goes on when the others had theirs. */
  laterTurn(connection: Connection): void {
    setImmediate(() => connection.proceed('turn'));
  }

  /** The socket has taken what waited. */
  drained(connection: Connection): void {
    if (connection.isLeaving) connection.leftAtMs = this.nowMs;
    if (connection.stream !== null) return connection.stream.pump();
    if (!this.outbox.sendWaiting(connection)) return;
    if (connection.isLeaving) connection.endWhenAnswered();
    else connection.proceed('socket-full');
  }

  closed(connection: Connection): void {
    connection.stream?.release();
    connection.stream = null;
    this.buffers.forget(connection);
    this.zeroes.forget(connection);
    this.checkHolds();
  }

  /** Answers the holds whose volume has no write under way any more. */
  checkHolds(): void {
    this.#holds = this.#holds.filter(({ id, volume }) => {
      if (this.connections.hasDeferredWrites(volume)) return true;
      this.send({ type: 'answer', id, value: true });
      return false;
    });
  }

  #tick(): void {
    this.nowMs = Date.now();
    this.connections.expire(this.nowMs);
  }

  #on(message: ToLane): void {
    switch (message.type) {
      case 'connection':
        return this.connections.adopt(message.fd, message.id, message.transport, message.address);
      case 'listen':
        return this.connections.listen(message, (value, error) => this.#answer(message.id, value, error));
      case 'tls':
        return this.connections.setTls(message.tls);
      case 'found':
        return this.connections.found(message.ask, message.answer);
      case 'listed':
        return this.connections.listed(message.ask, message.entries);
      case 'end':
        return this.connections.end(message, (count) => this.#answer(message.id, count));
      case 'hold':
        return this.#hold(message.id, message.volume);
      case 'unhold':
        return this.#unhold(message.volume);
      case 'aside': {
        const done = this.#jobs.get(message.done.job);
        this.#jobs.delete(message.done.job);
        return done?.(message.done);
      }
      case 'report':
        return this.#answer(message.id, this.connections.report());
      case 'barrier':
        return this.#answer(message.id, true);
      case 'stop':
        return this.#onStop();
      default:
        this.#picture.apply(message);
        this.#afterPicture(message);
    }
  }

  #answer(id: number, value: unknown, error?: string): void {
    this.send(error === undefined ? { type: 'answer', id, value } : { type: 'answer', id, value, error });
  }

  /** Only the volumes that the message can make slow or fast are looked at: a lane may know thousands. */
  #afterPicture(message: PictureMessage): void {
    const { volumes } = this.#picture;
    this.flushes.survivesPowerLoss = this.#picture.survivesPowerLoss;
    if (message.type === 'pair-gone') return volumes.forEach(noteDelay);
    const volume = volumes.get(message.type === 'volume' ? message.leg.number : message.type === 'pair' ? message.primary : -1);
    if (volume === undefined) return;
    noteDelay(volume);
    const primary = volumes.get(volume.secondaryOf?.primary.leg.number ?? -1);
    if (primary !== undefined) noteDelay(primary);
  }

  #hold(id: number, number: number): void {
    const volume = this.#picture.volumes.get(number);
    if (volume !== undefined) volume.isHeld = true;
    this.#holds.push({ id, volume: number });
    this.checkHolds();
  }

  #unhold(number: number): void {
    const volume = this.#picture.volumes.get(number);
    if (volume === undefined) return;
    volume.isHeld = false;
    this.connections.proceedHeld(number);
  }
}

const noteDelay = (volume: LaneVolume): void => {
  volume.mayDelay = volume.leg.faults !== null || volume.primaryOf.some((pair) => pair.secondary.leg.faults !== null);
};

const makeLaneVolume = (base: WorkerVolume): LaneVolume => ({
  ...base,
  isHeld: false,
  mayDelay: false,
  reads: new MediumWatch(READS),
  writes: new MediumWatch(WRITES),
});
