/**
 * An NBD client that does what it is told, right or wrong: a socket, the requests as bytes, and a strict reader of
 * replies in all three modes. For tests that have to send what a well-behaved client never would, or to cut the stream
 * where they like.
 */
import net from 'node:net';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeClientFlags, encodeInfoRequest, encodeMetaContextRequest, encodeOption } from '../../src/wire/nbd-handshake.ts';

export type RawMode = 'simple' | 'structured' | 'extended';
export type RawTarget = { readonly path: string } | { readonly host: string; readonly port: number };
export type RawOptions = { readonly mode?: RawMode; readonly contexts?: readonly string[] };

export type RawRequest = {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly payload?: Buffer;
};

/** One whole reply: of a READ its data put together, of a BLOCK_STATUS its extents by context. */
export type RawReply = {
  readonly cookie: number;
  /** 0: success. */
  readonly errno: number;
  readonly data: Buffer | null;
  readonly extents: ReadonlyMap<number, ReadonlyArray<readonly [lengthBytes: number, flags: number]>>;
  /** How many chunks of data; 0 for a simple reply. */
  readonly dataChunks: number;
};

type Asked = { readonly type: number; readonly offset: number; readonly length: number };
type Waiter = { readonly bytes: number; readonly resolve: (bytes: Buffer) => void; readonly reject: (error: Error) => void };

const closed = (): Error => new Error('the server closed the connection');

