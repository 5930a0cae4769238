/**
 * One connection of the control socket: frames in, requests run side by side, replies and event notifications out.
 *
 * Bounds: requests in flight and streams (more are refused with `LIMIT`), the length and the age of an unfinished line,
 * and output. While output is queued, nothing more is read and no event is fetched (so a slow reader slows itself only);
 * if it takes nothing for `stallMs`, or the queue passes its limit, the connection is dropped with a `dropped`
 * notification, which the reader finds after what was queued.
 *
 * When the caller has ended its side, what waits for it (waits, verifies, streams) is given up; the other requests end
 * and their replies are sent, then the connection closes.
 */
import type { Socket } from 'node:net';
import { EXIT, TwinvolError } from '../core/faults.ts';
import type { EventView } from '../core/views.ts';
import type { Engine } from '../engine/api.ts';
import type { RequestId, RpcMalformed, RpcMessage, RpcRequest } from '../wire/control-frames.ts';
import {
  encodeError,
  encodeNotification,
  encodeResult,
  errorBodyOf,
  FrameDecoder,
  REQUEST_FRAME_BYTES_MAX,
} from '../wire/control-frames.ts';
import type { ControlLimits } from './control-limits.ts';
import type { ControlLog } from './control-log.ts';
import type { MethodContext } from './method.ts';

/** The reason that an abort signal carries: whoever waits on it can pass it on as it is. */
const cancelled = (why: string): TwinvolError => new TwinvolError('CANCELLED', why);

export class ControlConnection {
  readonly id: number;
  readonly #socket: Socket;
  readonly #engine: Engine;
  readonly #limits: ControlLimits;
  readonly #log: ControlLog;
  readonly #decoder = new FrameDecoder(REQUEST_FRAME_BYTES_MAX);
  readonly #inFlight = new Map<RequestId, AbortController>();
  readonly #streams = new Map<number, AbortController>();
  readonly #drainWaiters = new Set<() => void>();
  #nextStream = 1;
  #malformedInARow = 0;
  #hasEnded = false;
  #isFinished = false;
  #stallTimer: NodeJS.Timeout | null = null;
  #lineTimer: NodeJS.Timeout | null = null;

