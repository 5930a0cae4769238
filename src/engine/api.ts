/**
 * The engine's interface: everything that the command line and the control socket can do, as one object.
 *
 * The control layer and the library's users see this type only. A volume is named by its name or its number
 * (`VolumeRef`). Every method that changes something takes `plan: true`, then does nothing and returns a `PlanView`.
 * Errors are `TwinvolError` with a stable code.
 */
import type { AuditRecord } from '../core/audit.ts';
import type { CertificateView, HostView, InquiryView, MountView } from '../core/host-views.ts';
import type { Declaration } from '../core/declaration.ts';
import type { FaultCode } from '../core/faults.ts';
import type { DeviceSettings, FenceLevel, GroupRow, HostAccess, VolumeAttribute } from '../core/rows.ts';
import type { ApplyView, CandidateView, ClientView, EventView, PairView, PlanView, StatusView, VolumeView } from '../core/views.ts';
import type { PairState } from '../core/rows.ts';

export type VolumeRef = string | number;
export type Planned = { readonly plan?: boolean };
/** `secondary` may be left out where the primary has one pair only. */
export type PairRef = { readonly primary: VolumeRef; readonly secondary?: VolumeRef };

/** A split at a moment of its own, in milliseconds since 1970; null takes it back; absent: now. */
export type Scheduled = { readonly atMs?: number | null };

/** `explain`: all volumes, and why one is none. `fit`: for a pair create with that fitting; absent: as the setting says. */
export type CandidatesInput = {
  readonly primary: VolumeRef;
  readonly explain?: boolean;
  readonly condition?: 'same' | 'any';
  readonly fit?: 'off' | 'regions';
};
export type VolumeCreateInput = Planned & {
  readonly name: string;
  readonly sizeBytes: number;
  readonly attribute?: VolumeAttribute;
  readonly protected?: boolean;
};
export type PairCreateInput = Planned &
  PairRef & {
    readonly condition?: 'same' | 'any';
    readonly fit?: 'off' | 'regions';
    readonly pace?: number;
    readonly fence?: FenceLevel;
    readonly dirtyRegionBytes?: number;
  };
/** How the operator decided on what an inquiry found (specification 6); absent: nobody was asked yet. */
export type Consent = {
  /** The token of the warning that was shown. */
  readonly token?: string;
  /** Findings that are overridden: `mounted:HOST`, `open:HOST`, `no-answer:HOST`, `client:ID`. */
  readonly overrides?: readonly string[];
  readonly reason?: string;
  /** Who decides, as the caller says; goes to the audit record. */
  readonly by?: string;
};
export type ApplyInput = Planned & { readonly declaration: Declaration; readonly consent?: Consent };
export type PairCommandInput = Planned &
  PairRef & {
    readonly consent?: Consent;
    readonly pace?: number;
    /** Both legs are read, and only what differs is written. */
    readonly checksum?: boolean;
  };
export type PairReleaseInput = Omit<PairCommandInput, 'checksum'> & { readonly then?: VolumeAttribute };
export type PairWaitInput = PairRef & { readonly state: PairState; readonly timeoutMs: number };
export type VerifyInput = PairRef & { readonly repair?: boolean };
export type VerifyReport = {
  readonly checkedBytes: number;
  readonly differingBytes: number;
  readonly differing: ReadonlyArray<{ readonly offset: number; readonly length: number }>;
  /** Of the regions that were dirty when it ended: they may differ rightly, were not judged, and the next resync copies them. */
  readonly dirtyBytes: number;
  readonly durationMs: number;
  /** What differed was copied again. False after a repair in split or suspended: it is marked dirty for the next resync. */
  readonly repaired: boolean;
};

/** One fault of a test volume that misbehaves on purpose. */
export type FaultRule = {
  readonly id: number;
  readonly volume: number;
  readonly error: 'read' | 'write' | 'flush' | 'any';
  readonly errno: 'EIO' | 'ENOSPC' | 'EPERM' | 'none';
  readonly offset: number;
  readonly length: number;
  /** Probability, 0 to 1. */
  readonly rate: number;
  readonly latencyMs: number;
  /** How often it still strikes; 0: not any more; null: for ever. */
  readonly count: number | null;
  readonly seed: number;
  /** How often it has struck. */
  readonly hits: number;
  /** It has struck as often as it was meant to, and does nothing any more. */
  readonly expired: boolean;
};
export type FaultAddInput = { readonly volume: VolumeRef } & Partial<Omit<FaultRule, 'id' | 'volume' | 'hits' | 'expired'>>;

export type HostAddInput = Planned & { readonly name: string /** Issue a certificate as well. */; readonly certificate?: boolean };
export type HostAdded = {
  readonly host: HostView;
  /** The enrolment token: shown here and never again. */
  readonly token: string;
  readonly certificate: CertificateView | null;
};
export type HostCertified = { readonly host: HostView; readonly certificate: CertificateView | null };
export type GrantInput = Planned & { readonly volume: VolumeRef; readonly host: string; readonly access: HostAccess };
/** `since`: records after that number; `limit`: at most so many, the oldest first. */
export type AuditInput = { readonly since?: number; readonly limit?: number };