export class RawNbd {
  readonly socket: net.Socket;
  mode: RawMode = 'simple';
  sizeBytes = 0;
  transmissionFlags = 0;
  readonly #asked = new Map<number, Asked>();
  #parts: Buffer[] = [];
  #partBytes = 0;
  #waiter: Waiter | null = null;
  #hasEnded = false;
  #cookie = 0;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#parts.push(chunk);
      this.#partBytes += chunk.length;
      this.#serve();
    });
    const end = (): void => {
      this.#hasEnded = true;
      this.#waiter?.reject(closed());
      this.#waiter = null;
    };
    socket.on('error', end);
    socket.on('end', end);
    socket.on('close', end);
  }

  /** Connects, and nothing else. */
  static open(target: RawTarget): Promise<RawNbd> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(target);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.removeListener('error', reject);
        resolve(new RawNbd(socket.setNoDelay(true)));
      });
    });
  }

  /** Connects and does the whole handshake. */
  static async connect(target: RawTarget, exportName: string, options: RawOptions = {}): Promise<RawNbd> {
    const client = await RawNbd.open(target);
    await client.greet();
    client.mode = options.mode ?? 'structured';
    if (client.mode === 'structured') await client.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    if (client.mode === 'extended') await client.option(nbd.NBD_OPT_EXTENDED_HEADERS);
    if (options.contexts !== undefined) {
      await client.option(nbd.NBD_OPT_SET_META_CONTEXT, encodeMetaContextRequest(exportName, options.contexts));
    }
    for (const { type, data } of await client.option(nbd.NBD_OPT_GO, encodeInfoRequest(exportName, []))) {
      if (type !== nbd.NBD_REP_INFO || data.readUInt16BE(0) !== nbd.NBD_INFO_EXPORT) continue;
      client.sizeBytes = Number(data.readBigUInt64BE(2));
      client.transmissionFlags = data.readUInt16BE(10);
    }
    return client;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Resolves when the connection is closed, by whomever. */
  ended(): Promise<void> {
    return this.socket.destroyed || this.socket.readableEnded
      ? Promise.resolve()
      : new Promise((resolve) => this.socket.once('close', () => resolve()));
  }

  /** Reads the greeting, sends the client's flags. */
  async greet(flags: number = nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES): Promise<Buffer> {
    const greeting = await this.take(18);
    this.socket.write(encodeClientFlags(flags));
    return greeting;
  }

  /** Sends an option and reads its replies up to the last. @throws when the last one is an error */
  async option(option: number, data: Buffer | null = null): Promise<ReadonlyArray<{ readonly type: number; readonly data: Buffer }>> {
    this.socket.write(encodeOption(option, data));
    const replies: Array<{ type: number; data: Buffer }> = [];
    for (;;) {
      const header = await this.take(20);
      const type = header.readUInt32BE(12);
      const reply = { type, data: await this.take(header.readUInt32BE(16)) };
      if (type >= nbd.NBD_REP_ERROR_BIT)
        throw new Error(`option ${option}: error ${type - nbd.NBD_REP_ERROR_BIT} ${reply.data.toString()}`);
      if (type === nbd.NBD_REP_ACK) return replies;
      replies.push(reply);
    }
  }

  /** The request as bytes; its cookie is the number that `reply` will show. */
  encode({ type, flags = 0, offset = 0, length, payload }: RawRequest): Buffer {
    this.#cookie += 1;
    const bytes = length ?? payload?.length ?? 0;
    this.#asked.set(this.#cookie, { type, offset, length: bytes });
    const isExtended = this.mode === 'extended';
    const header = Buffer.alloc(isExtended ? nbd.NBD_EXTENDED_REQUEST_BYTES : nbd.NBD_REQUEST_BYTES);
    const hasPayload = isExtended && payload !== undefined;
    header.writeUInt32BE(isExtended ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags | (hasPayload ? nbd.NBD_CMD_FLAG_PAYLOAD_LEN : 0), 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(BigInt(this.#cookie), 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    if (isExtended) header.writeBigUInt64BE(BigInt(bytes), 24);
    else header.writeUInt32BE(bytes, 24);
    return payload === undefined ? header : Buffer.concat([header, payload]);
  }

  /** Sends a request; @returns its cookie. */
  send(request: RawRequest): number {
    this.socket.write(this.encode(request));
    return this.#cookie;
  }

  /** Sends one request and reads its reply, with nothing else under way. */
  async ask(request: RawRequest): Promise<RawReply> {
    const cookie = this.send(request);
    const reply = await this.reply();
    if (reply.cookie !== cookie) throw new Error(`reply ${reply.cookie} to request ${cookie}`);
    return reply;
  }

  /** The next reply; throws at any breach of the protocol. Chunks of two replies are not expected to be mixed. */
  async reply(): Promise<RawReply> {
    const magic = (await this.take(4)).readUInt32BE(0);
    if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC && this.mode !== 'extended') return this.#simple();
    const expected = this.mode === 'extended' ? nbd.NBD_EXTENDED_REPLY_MAGIC : nbd.NBD_STRUCTURED_REPLY_MAGIC;
    if (magic !== expected || this.mode === 'simple') throw new Error(`a reply starts with 0x${magic.toString(16)}`);
    return this.#chunks();
  }

  async #simple(): Promise<RawReply> {
    const rest = await this.take(12);
    const errno = rest.readUInt32BE(0);
    const cookie = Number(rest.readBigUInt64BE(4));
    const asked = this.#answered(cookie);
    if (asked.type === nbd.NBD_CMD_READ && this.mode === 'structured') throw new Error('a simple reply to READ after structured replies');
    const data = asked.type === nbd.NBD_CMD_READ && errno === 0 ? await this.take(asked.length) : null;
    return { cookie, errno, data, extents: new Map(), dataChunks: 0 };
  }

  async #chunks(): Promise<RawReply> {
    const extents = new Map<number, Array<readonly [number, number]>>();
    const isExtended = this.mode === 'extended';
    const state = { cookie: 0, errno: 0, covered: 0, dataChunks: 0, data: null as Buffer | null };
    for (let isFirst = true; ; isFirst = false) {
      if (!isFirst) await this.take(4);
      const header = await this.take(isExtended ? 28 : 16);
      const flags = header.readUInt16BE(0);
      const type = header.readUInt16BE(2);
      const cookie = Number(header.readBigUInt64BE(4));
      if (!isFirst && cookie !== state.cookie) throw new Error(`chunks of ${state.cookie} and ${cookie} are mixed`);
      state.cookie = cookie;
      const asked = this.#asked.get(cookie);
      if (asked === undefined) throw new Error(`a reply to ${cookie}, which was not asked`);
      const payload = await this.take(isExtended ? Number(header.readBigUInt64BE(20)) : header.readUInt32BE(12));
      this.#chunk(type, payload, asked, state, extents);
      if ((flags & nbd.NBD_REPLY_FLAG_DONE) === 0) continue;
      this.#asked.delete(cookie);
      if (asked.type === nbd.NBD_CMD_READ && state.errno === 0 && state.covered !== asked.length)
        throw new Error('a READ was answered in part');
      return { cookie, errno: state.errno, data: state.errno === 0 ? state.data : null, extents, dataChunks: state.dataChunks };
    }
  }

  #chunk(
    type: number,
    payload: Buffer,
    asked: Asked,
    state: { errno: number; covered: number; dataChunks: number; data: Buffer | null },
    extents: Map<number, Array<readonly [number, number]>>,
  ): void {
    switch (type) {
      case nbd.NBD_REPLY_TYPE_NONE:
        return;
      case nbd.NBD_REPLY_TYPE_OFFSET_DATA: {
        state.data ??= Buffer.alloc(asked.length);
        const at = Number(payload.readBigUInt64BE(0)) - asked.offset;
        if (at < 0 || at + payload.length - 8 > asked.length) throw new Error('data outside of what was asked');
        payload.copy(state.data, at, 8);
        state.covered += payload.length - 8;
        state.dataChunks += 1;
        return;
      }
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS:
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT: {
        const isExtended = type === nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
        if (isExtended !== (this.mode === 'extended')) throw new Error('block status of the wrong kind');
        const found: Array<readonly [number, number]> = [];
        for (let at = isExtended ? 8 : 4; at < payload.length; at += isExtended ? 16 : 8) {
          if (isExtended) found.push([Number(payload.readBigUInt64BE(at)), Number(payload.readBigUInt64BE(at + 8))]);
          else found.push([payload.readUInt32BE(at), payload.readUInt32BE(at + 4)]);
        }
        extents.set(payload.readUInt32BE(0), found);
        return;
      }
      case nbd.NBD_REPLY_TYPE_ERROR:
      case nbd.NBD_REPLY_TYPE_ERROR_OFFSET:
        state.errno = payload.readUInt32BE(0);
        return;
      default:
        throw new Error(`a chunk of type ${type}`);
    }
  }

  #answered(cookie: number): Asked {
    const asked = this.#asked.get(cookie);
    if (asked === undefined) throw new Error(`a reply to ${cookie}, which was not asked`);
    this.#asked.delete(cookie);
    return asked;
  }

  /** Exactly so many bytes. One reader at a time. */
  take(bytes: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#hasEnded && this.#partBytes < bytes) return reject(closed());
      this.#waiter = { bytes, resolve, reject };
      this.#serve();
    });
  }

  #serve(): void {
    const waiter = this.#waiter;
    if (waiter === null || this.#partBytes < waiter.bytes) return;
    this.#waiter = null;
    const all = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    this.#parts = all.length === waiter.bytes ? [] : [all.subarray(waiter.bytes)];
    this.#partBytes -= waiter.bytes;
    waiter.resolve(all.subarray(0, waiter.bytes));
  }

  destroy(): void {
    this.socket.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}