  constructor(id: number, socket: Socket, engine: Engine, limits: ControlLimits, log: ControlLog) {
    this.id = id;
    this.#socket = socket;
    this.#engine = engine;
    this.#limits = limits;
    this.#log = log;
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('drain', () => this.#drained());
    socket.on('end', () => this.#callerEnded());
    socket.on('error', (error) => log.debug({ connection: id, error: error.message }, 'control connection failed'));
    socket.on('close', () => this.#closed());
  }

  /** Says why, sends what is queued, closes; a reader that takes nothing is cut off after `graceMs`. */
  finish(reason: string, error: TwinvolError): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#abortAll(error);
    this.#socket.pause();
    this.#socket.end(encodeNotification('dropped', { reason, error: errorBodyOf(error) }));
    this.#cutOffAfterGrace();
  }

  /** Gives up what waits, with this reason; ends once nothing is in flight any more. */
  finishQuietly(reason: TwinvolError): void {
    this.#hasEnded = true;
    this.#abortAll(reason);
    this.#endWhenIdle();
  }

  #received(chunk: Buffer): void {
    if (this.#isFinished) return;
    for (const message of this.#decoder.push(chunk)) this.#handle(message);
    this.#watchLine();
    if (this.#socket.writableLength > this.#limits.outputBytesPause) this.#socket.pause();
  }

  #handle(message: RpcMessage): void {
    if (this.#isFinished) return;
    if (message.kind === 'malformed') {
      this.#refuseMalformed(message);
      return;
    }
    this.#malformedInARow = 0;
    if (message.kind === 'request') void this.#run(message);
    // A notification asks for no reply and none of our methods is worth calling without one; a reply answers nothing we asked.
    else this.#log.debug({ connection: this.id, kind: message.kind }, 'control message ignored');
  }

  #refuseMalformed(message: RpcMalformed): void {
    this.#malformedInARow += 1;
    const error = new TwinvolError('USAGE', message.text, { remedy: 'send JSON-RPC 2.0 requests, one a line' });
    this.#log.debug({ connection: this.id, text: message.text }, 'malformed control message');
    this.#send(encodeError(message.id, errorBodyOf(error, message.code)));
    if (message.isFatal) this.finish('the line cannot be taken', error);
    else if (this.#malformedInARow >= this.#limits.malformedInARow) this.finish('too many malformed messages in a row', error);
  }

  async #run(request: RpcRequest): Promise<void> {
    const refusal = this.#refusalOf(request.id);
    if (refusal !== null) {
      this.#send(encodeError(request.id, errorBodyOf(refusal)));
      return;
    }
    const controller = new AbortController();
    this.#inFlight.set(request.id, controller);
    const startedStreams: Array<() => void> = [];
    // Loaded with the first request: the schemas of all methods take 13 MiB, which an engine at rest does without.
    const { dispatch } = await import('./dispatch.ts');
    const outcome = await dispatch(this.#engine, request.method, request.params, this.#contextOf(controller.signal, startedStreams));
    this.#inFlight.delete(request.id);
    if ('error' in outcome) {
      if (outcome.error.data?.exit === EXIT.broken)
        this.#log.error({ connection: this.id, method: request.method, err: outcome.cause }, outcome.error.message);
      this.#send(encodeError(request.id, outcome.error));
    } else {
      this.#log.debug({ connection: this.id, method: request.method, request: request.id }, 'control request done');
      this.#send(encodeResult(request.id, outcome.result));
      for (const start of startedStreams) start();
    }
    this.#endWhenIdle();
  }

  #refusalOf(id: RequestId): TwinvolError | null {
    if (this.#inFlight.has(id)) return new TwinvolError('USAGE', `a request with the id ${JSON.stringify(id)} is in flight already`);
    const max = this.#limits.requestsInFlight;
    if (this.#inFlight.size < max) return null;
    return new TwinvolError('LIMIT', `${max} requests of this connection are in flight already`, {
      remedy: 'wait for their replies',
      details: { max },
    });
  }

  #contextOf(signal: AbortSignal, started: Array<() => void>): MethodContext {
    return {
      signal,
      stream: (open) => {
        const max = this.#limits.streams;
        if (this.#streams.size >= max)
          throw new TwinvolError('LIMIT', `this connection has ${max} subscriptions already`, { details: { max } });
        const controller = new AbortController();
        const events = open(controller.signal);
        const number = this.#nextStream;
        this.#nextStream += 1;
        this.#streams.set(number, controller);
        started.push(() => void this.#pump(number, events, controller.signal));
        return number;
      },
      endStream: (number) => {
        this.#streams.get(number)?.abort(cancelled('the stream was ended'));
        return this.#streams.has(number);
      },
      cancel: (id) => {
        this.#inFlight.get(id)?.abort(cancelled('the request was cancelled'));
        return this.#inFlight.has(id);
      },
    };
  }

  /** Fetches an event only when the one before is out of our hands: the engine's log is the queue, not we. */
  async #pump(subscription: number, events: AsyncIterable<EventView>, signal: AbortSignal): Promise<void> {
    let fault: TwinvolError | null = null;
    try {
      for await (const event of events) {
        if (signal.aborted || !this.#send(encodeNotification('event', { subscription, event }))) break;
        if (this.#socket.writableNeedDrain) await this.#untilDrained();
      }
    } catch (error) {
      fault = error instanceof TwinvolError ? error : new TwinvolError('INTERNAL', 'the stream of events failed', { cause: error });
      if (fault.code === 'INTERNAL') this.#log.error({ connection: this.id, err: error }, fault.message);
    }
    this.#streams.delete(subscription);
    this.#send(encodeNotification('event.end', { subscription, error: fault === null ? null : errorBodyOf(fault) }));
    this.#endWhenIdle();
  }

  /** False when the connection takes nothing any more. */
  #send(text: string): boolean {
    if (this.#isFinished || !this.#socket.writable) return false;
    const isTaken = this.#socket.write(text);
    if (!isTaken) this.#watchStall();
    // One long reply may pass the limit on its own; a second one on top of it may not.
    if (this.#socket.writableLength > this.#limits.outputBytesMax + Buffer.byteLength(text)) {
      this.#drop(`more than ${this.#limits.outputBytesMax} bytes of output are waiting`);
      return false;
    }
    return true;
  }

  #drop(why: string): void {
    this.#log.warn({ connection: this.id, queuedBytes: this.#socket.writableLength }, `control connection dropped: ${why}`);
    this.finish(
      why,
      new TwinvolError('LIMIT', `the connection was dropped: ${why}`, { remedy: 'read faster, or resume the events with since' }),
    );
  }

  #watchStall(): void {
    if (this.#stallTimer !== null) return;
    const takenBytes = this.#socket.bytesWritten - this.#socket.writableLength;
    this.#stallTimer = setTimeout(() => {
      this.#stallTimer = null;
      if (!this.#socket.writableNeedDrain || this.#isFinished) return;
      const hasMoved = this.#socket.bytesWritten - this.#socket.writableLength > takenBytes;
      if (hasMoved) this.#watchStall();
      else this.#drop(`nothing was read for ${this.#limits.stallMs} ms`);
    }, this.#limits.stallMs);
    this.#stallTimer.unref();
  }

  /** A line that has begun must end in time: half a line and silence would hold the connection for ever. */
  #watchLine(): void {
    if (this.#decoder.heldBytes === 0) {
      if (this.#lineTimer !== null) clearTimeout(this.#lineTimer);
      this.#lineTimer = null;
    } else {
      this.#lineTimer ??= setTimeout(() => {
        const text = `a line did not end within ${this.#limits.lineMs} ms`;
        this.finish(text, new TwinvolError('USAGE', text, { remedy: 'end every message with a newline' }));
      }, this.#limits.lineMs);
      this.#lineTimer.unref();
    }
  }

  #drained(): void {
    if (this.#stallTimer !== null) clearTimeout(this.#stallTimer);
    this.#stallTimer = null;
    if (!this.#isFinished) this.#socket.resume();
    this.#wakeDrainWaiters();
  }

  #untilDrained(): Promise<void> {
    return new Promise((resolve) => this.#drainWaiters.add(resolve));
  }

  #wakeDrainWaiters(): void {
    for (const wake of this.#drainWaiters) wake();
    this.#drainWaiters.clear();
  }

  #callerEnded(): void {
    if (this.#decoder.heldBytes > 0 && !this.#isFinished) {
      const error = new TwinvolError('USAGE', 'the connection ended in the middle of a line', {
        remedy: 'end every message with a newline',
      });
      this.#send(encodeError(null, errorBodyOf(error, -32700)));
    }
    this.finishQuietly(cancelled('the caller is gone'));
  }

  #endWhenIdle(): void {
    if (!this.#hasEnded || this.#isFinished || this.#inFlight.size > 0 || this.#streams.size > 0) return;
    this.#isFinished = true;
    this.#socket.end();
    this.#cutOffAfterGrace();
  }

  #cutOffAfterGrace(): void {
    const timer = setTimeout(() => this.#socket.destroy(), this.#limits.graceMs);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
    // What still comes in is thrown away, so that the caller's close is seen.
    this.#socket.once('finish', () => this.#socket.resume());
  }

  #abortAll(reason: TwinvolError): void {
    for (const controller of [...this.#inFlight.values(), ...this.#streams.values()]) controller.abort(reason);
    this.#wakeDrainWaiters();
  }

  #closed(): void {
    this.#isFinished = true;
    for (const timer of [this.#stallTimer, this.#lineTimer]) if (timer !== null) clearTimeout(timer);
    this.#abortAll(cancelled('the caller is gone'));
  }
}