export type Released = {
  readonly released: PairView;
  /** Why the secondary did not get its former capacity back, where the setting says that it does; absent: nothing to tell. */
  readonly sizeKept?: { readonly code: FaultCode; readonly message: string };
};

export interface Engine {
  status(): StatusView;
  settings(): DeviceSettings;
  settingsSet(changes: Planned & Partial<DeviceSettings>): Promise<DeviceSettings | PlanView>;

  volumeCreate(input: VolumeCreateInput): Promise<VolumeView | PlanView>;
  volumeList(): readonly VolumeView[];
  volumeShow(volume: VolumeRef): VolumeView;
  volumeRename(input: Planned & { readonly volume: VolumeRef; readonly name: string }): Promise<VolumeView | PlanView>;
  volumeGrow(input: Planned & { readonly volume: VolumeRef; readonly sizeBytes: number }): Promise<VolumeView | PlanView>;
  volumeDelete(input: Planned & { readonly volume: VolumeRef; readonly consent?: Consent }): Promise<VolumeView | PlanView>;
  volumeSet(
    input: Planned & {
      readonly volume: VolumeRef;
      readonly attribute?: VolumeAttribute;
      readonly protected?: boolean;
      readonly consent?: Consent;
    },
  ): Promise<VolumeView | PlanView>;
  uri(volume: VolumeRef): string;

  poolCandidates(input: CandidatesInput): readonly CandidateView[];
  poolRestoreSize(input: Planned & { readonly volume: VolumeRef; readonly consent?: Consent }): Promise<VolumeView | PlanView>;

  pairCreate(input: PairCreateInput & { readonly consent?: Consent }): Promise<PairView | PlanView>;
  pairStatus(input?: { readonly primary?: VolumeRef }): readonly PairView[];
  pairWait(input: PairWaitInput, signal?: AbortSignal): Promise<PairView | null>;
  pairSplit(input: Planned & PairRef & Scheduled): Promise<PairView | PlanView>;
  pairResync(input: PairCommandInput): Promise<PairView | PlanView>;
  pairRestore(input: PairCommandInput): Promise<PairView | PlanView>;
  pairRelease(input: PairReleaseInput): Promise<Released | PlanView>;
  pairSet(input: Planned & PairRef & { readonly pace?: number; readonly fence?: FenceLevel }): Promise<PairView | PlanView>;
  pairVerify(input: VerifyInput, signal?: AbortSignal): Promise<VerifyReport>;

  groupCreate(input: Planned & { readonly name: string }): Promise<GroupRow | PlanView>;
  groupAdd(input: Planned & { readonly name: string } & PairRef): Promise<GroupRow | PlanView>;
  groupRemove(input: Planned & { readonly name: string } & Partial<PairRef>): Promise<GroupRow | PlanView | null>;
  groupList(): readonly GroupRow[];
  groupSplit(input: Planned & { readonly name: string } & Scheduled): Promise<readonly PairView[] | PlanView>;

  groupResync(
    input: Planned & { readonly name: string; readonly pace?: number; readonly consent?: Consent },
  ): Promise<readonly PairView[] | PlanView>;

  hostAdd(input: HostAddInput): Promise<HostAdded | PlanView>;
  hostList(): Promise<readonly HostView[]>;
  hostShow(name: string): Promise<HostView>;
  hostRemove(input: Planned & { readonly name: string }): Promise<HostView | PlanView>;
  /** `replace`: the certificates of before prove nothing any more. */
  hostIssue(input: { readonly name: string; readonly replace?: boolean }): Promise<HostCertified>;
  hostTrust(input: { readonly name: string; readonly certificatePem: string; readonly replace?: boolean }): Promise<HostCertified>;
  grant(input: GrantInput): Promise<HostView | PlanView>;
  revoke(input: Planned & { readonly volume: VolumeRef; readonly host: string }): Promise<HostView | PlanView>;
  /** What the hosts said last, with its age. */
  mounts(input?: { readonly volume?: VolumeRef }): readonly MountView[];
  /** Asks the hosts of a volume now, and changes nothing. */
  inquiry(volume: VolumeRef): Promise<InquiryView>;
  audit(input?: AuditInput): Promise<readonly AuditRecord[]>;

  /** Makes the device what a declaration says; `UNMET` names everything that cannot be met, and nothing has changed then. */
  apply(input: ApplyInput): Promise<ApplyView>;

  clientList(): Promise<readonly ClientView[]>;
  clientEnd(input: { readonly id: number }): Promise<ClientView>;

  faultAdd(input: FaultAddInput): Promise<FaultRule>;
  faultList(): readonly FaultRule[];
  faultClear(input: { readonly id?: number; readonly volume?: VolumeRef }): Promise<number>;

  /** `exists` records for all objects first, then changes from there on. `since` resumes after that number. */
  events(options: { readonly since?: number; readonly signal?: AbortSignal; readonly follow?: boolean }): AsyncIterable<EventView>;

  /** Drains the NBD connections (shutdown error), makes everything durable, gives up the store. */
  close(): Promise<void>;
}
