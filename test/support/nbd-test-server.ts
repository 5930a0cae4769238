/**
 * A small NBD server on a unix socket, for the tests of the NBD client: the real server-side codecs over a buffer in
 * memory, and a rule for each request that can make it answer late, wrongly, in pieces, or not at all.
 *
 * Its fault model: a rule sees every request in the order of arrival and says what happens to it. `drop` cuts the
 * connection without a reply, `execute-and-drop` does it after the effect. What is written survives the connection.
 */
import { createServer, type Server, type Socket } from 'node:net';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { BlockStatusWriter } from '../../src/wire/nbd-block-status.ts';
import { ServerNegotiation } from '../../src/wire/nbd-negotiation.ts';
import type { ExportInfo, NegotiationStep, TransmissionStart } from '../../src/wire/nbd-negotiation-steps.ts';
import {
  ERROR_REPLY_BYTES_MAX,
  NbdRequest,
  REPLY_HEADER_BYTES_MAX,
  type ReplyMode,
  type RequestRules,
  parseRequest,
  replyModeOf,
  requestHeaderBytes,
  validateRequest,
  writeDone,
  writeError,
  writeNone,
  writeOffsetData,
  writeOffsetHole,
  writeReadHeader,
} from '../../src/wire/nbd-transmission.ts';

export type Seen = { type: number; flags: number; offset: number; length: number; connection: number; index: number };
export type Verdict =
  | 'execute'
  /** The reply of a READ comes in chunks of this size, last one first, zeros as holes. Structured replies only. */
  | { pieces: number }
  | { delayMs: number }
  | { errno: number; message?: string }
  /** These bytes instead of a reply, made from the request. */
  | { raw: (request: NbdRequest, mode: ReplyMode) => Buffer }
  | 'silence'
  | 'drop'
  | 'execute-and-drop';

export type TestServerOptions = {
  path: string;
  sizeBytes?: number;
  transmissionFlags?: number;
  info?: Partial<ExportInfo>;
  extendedHeaders?: boolean;
  structuredReplies?: boolean;
  rule?: (seen: Seen) => Verdict;
  /** Those beyond are closed before a word; default: no limit. */
  connectionsMax?: number;
  /** Extents as [length, flags] for a context, from the start of the export; one status reply takes `extentsPerReply`. */
  extents?: Record<string, Array<[number, number]>>;
  extentsPerReply?: number;
};

export const ALL_FLAGS: number =
  nbd.NBD_FLAG_HAS_FLAGS |
  nbd.NBD_FLAG_SEND_FLUSH |
  nbd.NBD_FLAG_SEND_FUA |
  nbd.NBD_FLAG_SEND_TRIM |
  nbd.NBD_FLAG_SEND_WRITE_ZEROES |
  nbd.NBD_FLAG_SEND_FAST_ZERO |
  nbd.NBD_FLAG_SEND_CACHE |
  nbd.NBD_FLAG_CAN_MULTI_CONN;

export class NbdTestServer implements AsyncDisposable {
  readonly options: TestServerOptions;
  data: Buffer;
  readonly seen: Seen[] = [];
  connectionsMade = 0;
  disconnects = 0;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;

  constructor(options: TestServerOptions) {
    this.options = options;
    this.data = Buffer.alloc(options.sizeBytes ?? 1024 * 1024);
  }

  get uri(): string {
    return `nbd+unix:///vol?socket=${this.options.path}`;
  }

  get exportInfo(): ExportInfo {
    return {
      canonicalName: 'vol',
      description: 'a test volume',
      sizeBytes: this.data.length,
      transmissionFlags: this.options.transmissionFlags ?? ALL_FLAGS,
      blockSizes: { minimumBytes: 1, preferredBytes: 4096, maximumBytes: 32 * 1024 * 1024 },
      metaContexts: Object.keys(this.options.extents ?? {}),
      ...this.options.info,
    };
  }

