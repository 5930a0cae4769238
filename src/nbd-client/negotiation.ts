/**
 * The client's side of the NBD handshake, as a pure coroutine: it yields what to send and what it needs, and is resumed
 * with it. Whoever drives it owns the socket (NBD specification, "Fixed newstyle negotiation").
 *
 * Order: TLS first, so that nothing that matters is said in clear text; then extended headers or structured replies;
 * metadata contexts; GO. A server that lacks an option is taken as it is, down to EXPORT_NAME; one that lacks TLS
 * where it is demanded is not.
 */
import * as nbd from '../wire/nbd-constants.ts';
import * as codec from '../wire/nbd-handshake.ts';
import type { BlockSizes, MetaContext } from '../wire/nbd-handshake.ts';
import { REPLY_EXTENDED, REPLY_SIMPLE, REPLY_STRUCTURED, type ReplyMode } from '../wire/nbd-transmission.ts';
import { NbdError } from './nbd-error.ts';

export type NegotiationWish = {
  readonly exportName: string;
  readonly tls: boolean;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly metaContexts: readonly string[];
};

/** What the handshake ended with: how to talk, and about what. */
export type Session = {
  readonly exportName: string;
  /** The server's own name of the export, if it told one. */
  readonly canonicalName: string | null;
  readonly description: string | null;
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly blockSizes: BlockSizes;
  readonly mode: ReplyMode;
  readonly metaContexts: readonly MetaContext[];
};

export type ListedExport = { readonly name: string; readonly description: string };

export type ClientStep =
  | { readonly kind: 'send'; readonly bytes: Buffer }
  /** Resume with a buffer of exactly that many bytes; it must stay as it is. */
  | { readonly kind: 'need'; readonly bytes: number }
  /** Resume when TLS runs. Bytes received but not asked for by now are an attack. */
  | { readonly kind: 'start-tls' };

type Steps<Result> = Generator<ClientStep, Result, Buffer>;
type Reply = { readonly type: number; readonly data: Buffer };

/** Longer than any reply that the specification allows. */
const REPLY_DATA_BYTES_MAX = 64 * 1024;
const LISTED_MAX = 1_000_000;
const CONTEXTS_MAX = 4096;
const SIZE_BYTES_MAX: number = Number.MAX_SAFE_INTEGER;

const protocolError = (why: string): NbdError => new NbdError('NBD_PROTOCOL', `the server broke the protocol: ${why}`);

function* send(bytes: Buffer): Steps<void> {
  yield { kind: 'send', bytes };
}

function* need(bytes: number): Steps<Buffer> {
  return bytes === 0 ? Buffer.alloc(0) : yield { kind: 'need', bytes };
}

/** Greeting and flags. @returns whether the server speaks fixed newstyle, and whether the zeroes are left out */
function* greet(): Steps<{ readonly fixed: boolean; readonly noZeroes: boolean }> {
  const magics = yield* need(16);
  if (magics.readUInt32BE(0) !== nbd.NBD_MAGIC_HIGH || magics.readUInt32BE(4) !== nbd.NBD_MAGIC_LOW)
    throw protocolError('it is no NBD server');
  if (magics.readUInt32BE(8) === nbd.NBD_OLDSTYLE_MAGIC_HIGH && magics.readUInt32BE(12) === nbd.NBD_OLDSTYLE_MAGIC_LOW) {
    throw new NbdError('NBD_PROTOCOL', 'the server speaks the oldstyle negotiation, which is not supported');
  }
  if (magics.readUInt32BE(8) !== nbd.NBD_OPTION_MAGIC_HIGH || magics.readUInt32BE(12) !== nbd.NBD_OPTION_MAGIC_LOW) {
    throw protocolError('its greeting is not known');
  }
  const flags = (yield* need(2)).readUInt16BE(0) & (nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES);
  yield* send(codec.encodeClientFlags(flags));
  return { fixed: (flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) !== 0, noZeroes: (flags & nbd.NBD_FLAG_NO_ZEROES) !== 0 };
}

function* readReply(option: number): Steps<Reply> {
  const header = codec.decodeOptionReplyHeader(yield* need(codec.OPTION_REPLY_HEADER_BYTES));
  if (header === null) throw protocolError('an option reply does not start with its magic');
  if (header.option !== option) throw protocolError(`a reply to option ${header.option} instead of ${option}`);
  if (header.dataBytes > REPLY_DATA_BYTES_MAX) throw protocolError(`an option reply of ${header.dataBytes} bytes`);
  return { type: header.type, data: yield* need(header.dataBytes) };
}

