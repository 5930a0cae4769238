/**
 * The server's side of the NBD handshake, as a pure state machine: bytes in, steps out (NBD specification,
 * "Fixed newstyle negotiation").
 *
 * Whoever drives it owns the socket, does the steps in order, and answers what was asked with the matching `resume`
 * call; until then received bytes are only kept. Looking up an export is left to the driver because tables live on
 * another thread.
 *
 * Invariants: no input throws; the steps do not depend on how the bytes were split; memory is bounded by one option's
 * data plus `pendingBytesMax`; after `close` or `transmission` nothing more comes out; nothing that was negotiated or
 * received in clear text survives STARTTLS.
 */
import * as nbd from './nbd-constants.ts';
import * as codec from './nbd-handshake.ts';
import type { MetaContext } from './nbd-handshake.ts';
import { isQueryWellFormed, listContexts, selectContexts } from './nbd-meta-context.ts';
import { NEGOTIATION_LIMITS, limitBroken } from './nbd-negotiation-limits.ts';
import type { NegotiationCounts, NegotiationLimits } from './nbd-negotiation-limits.ts';
import type {
  CloseReason,
  ExportInfo,
  ExportPurpose,
  ExportRefusal,
  ListEntry,
  NegotiationPolicy,
  NegotiationStep,
  RefusalReason,
} from './nbd-negotiation-steps.ts';

const HANDSHAKE_FLAGS = nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES;
const EMPTY = Buffer.alloc(0);
const NAME_TOO_LONG = `an export name has at most ${nbd.NBD_STRING_BYTES_MAX} bytes`;
const TLS_NEEDED = 'this server goes on only with TLS';

const REFUSAL_REPLY: Readonly<Record<RefusalReason, number>> = {
  unknown: nbd.NBD_REP_ERR_UNKNOWN,
  policy: nbd.NBD_REP_ERR_POLICY,
  'tls-required': nbd.NBD_REP_ERR_TLS_REQD,
  shutdown: nbd.NBD_REP_ERR_SHUTDOWN,
};

type Phase = 'client-flags' | 'option-header' | 'option-data' | 'option-skip' | 'export' | 'list' | 'tls' | 'over';
type ExportAnswer = ExportInfo | ExportRefusal;

export class ServerNegotiation {
  readonly #policy: NegotiationPolicy;
  readonly #limits: NegotiationLimits;
  readonly #counts: NegotiationCounts = { options: 0, refusals: 0, lists: 0, receivedBytes: 0 };
  #phase: Phase = 'client-flags';
  #pending: Buffer = EMPTY;
  #steps: NegotiationStep[] = [];
  #out: Buffer[] = [];
  #option = 0;
  #optionBytes = 0;
  #onExport: ((answer: ExportAnswer) => void) | null = null;

  #fixed = false;
  #noZeroes = false;
  #tlsActive: boolean;
  #structured = false;
  #extended = false;
  /** What SET_META_CONTEXT selected last, and for which name. */
  #contexts: readonly MetaContext[] = [];
  #contextsFor: string | null = null;

  constructor(policy: NegotiationPolicy) {
    this.#policy = policy;
    this.#limits = { ...NEGOTIATION_LIMITS, ...policy.limits };
    this.#tlsActive = policy.tlsActive ?? false;
  }

  /** The first bytes on the wire; send them before anything else. */
  greeting(): Buffer {
    return codec.encodeGreeting(HANDSHAKE_FLAGS);
  }

  get isOver(): boolean {
    return this.#phase === 'over';
  }