  listen(): Promise<this> {
    return new Promise((resolve) => {
      const serve = (socket: Socket): unknown => new TestConnection(this, socket, this.connectionsMade++);
      const isFull = (): boolean => this.connectionsMade >= (this.options.connectionsMax ?? Number.POSITIVE_INFINITY);
      const server = createServer((socket) => (isFull() ? socket.destroy() : serve(socket)));
      this.#server = server;
      server.on('connection', (socket) => {
        this.#sockets.add(socket);
        socket.on('close', () => this.#sockets.delete(socket));
        socket.on('error', () => {});
      });
      server.listen(this.options.path, () => resolve(this));
    });
  }

  /** Cuts every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    this.cut();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

class TestConnection {
  readonly #server: NbdTestServer;
  readonly #socket: Socket;
  readonly #number: number;
  readonly #negotiation: ServerNegotiation;
  #start: TransmissionStart | null = null;
  #mode: ReplyMode = 0;
  #pending: Buffer = Buffer.alloc(0);
  #index = 0;

  constructor(server: NbdTestServer, socket: Socket, number: number) {
    this.#server = server;
    this.#socket = socket;
    this.#number = number;
    this.#negotiation = new ServerNegotiation({ tls: 'off', extendedHeaders: server.options.extendedHeaders ?? false });
    socket.write(this.#negotiation.greeting());
    socket.on('data', (bytes) => {
      if (this.#start !== null) this.#onRequests(bytes);
      else this.#act(this.#negotiation.feed(bytes));
    });
  }

  #act(steps: readonly NegotiationStep[]): void {
    for (const step of steps) {
      if (step.kind === 'send') this.#socket.write(step.bytes);
      else if (step.kind === 'need-export') {
        const found = step.name === 'vol' || step.name === '';
        this.#act(this.#negotiation.resumeExport(found ? this.#server.exportInfo : { refused: 'unknown', message: 'only "vol" is here' }));
      } else if (step.kind === 'need-list') this.#act(this.#negotiation.resumeList([{ name: 'vol', description: 'a test volume' }]));
      else if (step.kind === 'close') this.#socket.end();
      else if (step.kind === 'transmission') {
        this.#start = step;
        this.#mode = replyModeOf(step);
        this.#onRequests(step.readAhead);
      }
    }
  }

  #onRequests(bytes: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    const headerBytes = requestHeaderBytes(this.#mode);
    while (this.#pending.length >= headerBytes) {
      const request = new NbdRequest();
      if (!parseRequest(this.#pending, 0, this.#mode, request)) throw new Error('the client broke the protocol');
      if (this.#pending.length < headerBytes + request.payloadBytes) return;
      const payload = Buffer.from(this.#pending.subarray(headerBytes, headerBytes + request.payloadBytes));
      this.#pending = this.#pending.subarray(headerBytes + request.payloadBytes);
      if (request.type === nbd.NBD_CMD_DISC) {
        this.#server.disconnects += 1;
        this.#socket.end();
        return;
      }
      this.#onRequest(request, payload);
    }
  }

  #onRequest(request: NbdRequest, payload: Buffer): void {
    const seen: Seen = {
      type: request.type,
      flags: request.flags,
      offset: request.offset,
      length: request.length,
      connection: this.#number,
      index: this.#index++,
    };
    this.#server.seen.push(seen);
    const verdict = this.#server.options.rule?.(seen) ?? 'execute';
    if (verdict === 'silence') return;
    if (verdict === 'drop') this.#socket.destroy();
    else if (verdict === 'execute-and-drop') {
      this.#execute(request, payload);
      this.#socket.destroy();
    } else if (verdict === 'execute') this.#socket.write(this.#execute(request, payload));
    else if ('delayMs' in verdict) setTimeout(() => this.#socket.write(this.#execute(request, payload)), verdict.delayMs);
    else if ('errno' in verdict) this.#socket.write(this.#error(request, verdict.errno, verdict.message));
    else if ('raw' in verdict) this.#socket.write(verdict.raw(request, this.#mode));
    else this.#socket.write(this.#inPieces(request, verdict.pieces));
  }

  #error(request: NbdRequest, errno: number, message = ''): Buffer {
    const bytes = Buffer.alloc(ERROR_REPLY_BYTES_MAX);
    return bytes.subarray(0, writeError(bytes, 0, this.#mode, request, errno, message));
  }

  get #rules(): RequestRules {
    const start = this.#start;
    if (start === null) throw new Error('not in transmission');
    const { blockSizes, sizeBytes } = this.#server.exportInfo;
    return {
      sizeBytes,
      transmissionFlags: start.transmissionFlags,
      mode: this.#mode,
      metaContextCount: start.metaContexts.length,
      minimumBytes: blockSizes.minimumBytes,
      payloadBytesMax: blockSizes.maximumBytes,
    };
  }

  #execute(request: NbdRequest, payload: Buffer): Buffer {
    const errno = validateRequest(request, this.#rules);
    if (errno !== 0) return this.#error(request, errno, 'the test server refuses it');
    const { data } = this.#server;
    const end = request.offset + request.length;
    const head = Buffer.alloc(REPLY_HEADER_BYTES_MAX);
    switch (request.type) {
      case nbd.NBD_CMD_READ:
        return Buffer.concat([head.subarray(0, writeReadHeader(head, 0, this.#mode, request)), data.subarray(request.offset, end)]);
      case nbd.NBD_CMD_WRITE:
        payload.copy(data, request.offset);
        break;
      case nbd.NBD_CMD_TRIM:
      case nbd.NBD_CMD_WRITE_ZEROES:
        data.fill(0, request.offset, end);
        break;
      case nbd.NBD_CMD_BLOCK_STATUS:
        return this.#status(request);
      default:
    }
    return head.subarray(0, writeDone(head, 0, this.#mode, request));
  }

  #inPieces(request: NbdRequest, pieceBytes: number): Buffer {
    const { data } = this.#server;
    const chunks: Buffer[] = [];
    for (let from = request.offset; from < request.offset + request.length; from += pieceBytes) {
      const to = Math.min(from + pieceBytes, request.offset + request.length);
      const bytes = data.subarray(from, to);
      const head = Buffer.alloc(64);
      if (bytes.every((byte) => byte === 0))
        chunks.unshift(head.subarray(0, writeOffsetHole(head, 0, this.#mode, request, 0, from, to - from)));
      else chunks.unshift(Buffer.concat([head.subarray(0, writeOffsetData(head, 0, this.#mode, request, 0, from, to - from)), bytes]));
    }
    const none = Buffer.alloc(64);
    return Buffer.concat([...chunks, none.subarray(0, writeNone(none, 0, this.#mode, request))]);
  }

  #status(request: NbdRequest): Buffer {
    const bytes = Buffer.alloc(64 * 1024);
    const contexts = this.#start?.metaContexts ?? [];
    const writer = new BlockStatusWriter();
    let at = 0;
    contexts.forEach((context, index) => {
      writer.begin(bytes, at, bytes.length, this.#mode, request, context.id);
      let from = 0;
      let left = this.#server.options.extentsPerReply ?? 1000;
      for (const [length, flags] of this.#server.options.extents?.[context.name] ?? []) {
        const start = Math.max(from, request.offset);
        from += length;
        if (from <= request.offset || left === 0) continue;
        left -= 1;
        if (!writer.add(from - start, flags)) break;
      }
      at = writer.end(index === contexts.length - 1 ? nbd.NBD_REPLY_FLAG_DONE : 0);
    });
    return bytes.subarray(0, at);
  }
}
