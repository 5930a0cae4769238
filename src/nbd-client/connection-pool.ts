/**
 * The connections of one client, and the calls that wait for room on them. Keeps the connections up where the options
 * say so: a lost one is dialled again with growing pauses, and the calls that it took along are sent once more (each of
 * them does the same when it is done twice).
 *
 * What a retry must not hide: a write is durable only after a flush, so when a connection is lost while writes are
 * acknowledged but not flushed, the next flush fails once (NBD_FLUSH_LOST): a server that came back may have lost them.
 *
 * States: open -> closing -> closed, or open -> broken. Once broken or closed, nothing is sent any more.
 */
import * as nbd from '../wire/nbd-constants.ts';
import type { Call } from './call.ts';
import type { SettledOptions } from './connect-options.ts';
import { Connection, type ConnectionOwner } from './connection.ts';
import { dial } from './dial.ts';
import { type Session, negotiateExport } from './negotiation.ts';
import { NbdError } from './nbd-error.ts';

type State = 'open' | 'closing' | 'closed' | 'broken';

const writes = (call: Call): boolean =>
  call.type === nbd.NBD_CMD_WRITE || call.type === nbd.NBD_CMD_WRITE_ZEROES || call.type === nbd.NBD_CMD_TRIM;

export class ConnectionPool implements ConnectionOwner {
  readonly session: Session;
  readonly #options: SettledOptions;
  readonly #connections: Connection[] = [];
  /** Waiting calls from `#waitingHead` on; those that ended while they waited are skipped. */
  #waiting: Call[] = [];
  #waitingHead = 0;
  #state: State = 'open';
  #failure: NbdError | null = null;
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #onIdle: (() => void) | null = null;
  #disconnecting: Promise<void> | null = null;
  #completedWrites = 0;
  #flushedWrites = 0;
  #isLossUntold = false;