const isError = (reply: Reply): boolean => reply.type >= nbd.NBD_REP_ERROR_BIT;
const messageOf = (reply: Reply): string => codec.decodeString(reply.data) ?? '';

/** Asks for something that a server may not have. @returns whether it has */
function* askFor(option: number): Steps<boolean> {
  yield* send(codec.encodeOption(option));
  const reply = yield* readReply(option);
  if (isError(reply)) {
    refuseShutdown(reply);
    refuseTlsRequired(reply);
    return false;
  }
  if (reply.type !== nbd.NBD_REP_ACK) throw protocolError(`reply ${reply.type} to option ${option}`);
  return true;
}

const refuseShutdown = (reply: Reply): void => {
  if (reply.type === nbd.NBD_REP_ERR_SHUTDOWN) {
    throw new NbdError('NBD_ESHUTDOWN', 'the server is stopping', { serverMessage: messageOf(reply) });
  }
};

const refuseTlsRequired = (reply: Reply): void => {
  if (reply.type === nbd.NBD_REP_ERR_TLS_REQD) {
    throw new NbdError('NBD_TLS', 'the server insists on TLS: use nbds:// or nbds+unix://', { serverMessage: messageOf(reply) });
  }
};

function* startTls(fixed: boolean): Steps<void> {
  if (!fixed) throw new NbdError('NBD_TLS', 'the server is too old for TLS');
  yield* send(codec.encodeOption(nbd.NBD_OPT_STARTTLS));
  const reply = yield* readReply(nbd.NBD_OPT_STARTTLS);
  if (reply.type !== nbd.NBD_REP_ACK) {
    throw new NbdError('NBD_TLS', 'the server does not offer TLS, and this connection demands it', { serverMessage: messageOf(reply) });
  }
  yield { kind: 'start-tls' };
}

function* selectContexts(wish: NegotiationWish): Steps<readonly MetaContext[]> {
  const option = nbd.NBD_OPT_SET_META_CONTEXT;
  yield* send(codec.encodeOption(option, codec.encodeMetaContextRequest(wish.exportName, wish.metaContexts)));
  const contexts: MetaContext[] = [];
  for (;;) {
    const reply = yield* readReply(option);
    if (reply.type === nbd.NBD_REP_ACK) return contexts;
    if (isError(reply)) {
      refuseShutdown(reply);
      // The export itself may be refused; GO will say so in better words.
      return [];
    }
    const context = reply.type === nbd.NBD_REP_META_CONTEXT ? codec.decodeMetaContext(reply.data) : null;
    if (context === null || contexts.length === CONTEXTS_MAX) throw protocolError('a metadata context is not well formed');
    contexts.push(context);
  }
}

type Told = { -readonly [Key in 'canonicalName' | 'description' | 'sizeBytes' | 'transmissionFlags' | 'blockSizes']: Session[Key] };

const WANTED = [nbd.NBD_INFO_NAME, nbd.NBD_INFO_DESCRIPTION, nbd.NBD_INFO_BLOCK_SIZE];

const refusalOf = (reply: Reply, exportName: string): NbdError => {
  refuseTlsRequired(reply);
  refuseShutdown(reply);
  const words = messageOf(reply);
  const why = reply.type === nbd.NBD_REP_ERR_UNKNOWN ? 'there is no such export' : 'the server does not give it';
  return new NbdError('NBD_REFUSED', `export "${exportName}": ${why}${words === '' ? '' : ` (${words})`}`, { serverMessage: words });
};

/** GO. @returns null when the server has no such option */
function* go(exportName: string): Steps<Told | null> {
  yield* send(codec.encodeOption(nbd.NBD_OPT_GO, codec.encodeInfoRequest(exportName, WANTED)));
  const told: Told = { canonicalName: null, description: null, sizeBytes: -1, transmissionFlags: 0, blockSizes: codec.BLOCK_SIZES_DEFAULT };
  for (;;) {
    const reply = yield* readReply(nbd.NBD_OPT_GO);
    if (reply.type === nbd.NBD_REP_ERR_UNSUP) return null;
    if (isError(reply)) throw refusalOf(reply, exportName);
    if (reply.type === nbd.NBD_REP_ACK) {
      if (told.sizeBytes < 0) throw protocolError('it accepted the export without telling its size');
      return told;
    }
    const info = reply.type === nbd.NBD_REP_INFO ? codec.decodeInfoReply(reply.data) : null;
    if (info === null) throw protocolError('an information about the export is not well formed');
    takeInfo(info, told);
  }
}

