/**
 * The control socket's client, for the command line, the console and programs: calls with their types, and events.
 *
 * It imports the method table's types only, so that a command starts without loading schemas. One connection carries
 * any number of calls at once; each `events` reading has a connection of its own, so that a slow reader of events never
 * keeps a reply waiting.
 */
import type { Socket } from 'node:net';
import { systemCode, TwinvolError } from '../core/faults.ts';
import type { EventView } from '../core/views.ts';
import { connectUnix } from '../platform/unix-socket.ts';
import type { RequestId, RpcErrorBody, RpcMessage } from '../wire/control-frames.ts';
import { encodeRequest, errorOfBody, FrameDecoder, REPLY_FRAME_BYTES_MAX } from '../wire/control-frames.ts';
import { EventInbox } from './event-inbox.ts';
import type { MethodName, MethodParams, MethodResult } from './method-table.ts';

export type CallOptions = {
  /** Gives the call up: the engine is told, and the call fails with what it answers. */
  readonly signal?: AbortSignal;
};
export type EventsOptions = { readonly since?: number; readonly follow?: boolean; readonly signal?: AbortSignal };

type Waiting = { readonly resolve: (result: unknown) => void; readonly reject: (error: Error) => void };
type Notification = { readonly method: string; readonly params: Readonly<Record<string, unknown>> };

const unreachable = (path: string, error: unknown): TwinvolError => {
  if (error instanceof TwinvolError) return error;
  const details = { path, cause: systemCode(error) };
  if (systemCode(error) === 'EACCES' || systemCode(error) === 'EPERM') {
    return new TwinvolError('ACCESS_DENIED', `the control socket ${path} may not be used by this user`, {
      remedy: 'become the user who runs the engine, or root',
      cause: error,
      details,
    });
  }
  const isMissing = systemCode(error) === 'ENOENT';
  const what = isMissing ? `there is no control socket at ${path}` : `nobody answers on the control socket ${path} (${systemCode(error)})`;
  return new TwinvolError('ENGINE_UNREACHABLE', what, { cause: error, details });
};

export class ControlClient implements AsyncDisposable {
  readonly path: string;
  readonly #socket: Socket;
  readonly #decoder = new FrameDecoder(REPLY_FRAME_BYTES_MAX);
  readonly #waiting = new Map<RequestId, Waiting>();
  #onNotification: (notification: Notification) => void = () => {};
  #onEnd: (error: TwinvolError) => void = () => {};
  #nextId = 1;
  /** Why the connection ended, once it has. */
  #ended: TwinvolError | null = null;

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      for (const message of this.#decoder.push(chunk)) this.#received(message);
    });
    socket.on('error', () => {});
    socket.on('close', () =>
      this.#fail(new TwinvolError('ENGINE_UNREACHABLE', 'the engine closed the control connection', { details: { path } })),
    );
  }

  /** @throws TwinvolError `ENGINE_UNREACHABLE`, `ACCESS_DENIED` */
  static async connect(path: string): Promise<ControlClient> {
    try {
      return new ControlClient(path, await connectUnix(path));
    } catch (error) {
      throw unreachable(path, error);
    }
  }

  /** @throws TwinvolError with the engine's code, or `ENGINE_UNREACHABLE` */
  call<Name extends MethodName>(method: Name, params: MethodParams<Name>, options: CallOptions = {}): Promise<MethodResult<Name>> {
    return this.#request(method, params, options.signal) as Promise<MethodResult<Name>>;
  }

  /**
   * `exists` records and then changes, or the changes after `since`. Ends when the signal fires, or with `follow: false`.
   * @throws TwinvolError `EVENTS_GONE`, `ENGINE_UNREACHABLE` while iterating
   */
  async *events(options: EventsOptions = {}): AsyncGenerator<EventView, void, undefined> {
    const { signal, ...params } = options;
    await using reader = await ControlClient.connect(this.path);
    const inbox = new EventInbox(() => reader.#socket.resume());
    reader.#onNotification = ({ method, params: told }) => {
      if (method === 'event.end') inbox.finish(told['error'] === null ? 'ended' : errorOfBody(told['error'] as RpcErrorBody));
      else if (method === 'event') inbox.push(told['event'] as EventView);
      if (inbox.isFull) reader.#socket.pause();
    };
    reader.#onEnd = (error) => inbox.finish(error);
    const abort = (): void => inbox.abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      if (signal?.aborted === true) return;
      await reader.#request('events.subscribe', params, undefined);
      for (let event = await inbox.next(); event !== null; event = await inbox.next()) yield event;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Closes the connection; calls that wait fail. */
  async close(): Promise<void> {
    if (this.#socket.closed) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.destroy();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #request(method: string, params: object, signal: AbortSignal | undefined): Promise<unknown> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const id = this.#nextId;
    this.#nextId += 1;
    const cancel = (): void => {
      if (this.#waiting.has(id)) this.#request('request.cancel', { id }, undefined).catch(() => {});
    };
    const reply = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(encodeRequest(id, method, params));
    });
    if (signal === undefined) return reply;
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
    return reply.finally(() => signal.removeEventListener('abort', cancel));
  }

  #received(message: RpcMessage): void {
    switch (message.kind) {
      case 'result':
        this.#waiting.get(message.id)?.resolve(message.result);
        this.#waiting.delete(message.id);
        return;
      case 'error':
        if (message.id === null) {
          this.#fail(errorOfBody(message.error));
        } else {
          this.#waiting.get(message.id)?.reject(errorOfBody(message.error));
          this.#waiting.delete(message.id);
        }
        return;
      case 'notification':
        this.#notified({ method: message.method, params: message.params as Record<string, unknown> });
        return;
      case 'malformed':
        this.#fail(new TwinvolError('INTERNAL', `the engine sent what is no message: ${message.text}`));
        return;
      case 'request':
        return;
      default:
        message satisfies never;
    }
  }

  #notified(notification: Notification): void {
    if (notification.method === 'dropped') this.#fail(errorOfBody(notification.params['error'] as RpcErrorBody));
    else this.#onNotification(notification);
  }

  /** Once: every call that waits gets the reason, and so does every later one. */
  #fail(error: TwinvolError): void {
    if (this.#ended !== null) return;
    this.#ended = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#onEnd(error);
    this.#socket.destroy();
  }
}
