/**
 * Messages between the main thread and a lane. A port delivers in order, so a volume or pair that was told before an
 * answer is known when the answer arrives; `barrier` is answered when all before it took effect.
 */
import type { ExportGrant, ExportRefusal, PeerIdentity } from './plane-api.ts';
import type { LegFailure } from './write-path.ts';
import type { PictureMessage } from './worker-volumes.ts';

export type TlsMaterial = { readonly certPem: string; readonly keyPem: string; readonly caPem: string | null; readonly required: boolean };

/** How long a lane waits for a client. */
export type ClientDeadlines = {
  /** From the connection to the end of the handshake, without the time in which the client waits for the engine. */
  readonly handshakeMs: number;
  /** Without a byte, in the middle of a request. */
  readonly requestMs: number;
};

export const CLIENT_DEADLINES: ClientDeadlines = { handshakeMs: 10_000, requestMs: 120_000 };

export type LaneStart = {
  readonly lane: number;
  readonly slot: number;
  readonly device: SharedArrayBuffer;
  readonly tls: TlsMaterial | null;
  readonly deadlines: ClientDeadlines;
};

/** What a connection looks like from the lane: for `client list`. */
export type ConnectionReport = {
  readonly id: number;
  readonly volume: number | null;
  readonly volumeName: string | null;
  readonly peer: string;
  readonly transport: 'unix' | 'tcp' | 'tls';
  readonly phase: 'handshake' | 'transmission' | 'closing';
  readonly readOnly: boolean;
  readonly host: string | null;
  /** The connection as the host's end can name it; null where that could not be found out. */
  readonly ref: string | null;
  readonly connectedAtMs: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly requests: number;
};

export type ToLane =
  | PictureMessage
  | { readonly type: 'connection'; readonly fd: number; readonly id: number; readonly transport: 'unix' | 'tcp'; readonly address: string }
  /** Without a way to hand descriptors over, the one lane listens itself; it numbers its own connections. */
  | { readonly type: 'listen'; readonly id: number; readonly unixPath: string | null; readonly host: string | null; readonly port: number }
  | { readonly type: 'tls'; readonly tls: TlsMaterial | null }
  | { readonly type: 'found'; readonly ask: number; readonly answer: ExportGrant | ExportRefusal }
  | {
      readonly type: 'listed';
      readonly ask: number;
      readonly entries: ReadonlyArray<{ readonly name: string; readonly description: string }>;
    }
  /** Ends connections with the shutdown error; answered with how many when they are gone. */
  | { readonly type: 'end'; readonly id: number; readonly client: number | null; readonly volume: number | null }
  /** Writes to the volume wait from here on; answered when none is under way. */
  | { readonly type: 'hold'; readonly id: number; readonly volume: number }
  | { readonly type: 'unhold'; readonly volume: number }
  | { readonly type: 'aside'; readonly done: AsideDone }
  | { readonly type: 'report'; readonly id: number }
  | { readonly type: 'barrier'; readonly id: number }
  | { readonly type: 'stop' };

/** What a worker beside the lanes is asked to do (data/aside-worker.ts). */
export type AsideJob = { readonly job: number; readonly volume: number; readonly offset: number; readonly length: number } & AsideKind;
export type AsideKind =
  | { readonly kind: 'zero'; readonly punch: boolean }
  | { readonly kind: 'read' }
  /** The payload's memory changes hands. */
  | { readonly kind: 'write'; readonly payload: Uint8Array };
export type AsideDone = {
  readonly job: number;
  /** The system's code of what failed, or empty. */
  readonly code: string;
  readonly tookUs: number;
  /** What was read; its memory changes hands. */
  readonly data: Uint8Array;
};

export type FromLane =
  | { readonly type: 'ready' }
  | { readonly type: 'find'; readonly ask: number; readonly name: string; readonly peer: PeerIdentity }
  | { readonly type: 'list'; readonly ask: number; readonly peer: PeerIdentity }
  | { readonly type: 'opened'; readonly id: number; readonly volume: number; readonly peer: string }
  | { readonly type: 'closed'; readonly id: number; readonly volume: number | null; readonly peer: string; readonly reason: string }
  | { readonly type: 'leg-failed'; readonly failure: LegFailure }
  | { readonly type: 'aside'; readonly job: AsideJob }
  | { readonly type: 'answer'; readonly id: number; readonly value: unknown; readonly error?: string };
