/**
 * From an address to a negotiated stream: opens it, drives the handshake's coroutine, starts TLS where it asks for it,
 * all of it under one time limit.
 *
 * Until the handshake is over received bytes are kept here; what came behind its end goes to the first receiver. The
 * stream's handlers change hands at that point (`attach`), never twice.
 */
import { ClientStream, type StreamHandlers } from '../platform/client-stream.ts';
import type { SettledOptions } from './connect-options.ts';
import type { ClientStep } from './negotiation.ts';
import { NbdError } from './nbd-error.ts';

const HANDSHAKE_BUFFER_BYTES = 16 * 1024;

export type Dialled<Result> = {
  readonly stream: ClientStream;
  readonly result: Result;
  /** Hands the stream over: bytes and its end go to these handlers from now on, those kept so far at once. */
  attach(handlers: StreamHandlers): void;
};

type Handshake = Generator<ClientStep, unknown, Buffer>;

class Dialling {
  readonly stream: ClientStream = new ClientStream({
    nextBuffer: () => this.#handlers?.nextBuffer() ?? this.#buffer,
    onBytes: (bytes, length) => this.#onBytes(bytes, length),
    onEnd: (error) => this.#onEnd(error),
  });
  readonly #options: SettledOptions;
  readonly #buffer = Buffer.allocUnsafeSlow(HANDSHAKE_BUFFER_BYTES);
  #handlers: StreamHandlers | null = null;
  #kept: Buffer = Buffer.alloc(0);
  #ended: { readonly error: Error | null } | null = null;
  /** Called when something arrived or ended. */
  #wake: () => void = () => {};

  constructor(options: SettledOptions) {
    this.#options = options;
  }

  async run(handshake: Handshake): Promise<unknown> {
    const { target, place, tls, tlsHost } = this.#options;
    try {
      await this.stream.open(target, tls !== null);
    } catch (error) {
      throw new NbdError('NBD_CONNECT', `cannot connect to ${place}: ${(error as Error).message}`, { cause: error });
    }
    let turn = handshake.next();
    while (turn.done !== true) {
      let resumed: Buffer = this.#buffer;
      const step = turn.value;
      if (step.kind === 'send') this.stream.write(step.bytes);
      else if (step.kind === 'need') resumed = await this.#take(step.bytes);
      else await this.#startTls(tlsHost);
      turn = handshake.next(resumed);
    }
    return turn.value;
  }

  attach(handlers: StreamHandlers): void {
    this.#handlers = handlers;
    const kept = this.#kept;
    this.#kept = Buffer.alloc(0);
    if (kept.length > 0) handlers.onBytes(kept, kept.length);
    if (this.#ended !== null) handlers.onEnd(this.#ended.error);
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#kept.length < bytes) {
      if (this.#ended !== null) {
        const { error } = this.#ended;
        const why = error === null ? 'the server closed the connection during the handshake' : error.message;
        throw new NbdError('NBD_CONNECT', `${this.#options.place}: ${why}`, error === null ? {} : { cause: error });
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#kept.subarray(0, bytes);
    this.#kept = this.#kept.subarray(bytes);
    return taken;
  }

  async #startTls(host: string): Promise<void> {
    if (this.#kept.length > 0) throw new NbdError('NBD_TLS', 'the server sent clear text behind its agreement to TLS');
    try {
      await this.stream.startTls(this.#options.tls ?? {}, host);
    } catch (error) {
      throw new NbdError('NBD_TLS', `TLS with ${this.#options.place} failed: ${(error as Error).message}`, { cause: error });
    }
  }

  #onBytes(bytes: Buffer, length: number): void {
    if (this.#handlers !== null) {
      this.#handlers.onBytes(bytes, length);
      return;
    }
    this.#kept = Buffer.concat([this.#kept, bytes.subarray(0, length)]);
    this.#wake();
  }

  #onEnd(error: Error | null): void {
    if (this.#handlers !== null) {
      this.#handlers.onEnd(error);
      return;
    }
    this.#ended = { error };
    this.#wake();
  }
}

/**
 * @throws NbdError `NBD_CONNECT`, `NBD_TLS`, `NBD_REFUSED`, `NBD_PROTOCOL`, `NBD_ESHUTDOWN`, `NBD_TIMEOUT`, `NBD_ABORTED`
 */
export const dial = async <Result>(
  options: SettledOptions,
  handshake: Generator<ClientStep, Result, Buffer>,
  signal: AbortSignal | null,
): Promise<Dialled<Result>> => {
  const dialling = new Dialling(options);
  let giveUp: (error: NbdError) => void = () => {};
  const givenUp = new Promise<never>((_, reject) => {
    giveUp = reject;
  });
  const onAbort = (): void => giveUp(new NbdError('NBD_ABORTED', `connecting to ${options.place} was given up`, { cause: signal?.reason }));
  const timer = setTimeout(() => {
    giveUp(new NbdError('NBD_TIMEOUT', `${options.place} did not finish the handshake within ${options.connectTimeoutMs} ms`));
  }, options.connectTimeoutMs);
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  const running = dialling.run(handshake);
  try {
    const result = (await Promise.race([running, givenUp])) as Result;
    return { stream: dialling.stream, result, attach: (handlers) => dialling.attach(handlers) };
  } catch (error) {
    // Its own rejection, which comes when the stream is gone, is of no interest any more.
    running.catch(() => {});
    dialling.stream.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
};