const takeInfo = (info: codec.InfoReply, told: Told): void => {
  switch (info.kind) {
    case 'export':
      told.sizeBytes = info.sizeBytes;
      told.transmissionFlags = info.transmissionFlags;
      return;
    case 'name':
      told.canonicalName = info.text;
      return;
    case 'description':
      told.description = info.text;
      return;
    case 'block-size':
      told.blockSizes = checkedSizes(info.sizes);
      return;
    default:
  }
};

const checkedSizes = (sizes: BlockSizes): BlockSizes => {
  const { minimumBytes, preferredBytes, maximumBytes } = sizes;
  const isPower = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));
  if (
    !isPower(minimumBytes) ||
    minimumBytes > 65_536 ||
    !isPower(preferredBytes) ||
    preferredBytes < minimumBytes ||
    maximumBytes < minimumBytes
  ) {
    throw protocolError(`impossible block sizes ${minimumBytes}, ${preferredBytes}, ${maximumBytes}`);
  }
  return sizes;
};

function* enterByName(name: string, noZeroes: boolean): Steps<Told> {
  yield* send(codec.encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from(name, 'utf8')));
  const reply = yield* need(codec.EXPORT_NAME_REPLY_BYTES);
  if (!noZeroes) yield* need(codec.EXPORT_NAME_ZEROES_BYTES);
  return {
    canonicalName: null,
    description: null,
    sizeBytes: codec.readU64(reply, 0),
    transmissionFlags: reply.readUInt16BE(8),
    blockSizes: codec.BLOCK_SIZES_DEFAULT,
  };
}

/** @throws NbdError (from the coroutine) */
export function* negotiateExport(wish: NegotiationWish): Steps<Session> {
  const { fixed, noZeroes } = yield* greet();
  if (wish.tls) yield* startTls(fixed);
  let mode: ReplyMode = REPLY_SIMPLE;
  let metaContexts: readonly MetaContext[] = [];
  let told: Told | null = null;
  if (fixed) {
    if (wish.extendedHeaders && (yield* askFor(nbd.NBD_OPT_EXTENDED_HEADERS))) mode = REPLY_EXTENDED;
    else if (wish.structuredReplies && (yield* askFor(nbd.NBD_OPT_STRUCTURED_REPLY))) mode = REPLY_STRUCTURED;
    if (mode !== REPLY_SIMPLE && wish.metaContexts.length > 0) metaContexts = yield* selectContexts(wish);
    told = yield* go(wish.exportName);
  }
  if (told === null && mode === REPLY_EXTENDED) throw protocolError('it has extended headers, but not the option GO');
  told ??= yield* enterByName(wish.exportName, noZeroes);
  if (told.sizeBytes > SIZE_BYTES_MAX) throw new NbdError('NBD_PROTOCOL', 'the export is larger than 2^53 bytes, which is not supported');
  return { exportName: wish.exportName, ...told, mode, metaContexts };
}

/** All exports that the server shows, then a soft disconnect. */
export function* negotiateList(tls: boolean): Steps<readonly ListedExport[]> {
  const { fixed } = yield* greet();
  if (!fixed) throw new NbdError('NBD_PROTOCOL', 'the server is too old to list its exports');
  if (tls) yield* startTls(fixed);
  yield* send(codec.encodeOption(nbd.NBD_OPT_LIST));
  const exports: ListedExport[] = [];
  for (;;) {
    const reply = yield* readReply(nbd.NBD_OPT_LIST);
    if (reply.type === nbd.NBD_REP_ACK) break;
    if (isError(reply)) {
      refuseTlsRequired(reply);
      refuseShutdown(reply);
      throw new NbdError('NBD_REFUSED', 'the server does not list its exports', { serverMessage: messageOf(reply) });
    }
    const entry = reply.type === nbd.NBD_REP_SERVER ? codec.decodeServerEntry(reply.data) : null;
    if (entry === null || exports.length === LISTED_MAX) throw protocolError('an entry of the list is not well formed');
    exports.push(entry);
  }
  yield* send(codec.encodeOption(nbd.NBD_OPT_ABORT));
  return exports;
}