  /** Received bytes; they are copied where they have to be kept, so the caller may use its buffer again. */
  feed(bytes: Buffer): NegotiationStep[] {
    if (this.#phase === 'over') return [];
    if (this.#phase === 'tls') throw new Error('bytes were fed while TLS starts: they belong to the TLS handshake');
    this.#counts.receivedBytes += bytes.length;
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    this.#advance();
    return this.#takeSteps(this.#pending.buffer === bytes.buffer);
  }

  resumeExport(answer: ExportAnswer): NegotiationStep[] {
    const onExport = this.#onExport;
    if (this.#phase === 'over') return [];
    if (this.#phase !== 'export' || onExport === null) throw new Error('no export was asked for');
    this.#onExport = null;
    this.#phase = 'option-header';
    onExport(answer);
    this.#advance();
    return this.#takeSteps(false);
  }

  resumeList(entries: readonly ListEntry[] | ExportRefusal): NegotiationStep[] {
    if (this.#phase === 'over') return [];
    if (this.#phase !== 'list') throw new Error('no list was asked for');
    this.#phase = 'option-header';
    if ('refused' in entries) {
      this.#refuseWith(entries);
    } else {
      for (const entry of entries) this.#reply(nbd.NBD_REP_SERVER, codec.encodeServerEntry(entry.name, entry.description));
      this.#reply(nbd.NBD_REP_ACK);
    }
    this.#advance();
    return this.#takeSteps(false);
  }

  /** TLS runs. What the client negotiated before is forgotten (specification, NBD_OPT_STARTTLS). */
  resumeTls(): void {
    if (this.#phase !== 'tls') throw new Error('TLS was not asked for');
    this.#phase = 'option-header';
    this.#tlsActive = true;
    this.#structured = false;
    this.#extended = false;
    this.#contexts = [];
    this.#contextsFor = null;
  }

  #takeSteps(ownPending: boolean): NegotiationStep[] {
    if (ownPending && this.#pending.length > 0) this.#pending = Buffer.from(this.#pending);
    this.#flushOut();
    const steps = this.#steps;
    this.#steps = [];
    return steps;
  }

  #advance(): void {
    do {
      const broken = limitBroken(this.#counts, this.#limits);
      if (broken !== null) return this.#close('limit', broken);
    } while (this.#step());
    const waits = this.#phase === 'export' || this.#phase === 'list';
    if (waits && this.#pending.length > this.#limits.pendingBytesMax) this.#close('limit', 'too many bytes while an answer was pending');
  }

  /** One unit of progress; false when more bytes or an answer are needed. */
  #step(): boolean {
    switch (this.#phase) {
      case 'client-flags':
        return this.#whole(4, (bytes) => this.#onClientFlags(bytes.readUInt32BE(0)));
      case 'option-header':
        return this.#whole(codec.OPTION_HEADER_BYTES, (header) => this.#onOptionHeader(header));
      case 'option-data':
        return this.#whole(this.#optionBytes, (data) => {
          this.#phase = 'option-header';
          this.#onOption(data);
        });
      case 'option-skip':
        return this.#skip();
      default:
        return false;
    }
  }

  #whole(bytes: number, use: (taken: Buffer) => void): boolean {
    if (this.#pending.length < bytes) return false;
    const taken = this.#pending.subarray(0, bytes);
    this.#pending = this.#pending.subarray(bytes);
    use(taken);
    return true;
  }

  /** Drops the data of an option that is too long to be kept, then refuses the option. */
  #skip(): boolean {
    const dropped = Math.min(this.#optionBytes, this.#pending.length);
    this.#pending = this.#pending.subarray(dropped);
    this.#optionBytes -= dropped;
    if (this.#optionBytes > 0) return false;
    this.#phase = 'option-header';
    if (this.#lacksTls()) this.#refuse(nbd.NBD_REP_ERR_TLS_REQD, TLS_NEEDED);
    else this.#refuse(nbd.NBD_REP_ERR_TOO_BIG, 'the option has too much data');
    return true;
  }

  #onClientFlags(flags: number): void {
    if ((flags & ~HANDSHAKE_FLAGS) !== 0) return this.#close('protocol', `unknown client flags 0x${flags.toString(16)}`);
    this.#fixed = (flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & nbd.NBD_FLAG_NO_ZEROES) !== 0;
    this.#phase = 'option-header';
  }

  #onOptionHeader(header: Buffer): void {
    if (header.readUInt32BE(0) !== nbd.NBD_OPTION_MAGIC_HIGH || header.readUInt32BE(4) !== nbd.NBD_OPTION_MAGIC_LOW) {
      return this.#close('protocol', 'an option does not start with its magic');
    }
    this.#counts.options += 1;
    this.#option = header.readUInt32BE(8);
    this.#optionBytes = header.readUInt32BE(12);
    // Without fixed newstyle the client could not read an option reply, and TLS cannot be asked of it.
    if (!this.#fixed && this.#option !== nbd.NBD_OPT_EXPORT_NAME) {
      return this.#close('protocol', `option ${this.#option} from a client without fixed newstyle`);
    }
    const tooLong = this.#optionBytes > this.#limits.optionDataBytesMax;
    if (tooLong && (this.#option === nbd.NBD_OPT_EXPORT_NAME || this.#optionBytes > this.#limits.optionSkipBytesMax)) {
      return this.#close('limit', `option ${this.#option} announces ${this.#optionBytes} bytes of data`);
    }
    this.#phase = tooLong ? 'option-skip' : 'option-data';
  }

  #onOption(data: Buffer): void {
    if (this.#lacksTls() && this.#option !== nbd.NBD_OPT_STARTTLS && this.#option !== nbd.NBD_OPT_ABORT) {
      if (this.#option === nbd.NBD_OPT_EXPORT_NAME) return this.#close('tls-required', 'EXPORT_NAME before TLS');
      return this.#refuse(nbd.NBD_REP_ERR_TLS_REQD, TLS_NEEDED);
    }
    switch (this.#option) {
      case nbd.NBD_OPT_EXPORT_NAME:
        return this.#onExportName(data);
      case nbd.NBD_OPT_ABORT:
        this.#reply(nbd.NBD_REP_ACK);
        return this.#close('client-abort', 'the client gave up the negotiation');
      case nbd.NBD_OPT_LIST:
        return this.#withoutData(data, () => {
          this.#counts.lists += 1;
          this.#ask('list', { kind: 'need-list' });
        });
      case nbd.NBD_OPT_STARTTLS:
        return this.#withoutData(data, () => this.#onStartTls());
      case nbd.NBD_OPT_INFO:
      case nbd.NBD_OPT_GO:
        return this.#onInfo(data);
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        return this.#withoutData(data, () => this.#onStructuredReply());
      case nbd.NBD_OPT_EXTENDED_HEADERS:
        if (this.#policy.extendedHeaders === false) return this.#refuse(nbd.NBD_REP_ERR_UNSUP, 'extended headers are switched off');
        return this.#withoutData(data, () => {
          this.#extended = true;
          this.#reply(nbd.NBD_REP_ACK);
        });
      case nbd.NBD_OPT_LIST_META_CONTEXT:
      case nbd.NBD_OPT_SET_META_CONTEXT:
        return this.#onMetaContext(data);
      default:
        return this.#refuse(nbd.NBD_REP_ERR_UNSUP, `option ${this.#option} is not known`);
    }
  }

  #lacksTls(): boolean {
    return this.#policy.tls === 'required' && !this.#tlsActive;
  }

  #withoutData(data: Buffer, act: () => void): void {
    if (data.length === 0) act();
    else this.#refuse(nbd.NBD_REP_ERR_INVALID, 'this option takes no data');
  }

  #onStartTls(): void {
    if (this.#policy.tls === 'off') return this.#refuse(nbd.NBD_REP_ERR_POLICY, 'TLS is not set up on this server');
    if (this.#tlsActive) return this.#refuse(nbd.NBD_REP_ERR_INVALID, 'TLS runs already');
    // A client must wait for the answer. Bytes that are here already are clear text that somebody could have slipped in.
    if (this.#pending.length > 0) return this.#close('protocol', 'bytes behind STARTTLS, before its answer');
    this.#reply(nbd.NBD_REP_ACK);
    this.#ask('tls', { kind: 'start-tls' });
  }

  #onStructuredReply(): void {
    if (this.#extended) return this.#refuse(nbd.NBD_REP_ERR_EXT_HEADER_REQD, 'extended headers are in use and include structured replies');
    this.#structured = true;
    this.#reply(nbd.NBD_REP_ACK);
  }

  #onExportName(data: Buffer): void {
    const name = codec.decodeString(data);
    if (name === null) return this.#close('export-refused', 'the export name is not a valid string');
    if (this.#extended) return this.#close('protocol', 'EXPORT_NAME after extended headers');
    this.#askExport(name, 'export-name', (answer) => {
      if ('refused' in answer) return this.#close('export-refused', answer.message);
      const flags = this.#flagsOf(answer);
      this.#out.push(codec.encodeExportNameReply(answer.sizeBytes, flags, this.#noZeroes));
      this.#startTransmission(name, answer, flags);
    });
  }

  #onInfo(data: Buffer): void {
    const request = codec.decodeInfoRequest(data);
    if ((request?.name.length ?? 0) > nbd.NBD_STRING_BYTES_MAX) return this.#refuse(nbd.NBD_REP_ERR_TOO_BIG, NAME_TOO_LONG);
    const name = request === null ? null : codec.decodeString(request.name);
    if (request === null || name === null) return this.#refuse(nbd.NBD_REP_ERR_INVALID, 'the request for information is not well formed');
    const goes = this.#option === nbd.NBD_OPT_GO;
    this.#askExport(name, goes ? 'go' : 'info', (answer) => {
      if ('refused' in answer) return this.#refuseWith(answer);
      const flags = this.#flagsOf(answer);
      this.#reply(nbd.NBD_REP_INFO, codec.encodeInfoExport(answer.sizeBytes, flags));
      if (request.wanted.has(nbd.NBD_INFO_NAME))
        this.#reply(nbd.NBD_REP_INFO, codec.encodeInfoText(nbd.NBD_INFO_NAME, answer.canonicalName));
      if (request.wanted.has(nbd.NBD_INFO_DESCRIPTION)) {
        this.#reply(nbd.NBD_REP_INFO, codec.encodeInfoText(nbd.NBD_INFO_DESCRIPTION, answer.description));
      }
      this.#reply(nbd.NBD_REP_INFO, codec.encodeInfoBlockSize(answer.blockSizes));
      this.#reply(nbd.NBD_REP_ACK);
      if (goes) this.#startTransmission(name, answer, flags);
    });
  }

  #onMetaContext(data: Buffer): void {
    const selects = this.#option === nbd.NBD_OPT_SET_META_CONTEXT;
    if (selects) {
      // Also a request that fails ends what an earlier one selected.
      this.#contexts = [];
      this.#contextsFor = null;
    }
    const request = codec.decodeMetaContextRequest(data);
    if ((request?.name.length ?? 0) > nbd.NBD_STRING_BYTES_MAX) return this.#refuse(nbd.NBD_REP_ERR_TOO_BIG, NAME_TOO_LONG);
    const name = request === null ? null : codec.decodeString(request.name);
    if (request === null || name === null || !request.queries.every(isQueryWellFormed)) {
      return this.#refuse(nbd.NBD_REP_ERR_INVALID, 'the metadata contexts asked for are not well formed');
    }
    if (!this.#structured && !this.#extended) return this.#refuse(nbd.NBD_REP_ERR_INVALID, 'metadata contexts need structured replies');
    this.#askExport(name, 'meta-context', (answer) => {
      if ('refused' in answer) return this.#refuseWith(answer);
      const names = selects ? selectContexts(answer.metaContexts, request.queries) : listContexts(answer.metaContexts, request.queries);
      const contexts = names.map((context, index) => ({ id: selects ? index : 0, name: context }));
      for (const context of contexts) this.#reply(nbd.NBD_REP_META_CONTEXT, codec.encodeMetaContext(context.id, context.name));
      if (selects) {
        this.#contexts = contexts;
        this.#contextsFor = name;
      }
      this.#reply(nbd.NBD_REP_ACK);
    });
  }

  #flagsOf(info: ExportInfo): number {
    const flags = info.transmissionFlags & ~nbd.NBD_FLAG_SEND_DF;
    return this.#structured || this.#extended ? flags | nbd.NBD_FLAG_SEND_DF : flags;
  }

  #startTransmission(exportName: string, info: ExportInfo, transmissionFlags: number): void {
    this.#flushOut();
    const readAhead = Buffer.from(this.#pending);
    this.#pending = EMPTY;
    this.#phase = 'over';
    this.#steps.push({
      kind: 'transmission',
      exportName,
      export: info,
      transmissionFlags,
      noZeroes: this.#noZeroes,
      structuredReplies: this.#structured || this.#extended,
      extendedHeaders: this.#extended,
      metaContexts: this.#contextsFor === exportName ? this.#contexts : [],
      readAhead,
    });
  }

  #askExport(name: string, purpose: ExportPurpose, onExport: (answer: ExportAnswer) => void): void {
    this.#onExport = onExport;
    this.#ask('export', { kind: 'need-export', name, purpose });
  }

  #ask(phase: 'export' | 'list' | 'tls', step: NegotiationStep): void {
    this.#flushOut();
    this.#phase = phase;
    this.#steps.push(step);
  }

  #reply(type: number, data: Buffer | null = null): void {
    this.#out.push(codec.encodeOptionReply(this.#option, type, data));
  }

  #refuse(type: number, message: string): void {
    this.#counts.refusals += 1;
    this.#reply(type, codec.encodeMessage(message));
  }

  /** TLS may be called for by INFO and GO only, and not where it runs already (specification, "SELECTIVETLS mode"). */
  #refuseWith({ refused, message }: ExportRefusal): void {
    const mayCallForTls = !this.#tlsActive && (this.#option === nbd.NBD_OPT_INFO || this.#option === nbd.NBD_OPT_GO);
    this.#refuse(REFUSAL_REPLY[refused === 'tls-required' && !mayCallForTls ? 'policy' : refused], message);
  }

  #close(reason: CloseReason, detail: string): void {
    this.#flushOut();
    this.#pending = EMPTY;
    this.#phase = 'over';
    this.#steps.push({ kind: 'close', reason, detail });
  }

  #flushOut(): void {
    if (this.#out.length === 0) return;
    const bytes = this.#out.length === 1 ? (this.#out[0] ?? EMPTY) : Buffer.concat(this.#out);
    this.#out = [];
    this.#steps.push({ kind: 'send', bytes });
  }
}
