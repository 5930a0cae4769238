/**
 * What the server's side of the NBD handshake (nbd-negotiation.ts) and whoever drives it tell each other: the policy, the
 * steps that the driver carries out, and what it knows of exports.
 */
import type { BlockSizes, MetaContext } from './nbd-handshake.ts';
import type { NegotiationLimits } from './nbd-negotiation-limits.ts';

/** `optional`: a client may ask for TLS, and single exports may insist on it. `required`: nothing goes without. */
export type TlsPolicy = 'off' | 'optional' | 'required';

export type NegotiationPolicy = {
  readonly tls: TlsPolicy;
  /** TLS runs already (a listener that starts with it); `resumeTls` sets it otherwise. */
  readonly tlsActive?: boolean;
  /** Offer 64-bit headers; default true. */
  readonly extendedHeaders?: boolean;
  readonly limits?: Partial<NegotiationLimits>;
};

/** What the driver knows of an export that this client may have. */
export type ExportInfo = {
  /** The name that LIST shows; a client may have asked by number. */
  readonly canonicalName: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** Without SEND_DF: the negotiation adds it when the client can have it. */
  readonly transmissionFlags: number;
  readonly blockSizes: BlockSizes;
  /** Names of the metadata contexts that it offers. */
  readonly metaContexts: readonly string[];
};

export type RefusalReason = 'unknown' | 'policy' | 'tls-required' | 'shutdown';
export type ExportRefusal = { readonly refused: RefusalReason; readonly message: string };
export type ListEntry = { readonly name: string; readonly description: string };

export type ExportPurpose = 'info' | 'go' | 'export-name' | 'meta-context';

export type CloseReason = 'client-abort' | 'export-refused' | 'tls-required' | 'protocol' | 'limit';

export type TransmissionStart = {
  readonly kind: 'transmission';
  /** As the client named it. */
  readonly exportName: string;
  readonly export: ExportInfo;
  /** As they were sent to the client. */
  readonly transmissionFlags: number;
  readonly noZeroes: boolean;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  /** In the order of their ids, which count from 0. */
  readonly metaContexts: readonly MetaContext[];
  /** Bytes received behind the handshake: the start of the first request. */
  readonly readAhead: Buffer;
};

export type NegotiationStep =
  | { readonly kind: 'send'; readonly bytes: Buffer }
  /** Answer with `resumeExport`. */
  | { readonly kind: 'need-export'; readonly name: string; readonly purpose: ExportPurpose }
  /** Answer with `resumeList`. */
  | { readonly kind: 'need-list' }
  /** Do the TLS handshake on the socket, then call `resumeTls`; feed nothing before. */
  | { readonly kind: 'start-tls' }
  | TransmissionStart
  | { readonly kind: 'close'; readonly reason: CloseReason; readonly detail: string };