  /** @throws NbdError, as `dial` does */
  static async open(options: SettledOptions): Promise<ConnectionPool> {
    const first = await dial(options, negotiateExport({ ...options, tls: options.tls !== null }), options.signal);
    const pool = new ConnectionPool(options, first.result);
    pool.#adopt(new Connection(first, options.depth, pool));
    const severalAllowed = (first.result.transmissionFlags & nbd.NBD_FLAG_CAN_MULTI_CONN) !== 0;
    try {
      while (severalAllowed && pool.#connections.length < options.connections) await pool.#dialAnother(options.signal);
    } catch (error) {
      pool.destroy();
      throw error;
    }
    return pool;
  }

  private constructor(options: SettledOptions, session: Session) {
    this.#options = options;
    this.session = session;
    if (options.requestTimeoutMs > 0) {
      this.#timer = setInterval(() => this.#expire(), Math.max(10, options.requestTimeoutMs / 8));
      this.#timer.unref();
    }
  }

  get connections(): number {
    return this.#connections.length;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Sends the call now, or as soon as there is room. */
  submit(call: Call): void {
    if (this.#state !== 'open') {
      call.end(this.#failure ?? new NbdError('NBD_CLOSED', 'the client was closed'));
      return;
    }
    if (this.#options.requestTimeoutMs > 0) call.deadlineMs = performance.now() + this.#options.requestTimeoutMs;
    if (call.type === nbd.NBD_CMD_FLUSH) {
      if (this.#isLossUntold) {
        this.#tellLoss([call]);
        return;
      }
      call.coveredWrites = this.#completedWrites;
    }
    const connection = this.#waitingHead === this.#waiting.length ? this.#roomiest() : null;
    if (connection === null) this.#waiting.push(call);
    else connection.submit(call);
  }

  /** Waits for what is under way, says goodbye on every connection. New calls are refused from now on. */
  disconnect(): Promise<void> {
    this.#disconnecting ??= this.#disconnect();
    return this.#disconnecting;
  }

  async #disconnect(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'closing';
    if (this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    await Promise.all(this.#connections.map((connection) => connection.close()));
    this.destroy();
  }

  /** Ends everything at once; calls that are under way fail with NBD_CLOSED. */
  destroy(): void {
    if (this.#state === 'closed' || this.#state === 'broken') return;
    this.#state = 'closed';
    this.#endAll(new NbdError('NBD_CLOSED', 'the client was closed'), []);
  }

  onReply(connection: Connection, call: Call): void {
    if (call.errno === nbd.NBD_ESHUTDOWN && !call.isOver) this.#onShutdown(connection, call);
    else this.#onDone(call);
    if (this.#waitingHead < this.#waiting.length) this.#drain();
    if (connection.isDraining && connection.inFlight === 0 && this.#connections.includes(connection)) this.#leave(connection);
    if (this.#onIdle !== null && this.#pending === 0) this.#onIdle();
  }

  onLost(connection: Connection, error: NbdError, calls: readonly Call[]): void {
    this.#remove(connection);
    const isOpen = this.#state === 'open' || this.#state === 'closing';
    if (!isOpen) return;
    if (this.#options.reconnect === null || error.code === 'NBD_PROTOCOL') {
      this.#break(error, calls);
      return;
    }
    this.#options.onConnectionEvent({ kind: 'lost', error, connections: this.#connections.length });
    this.#noteLoss(calls);
    this.#retry(calls, error);
    void this.#reconnect(error);
    this.#drain();
  }

  #onDone(call: Call): void {
    if (call.errno === 0) {
      if (call.type === nbd.NBD_CMD_FLUSH) this.#flushedWrites = Math.max(this.#flushedWrites, call.coveredWrites);
      else if (writes(call) && (call.flags & nbd.NBD_CMD_FLAG_FUA) === 0) this.#completedWrites += 1;
    }
    call.finish();
  }

  /** The server is going: no more calls on this connection, and this one goes to the next server where we reconnect. */
  #onShutdown(connection: Connection, call: Call): void {
    connection.isDraining = true;
    if (this.#options.reconnect === null) call.finish();
    else this.#retry([call], new NbdError('NBD_ESHUTDOWN', 'the server is stopping'));
  }

  /** Leaves a server that is stopping, when its last reply is there (specification: a soft disconnect). */
  #leave(connection: Connection): void {
    this.#remove(connection);
    void connection.close();
    const error = new NbdError('NBD_DISCONNECTED', 'the server is stopping');
    if (this.#options.reconnect === null) {
      this.#break(error, []);
      return;
    }
    this.#options.onConnectionEvent({ kind: 'lost', error, connections: this.#connections.length });
    this.#noteLoss([]);
    void this.#reconnect(error);
  }

  #adopt(connection: Connection): void {
    this.#connections.push(connection);
    connection.start();
  }

  #remove(connection: Connection): void {
    const index = this.#connections.indexOf(connection);
    if (index >= 0) this.#connections.splice(index, 1);
  }

  /** @throws NbdError, also when the export is not the one that it was */
  async #dialAnother(signal: AbortSignal | null): Promise<void> {
    const dialled = await dial(this.#options, negotiateExport({ ...this.#options, tls: this.#options.tls !== null }), signal);
    const { sizeBytes, blockSizes } = dialled.result;
    const isSame =
      sizeBytes === this.session.sizeBytes &&
      blockSizes.maximumBytes >= this.session.blockSizes.maximumBytes &&
      blockSizes.minimumBytes <= this.session.blockSizes.minimumBytes;
    if (!isSame) {
      dialled.stream.destroy();
      throw new NbdError(
        'NBD_CHANGED',
        `the export has ${sizeBytes} bytes now and had ${this.session.sizeBytes}, or has other block sizes`,
      );
    }
    this.#adopt(new Connection(dialled, this.#options.depth, this));
  }

  async #reconnect(lostBy: NbdError): Promise<void> {
    const { reconnect } = this.#options;
    if (reconnect === null) return;
    const giveUpMs = performance.now() + reconnect.deadlineMs;
    let waitMs = reconnect.backoffMs;
    while (this.#state === 'open' || this.#state === 'closing') {
      try {
        await this.#dialAnother(this.#stop.signal);
        this.#options.onConnectionEvent({ kind: 'reconnected', connections: this.#connections.length });
        this.#drain();
        return;
      } catch (error) {
        const isLate = performance.now() + waitMs > giveUpMs && this.#connections.length === 0;
        if (this.#stop.signal.aborted) return;
        if (isLate || (error as NbdError).code === 'NBD_CHANGED') {
          this.#break(
            isLate
              ? new NbdError('NBD_DISCONNECTED', `${lostBy.message}; no reconnection within ${reconnect.deadlineMs} ms`, { cause: error })
              : (error as NbdError),
            [],
          );
          return;
        }
      }
      await this.#pause(waitMs);
      waitMs = Math.min(waitMs * 2, reconnect.backoffMsMax);
    }
  }

  #pause(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#stop.signal.removeEventListener('abort', wake);
        resolve();
      };
      // Not all at the same moment, where many clients lost the same server.
      const timer = setTimeout(wake, waitMs * (0.5 + Math.random() / 2));
      this.#stop.signal.addEventListener('abort', wake, { once: true });
    });
  }

