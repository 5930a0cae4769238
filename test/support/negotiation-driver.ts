/**
 * Drives a ServerNegotiation as a server would, without a socket: answers look-ups from a fixed set of exports at once,
 * takes the reply stream apart again. Used by the unit and property tests of the handshake.
 */
import { OPTION_REPLY_HEADER_BYTES, decodeOptionReplyHeader } from '../../src/wire/nbd-handshake.ts';
import { ServerNegotiation } from '../../src/wire/nbd-negotiation.ts';
import type {
  CloseReason,
  ExportInfo,
  NegotiationPolicy,
  NegotiationStep,
  TransmissionStart,
} from '../../src/wire/nbd-negotiation-steps.ts';
import { NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH } from '../../src/wire/nbd-constants.ts';

export const exportInfo = (canonicalName: string, changes: Partial<ExportInfo> = {}): ExportInfo => ({
  canonicalName,
  description: `volume ${canonicalName}`,
  sizeBytes: 10 * 1024 ** 3,
  transmissionFlags: NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
  blockSizes: { minimumBytes: 1, preferredBytes: 4096, maximumBytes: 32 * 1024 ** 2 },
  metaContexts: ['base:allocation', 'twinvol:dirty', `qemu:dirty-bitmap:${canonicalName}`],
  ...changes,
});

export type Outcome = {
  sent: Buffer;
  asked: string[];
  transmission: TransmissionStart | null;
  closed: { reason: CloseReason; detail: string } | null;
  tlsStarts: number;
};

export class NegotiationDriver {
  readonly negotiation: ServerNegotiation;
  readonly outcome: Outcome = { sent: Buffer.alloc(0), asked: [], transmission: null, closed: null, tlsStarts: 0 };
  readonly #exports: ReadonlyMap<string, ExportInfo>;

  constructor(
    policy: NegotiationPolicy = { tls: 'off' },
    exports: ReadonlyMap<string, ExportInfo> = new Map([['vol', exportInfo('vol')]]),
  ) {
    this.negotiation = new ServerNegotiation(policy);
    this.#exports = exports;
  }

  feed(bytes: Buffer): this {
    if (!this.negotiation.isOver) this.#act(this.negotiation.feed(bytes));
    return this;
  }

  /** All replies so far, in order: option, type, data. */
  replies(): Array<{ option: number; type: number; data: Buffer }> {
    const replies = [];
    let at = 0;
    while (this.outcome.sent.length - at >= OPTION_REPLY_HEADER_BYTES) {
      const header = decodeOptionReplyHeader(this.outcome.sent.subarray(at, at + OPTION_REPLY_HEADER_BYTES));
      if (header === null) throw new Error('the reply stream is broken');
      at += OPTION_REPLY_HEADER_BYTES;
      replies.push({ option: header.option, type: header.type, data: this.outcome.sent.subarray(at, at + header.dataBytes) });
      at += header.dataBytes;
    }
    return replies;
  }

  types(): number[] {
    return this.replies().map((reply) => reply.type);
  }

  #act(steps: readonly NegotiationStep[]): void {
    for (const step of steps) {
      switch (step.kind) {
        case 'send':
          this.outcome.sent = Buffer.concat([this.outcome.sent, step.bytes]);
          break;
        case 'need-export': {
          this.outcome.asked.push(`${step.purpose}:${step.name}`);
          const info = this.#exports.get(step.name);
          this.#act(this.negotiation.resumeExport(info ?? { refused: 'unknown', message: `no export "${step.name}"` }));
          break;
        }
        case 'need-list':
          this.outcome.asked.push('list');
          this.#act(
            this.negotiation.resumeList(
              [...this.#exports.values()].map((info) => ({ name: info.canonicalName, description: info.description })),
            ),
          );
          break;
        case 'start-tls':
          this.outcome.tlsStarts += 1;
          this.negotiation.resumeTls();
          break;
        case 'transmission':
          this.outcome.transmission = step;
          break;
        default:
          this.outcome.closed = { reason: step.reason, detail: step.detail };
      }
    }
  }
}
