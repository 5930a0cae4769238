/**
 * The NBD client: promises for the commands of the protocol, on one connection or several.
 *
 * A request that cannot succeed (beyond the end, not aligned, not offered by the server) fails here with the error that
 * the server would have given. One that is larger than the server takes is sent in parts, all of them at once; it fails
 * with the first part's error when the last part is done, so the caller's buffer is its own again at every settling.
 *
 * Order: calls that are under way at the same time may be done in any order. `flush` covers the writes whose promises
 * were resolved before it was called.
 */
import * as nbd from '../wire/nbd-constants.ts';
import { REPLY_EXTENDED, REPLY_SIMPLE } from '../wire/nbd-transmission.ts';
import { Call, type Extent } from './call.ts';
import { type ConnectOptions, settleOptions } from './connect-options.ts';
import { ConnectionPool } from './connection-pool.ts';
import { dial } from './dial.ts';
import { type ListedExport, negotiateList } from './negotiation.ts';
import { NbdError } from './nbd-error.ts';

export type NbdClientInfo = {
  readonly exportName: string;
  /** The server's own name for the export, and its description, where it tells them. */
  readonly canonicalName: string | null;
  readonly description: string | null;
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly readOnly: boolean;
  readonly rotational: boolean;
  readonly canFlush: boolean;
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canWriteZeroes: boolean;
  readonly canFastZero: boolean;
  readonly canCache: boolean;
  readonly canMultiConn: boolean;
  readonly blockSizes: { readonly minimumBytes: number; readonly preferredBytes: number; readonly maximumBytes: number };
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  /** The contexts that `blockStatus` can be asked for. */
  readonly metaContexts: readonly string[];
  readonly connections: number;
};

export type RequestOptions = {
  /** Gives the call up: it rejects at once with NBD_ABORTED. The server may still carry it out. */
  readonly signal?: AbortSignal;
};
export type WriteOptions = RequestOptions & {
  /** Durable before it resolves. Done by a flush where the server has no FUA. */
  readonly fua?: boolean;
};
export type ZeroOptions = WriteOptions & {
  /** Keep the space allocated. */
  readonly noHole?: boolean;
  /** Fail with NBD_ENOTSUP unless it is faster than writing zeros. */
  readonly fast?: boolean;
};
export type BlockStatusOptions = RequestOptions & {
  /** Default: all that were negotiated. */
  readonly contexts?: readonly string[];
};

/** Extents of each context, consecutive and exactly over the range that was asked for. */
export type BlockStatus = ReadonlyMap<string, readonly Extent[]>;

/** Without extended headers a length has 32 bits; cut on a multiple of every block size. */
const COMPACT_LENGTH_MAX = 0xffff_0000;

type Settle = (error: NbdError | null) => void;

export class NbdClient {
  readonly #pool: ConnectionPool;
  readonly #flags: number;
  readonly #sizeBytes: number;
  readonly #alignBytes: number;
  readonly #payloadBytesMax: number;
  readonly #effectBytesMax: number;

  /** Use `connect`. */
  constructor(pool: ConnectionPool) {
    const { session } = pool;
    this.#pool = pool;
    this.#flags = session.transmissionFlags;
    this.#sizeBytes = session.sizeBytes;
    this.#alignBytes = session.blockSizes.minimumBytes;
    const { minimumBytes, maximumBytes } = session.blockSizes;
    this.#payloadBytesMax = Math.max(minimumBytes, Math.floor(Math.min(maximumBytes, 0x4000_0000) / minimumBytes) * minimumBytes);
    this.#effectBytesMax = session.mode === REPLY_EXTENDED ? Number.MAX_SAFE_INTEGER : COMPACT_LENGTH_MAX;
  }