  /** Puts calls back to the head of the queue; those that had their chances, or their time, end. */
  #retry(calls: readonly Call[], error: NbdError): void {
    const again: Call[] = [];
    for (const call of calls) {
      if (call.isOver) continue;
      if (performance.now() >= call.deadlineMs) call.end(this.#timeoutOf(call));
      else if (call.attempts >= (this.#options.reconnect?.attemptsMax ?? 1)) call.end(error);
      else {
        call.restart();
        again.push(call);
      }
    }
    this.#waiting = [...again, ...this.#waiting.slice(this.#waitingHead)];
    this.#waitingHead = 0;
  }

  #noteLoss(calls: readonly Call[]): void {
    if (this.#completedWrites > this.#flushedWrites) this.#isLossUntold = true;
    if (!this.#isLossUntold) return;
    const flushes = [...calls, ...this.#waiting.slice(this.#waitingHead)].filter((call) => call.type === nbd.NBD_CMD_FLUSH && !call.isOver);
    if (flushes.length > 0) this.#tellLoss(flushes);
  }

  #tellLoss(flushes: readonly Call[]): void {
    this.#isLossUntold = false;
    this.#flushedWrites = this.#completedWrites;
    const error = new NbdError(
      'NBD_FLUSH_LOST',
      'a connection was lost since the last flush; writes that were acknowledged since then may be gone',
    );
    for (const flush of flushes) flush.end(error);
  }

  #roomiest(): Connection | null {
    let best: Connection | null = null;
    for (const connection of this.#connections) {
      if (connection.hasRoom && (best === null || connection.inFlight < best.inFlight)) best = connection;
    }
    return best;
  }

  #drain(): void {
    while (this.#waitingHead < this.#waiting.length) {
      const connection = this.#roomiest();
      if (connection === null) break;
      const call = this.#waiting[this.#waitingHead];
      this.#waitingHead += 1;
      if (call !== undefined && !call.isOver) connection.submit(call);
    }
    if (this.#waitingHead === this.#waiting.length || (this.#waitingHead > 1024 && this.#waitingHead * 2 > this.#waiting.length)) {
      this.#waiting.splice(0, this.#waitingHead);
      this.#waitingHead = 0;
    }
  }

  get #pending(): number {
    let calls = 0;
    for (const connection of this.#connections) calls += connection.inFlight;
    for (let index = this.#waitingHead; index < this.#waiting.length; index += 1) if (this.#waiting[index]?.isOver === false) calls += 1;
    return calls;
  }

  #timeoutOf(call: Call): NbdError {
    return new NbdError(
      'NBD_TIMEOUT',
      `${call.name} of ${call.length} bytes at ${call.offset} was not answered within ${this.#options.requestTimeoutMs} ms`,
    );
  }

  /** Ends the calls whose time is over. One in flight takes its connection along: a reply that late is no use to anybody. */
  #expire(): void {
    const nowMs = performance.now();
    for (const call of this.#waiting.slice(this.#waitingHead)) if (nowMs >= call.deadlineMs) call.end(this.#timeoutOf(call));
    for (const connection of [...this.#connections]) {
      if (!connection.callsInFlight().some((call) => nowMs >= call.deadlineMs)) continue;
      connection.lose(new NbdError('NBD_DISCONNECTED', `the server did not answer within ${this.#options.requestTimeoutMs} ms`));
    }
    if (this.#onIdle !== null && this.#pending === 0) this.#onIdle();
  }

  #break(error: NbdError, calls: readonly Call[]): void {
    if (this.#state === 'closed' || this.#state === 'broken') return;
    this.#state = 'broken';
    this.#failure = error;
    this.#endAll(error, calls);
    this.#options.onConnectionEvent({ kind: 'broken', error });
  }

  #endAll(error: NbdError, lost: readonly Call[]): void {
    this.#stop.abort();
    if (this.#timer !== null) clearInterval(this.#timer);
    const nowMs = performance.now();
    const calls = [...lost, ...this.#connections.flatMap((connection) => connection.destroy()), ...this.#waiting.slice(this.#waitingHead)];
    this.#connections.length = 0;
    this.#waiting = [];
    this.#waitingHead = 0;
    for (const call of calls) call.end(nowMs >= call.deadlineMs ? this.#timeoutOf(call) : error);
    if (this.#onIdle !== null) this.#onIdle();
  }
}