  get info(): NbdClientInfo {
    const { session } = this.#pool;
    const has = (flag: number): boolean => (this.#flags & flag) !== 0;
    return {
      exportName: session.exportName,
      canonicalName: session.canonicalName,
      description: session.description,
      sizeBytes: session.sizeBytes,
      transmissionFlags: this.#flags,
      readOnly: has(nbd.NBD_FLAG_READ_ONLY),
      rotational: has(nbd.NBD_FLAG_ROTATIONAL),
      canFlush: has(nbd.NBD_FLAG_SEND_FLUSH),
      canFua: has(nbd.NBD_FLAG_SEND_FUA),
      canTrim: has(nbd.NBD_FLAG_SEND_TRIM),
      canWriteZeroes: has(nbd.NBD_FLAG_SEND_WRITE_ZEROES),
      canFastZero: has(nbd.NBD_FLAG_SEND_FAST_ZERO),
      canCache: has(nbd.NBD_FLAG_SEND_CACHE),
      canMultiConn: has(nbd.NBD_FLAG_CAN_MULTI_CONN),
      blockSizes: session.blockSizes,
      structuredReplies: session.mode !== REPLY_SIMPLE,
      extendedHeaders: session.mode === REPLY_EXTENDED,
      metaContexts: session.metaContexts.map((context) => context.name),
      connections: this.#pool.connections,
    };
  }

  /** False once the client was closed or is broken. */
  get isOpen(): boolean {
    return this.#pool.isOpen;
  }

  read(offset: number, length: number, options?: RequestOptions): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const problem = this.#problemOf(nbd.NBD_CMD_READ, offset, length);
      if (problem !== null) return reject(problem);
      const target = Buffer.allocUnsafe(length);
      this.#issue(nbd.NBD_CMD_READ, 0, offset, length, null, target, options, (error) =>
        error === null ? resolve(target) : reject(error),
      );
    });
  }

  /** Fills `target`. It belongs to the client until the promise settles. */
  readInto(target: Buffer, offset: number, options?: RequestOptions): Promise<void> {
    return this.#perform(nbd.NBD_CMD_READ, 0, offset, target.length, null, target, options);
  }

  /** `data` must stay as it is until the promise settles. */
  write(offset: number, data: Buffer, options?: WriteOptions): Promise<void> {
    return this.#durably(nbd.NBD_CMD_WRITE, 0, offset, data.length, data, options);
  }

  /** Makes durable what was written: the writes that had been answered when this was called. */
  flush(options?: RequestOptions): Promise<void> {
    return this.#perform(nbd.NBD_CMD_FLUSH, 0, 0, 0, null, null, options);
  }

  /** Says that the content is not needed any more. What is read there afterwards is undefined. */
  trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.#durably(nbd.NBD_CMD_TRIM, 0, offset, length, null, options);
  }

  writeZeroes(offset: number, length: number, options?: ZeroOptions): Promise<void> {
    let flags = options?.noHole === true ? nbd.NBD_CMD_FLAG_NO_HOLE : 0;
    if (options?.fast === true) {
      if ((this.#flags & nbd.NBD_FLAG_SEND_FAST_ZERO) === 0) return Promise.reject(notOffered('fast zeroing'));
      flags |= nbd.NBD_CMD_FLAG_FAST_ZERO;
    }
    return this.#durably(nbd.NBD_CMD_WRITE_ZEROES, flags, offset, length, null, options);
  }

  /** Asks the server to have the range at hand. */
  cache(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#perform(nbd.NBD_CMD_CACHE, 0, offset, length, null, null, options);
  }

  /** What the server knows about a range, asked for as often as it takes to cover it. */
  async blockStatus(offset: number, length: number, options?: BlockStatusOptions): Promise<BlockStatus> {
    const names = options?.contexts ?? this.#pool.session.metaContexts.map((context) => context.name);
    const missing = names.find((name) => !this.#pool.session.metaContexts.some((context) => context.name === name));
    if (names.length === 0) throw notOffered('block status');
    if (missing !== undefined) throw notOffered(`the metadata context "${missing}"`);
    const problem = this.#problemOf(nbd.NBD_CMD_BLOCK_STATUS, offset, length);
    if (problem !== null) throw problem;
    const found = new Map<string, Extent[]>(names.map((name) => [name, []]));
    const end = offset + length;
    let at = offset;
    while (at < end) {
      const asked = Math.min(end - at, this.#effectBytesMax);
      const told = await this.#statusOnce(at, asked, options);
      let coveredTo = end;
      for (const [name, extents] of found) coveredTo = Math.min(coveredTo, takeExtents(extents, told.get(name) ?? [], at, end));
      if (coveredTo <= at) throw new NbdError('NBD_PROTOCOL', 'the server left a metadata context out of its block status');
      at = coveredTo;
    }
    return found;
  }

  /** Waits for what is under way, then says goodbye to the server. */
  disconnect(): Promise<void> {
    return this.#pool.disconnect();
  }

  /** Ends it at once; what is under way fails with NBD_CLOSED. */
  destroy(): void {
    this.#pool.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect();
  }

  #statusOnce(offset: number, length: number, options?: RequestOptions): Promise<ReadonlyMap<string, readonly Extent[]>> {
    return new Promise((resolve, reject) => {
      const call: Call = new Call(nbd.NBD_CMD_BLOCK_STATUS, 0, offset, length, null, null, (error) => {
        if (error !== null) return reject(error);
        // Ids belong to the connection that answered.
        const contexts = call.session?.metaContexts ?? [];
        resolve(new Map(contexts.map((context) => [context.name, call.extents?.get(context.id) ?? []])));
      });
      this.#launch(call, options);
    });
  }

  /** A command that writes, durable where the caller wants it so. */
  #durably(
    type: number,
    flags: number,
    offset: number,
    length: number,
    data: Buffer | null,
    options: WriteOptions | undefined,
  ): Promise<void> {
    if (options?.fua !== true) return this.#perform(type, flags, offset, length, data, null, options);
    if ((this.#flags & nbd.NBD_FLAG_SEND_FUA) !== 0)
      return this.#perform(type, flags | nbd.NBD_CMD_FLAG_FUA, offset, length, data, null, options);
    if ((this.#flags & nbd.NBD_FLAG_SEND_FLUSH) === 0) return Promise.reject(notOffered('FUA or flush'));
    return this.#perform(type, flags, offset, length, data, null, options).then(() => this.flush(options));
  }

  #perform(
    type: number,
    flags: number,
    offset: number,
    length: number,
    data: Buffer | null,
    target: Buffer | null,
    options: RequestOptions | undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const problem = this.#problemOf(type, offset, length);
      if (problem !== null) reject(problem);
      else this.#issue(type, flags, offset, length, data, target, options, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  /** One call, or as many as the server's limits make of it. */
  #issue(
    type: number,
    flags: number,
    offset: number,
    length: number,
    data: Buffer | null,
    target: Buffer | null,
    options: RequestOptions | undefined,
    settle: Settle,
  ): void {
    const hasPayload = type === nbd.NBD_CMD_READ || type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_CACHE;
    const partBytes = hasPayload ? this.#payloadBytesMax : this.#effectBytesMax;
    if (length <= partBytes) {
      this.#launch(new Call(type, flags, offset, length, data, target, settle), options);
      return;
    }
    let left = Math.ceil(length / partBytes);
    let failure: NbdError | null = null;
    const onPart: Settle = (error) => {
      failure ??= error;
      left -= 1;
      if (left === 0) settle(failure);
    };
    for (let from = 0; from < length; from += partBytes) {
      const to = Math.min(from + partBytes, length);
      const part = new Call(
        type,
        flags,
        offset + from,
        to - from,
        data?.subarray(from, to) ?? null,
        target?.subarray(from, to) ?? null,
        onPart,
      );
      this.#launch(part, options);
    }
  }

  #launch(call: Call, options: RequestOptions | undefined): void {
    if (options?.signal !== undefined) call.watch(options.signal);
    if (!call.isOver) this.#pool.submit(call);
  }

  /** Why the server would refuse it, or null. */
  #problemOf(type: number, offset: number, length: number): NbdError | null {
    const isWriting = type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES || type === nbd.NBD_CMD_TRIM;
    if (!this.#isOffered(type)) return notOffered(NOT_OFFERED[type] ?? `command ${type}`);
    if (type === nbd.NBD_CMD_FLUSH) return null;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length <= 0) {
      return new NbdError('NBD_EINVAL', `offset ${offset} and length ${length} are no range`);
    }
    if (isWriting && (this.#flags & nbd.NBD_FLAG_READ_ONLY) !== 0) return new NbdError('NBD_EPERM', 'the export is read-only');
    if (offset + length > this.#sizeBytes) {
      const code = type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES ? 'NBD_ENOSPC' : 'NBD_EINVAL';
      return new NbdError(code, `${length} bytes at ${offset} lead beyond the end of the export at ${this.#sizeBytes}`);
    }
    if (offset % this.#alignBytes !== 0 || length % this.#alignBytes !== 0) {
      return new NbdError(
        'NBD_EINVAL',
        `offset ${offset} and length ${length} are not multiples of the server's block size ${this.#alignBytes}`,
      );
    }
    return null;
  }

  #isOffered(type: number): boolean {
    const flag = OFFERING_FLAG[type];
    return flag === undefined || (this.#flags & flag) !== 0;
  }
}

const OFFERING_FLAG: Readonly<Record<number, number>> = {
  [nbd.NBD_CMD_FLUSH]: nbd.NBD_FLAG_SEND_FLUSH,
  [nbd.NBD_CMD_TRIM]: nbd.NBD_FLAG_SEND_TRIM,
  [nbd.NBD_CMD_CACHE]: nbd.NBD_FLAG_SEND_CACHE,
  [nbd.NBD_CMD_WRITE_ZEROES]: nbd.NBD_FLAG_SEND_WRITE_ZEROES,
};
const NOT_OFFERED: Readonly<Record<number, string>> = {
  [nbd.NBD_CMD_FLUSH]: 'flush',
  [nbd.NBD_CMD_TRIM]: 'trim',
  [nbd.NBD_CMD_CACHE]: 'cache',
  [nbd.NBD_CMD_WRITE_ZEROES]: 'write-zeroes',
};

const notOffered = (what: string): NbdError => new NbdError('NBD_ENOTSUP', `the server does not offer ${what}`);

/**
 * Appends what a reply adds to one context's extents, clipped to the range and joined where the flags are equal.
 * @returns where the context is known up to
 */
const takeExtents = (into: Extent[], told: readonly Extent[], from: number, end: number): number => {
  const last = into.at(-1);
  let known = last === undefined ? from : last.offset + last.length;
  for (const extent of told) {
    const to = Math.min(extent.offset + extent.length, end);
    if (to <= known) continue;
    const before = into.at(-1);
    if (before !== undefined && before.flags === extent.flags) into[into.length - 1] = { ...before, length: to - before.offset };
    else into.push({ offset: known, length: to - known, flags: extent.flags });
    known = to;
  }
  return known;
};

/**
 * Connects to an export.
 * @throws NbdError `NBD_USAGE`, `NBD_CONNECT`, `NBD_TLS`, `NBD_REFUSED`, `NBD_PROTOCOL`, `NBD_ESHUTDOWN`, `NBD_TIMEOUT`, `NBD_ABORTED`
 */
export const connect = async (where: string | ConnectOptions): Promise<NbdClient> =>
  new NbdClient(await ConnectionPool.open(await settleOptions(where)));

/** The exports that a server shows. The export in the URI does not matter. */
export const listExports = async (where: string | ConnectOptions): Promise<readonly ListedExport[]> => {
  const options = await settleOptions(where);
  const { stream, result } = await dial(options, negotiateList(options.tls !== null), options.signal);
  stream.end();
  return result;
};
