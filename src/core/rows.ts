/**
 * The rows of the device's tables (specification, section 2), as they are kept in memory and in the journal.
 *
 * Rows are plain data and never changed in place: a change is a new row in a journal operation. What can be derived
 * (the paired flag, the in-use flag, the unassigned-region table) is not stored, so it cannot disagree.
 */

/** A run of consecutive physical regions of one physical volume. */
export type RegionRun = {
  readonly pv: number;
  /** First physical region of the run, counted from 0 in its physical volume. */
  readonly start: number;
  readonly count: number;
};

/** A physical volume: one sparse file of the store. */
export type PvRow = {
  readonly number: number;
  readonly regions: number;
};

export type VolumeAttribute = 'normal' | 'secondary';

/** A row of the volume table (JP fig. 2, 13, 22). */
export type VolumeRow = {
  readonly number: number;
  readonly name: string;
  readonly capacityBytes: number;
  readonly attribute: VolumeAttribute;
  /** The region map: logical regions 0.. in order, as runs of physical regions. */
  readonly runs: readonly RegionRun[];
  /** Kept out of every automatic choice (specification 5, provisioning). */
  readonly isProtected: boolean;
  /** Capacity before region fitting changed it; absent when it never did. */
  readonly formerCapacityBytes?: number;
  readonly uuid: string;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
};

export const PAIR_STATES = ['simplex', 'duplex-pending', 'duplex', 'split', 'suspended'] as const;
/** The states of specification 3. A pair row is never `simplex`: that is the absence of a row. */
export type PairState = (typeof PAIR_STATES)[number];
export type PairedState = Exclude<PairState, 'simplex'>;

/** What a copy in `duplex-pending` is: the first one, one after split or suspended, or one from secondary to primary. */
export type CopyKind = 'initial' | 'resync' | 'restore';

export type FenceLevel = 'never' | 'data';

/** Copy pace, 1 (gives way most) to 15 (gives way least). slow = 3, medium = 8, fast = 15. */
export type Pace = number;

/** A split that is to happen at a moment of its own, without anybody asking for it then. */
export type ScheduledSplit = {
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** Why it did not happen when its moment had come; absent while that is ahead. */
  readonly failure?: string;
};

/** A row of the pair table (JP fig. 3). The copy pointer lives with the bitmap, not here: it moves all the time. */
export type PairRow = {
  readonly id: number;
  readonly primary: number;
  readonly secondary: number;
  readonly state: PairedState;
  /** Set in `duplex-pending`; and in `suspended` for a restore that was interrupted, which only a restore can go on from. */
  readonly copy?: CopyKind;
  readonly dirtyRegionBytes: number;
  readonly fence: FenceLevel;
  readonly pace: Pace;
  /** Why the pair is in this state when nobody asked for it: `secondary-error: ENOSPC`, `link-lost`, `crash-recovery`. */
  readonly reason?: string;
  readonly createdAtMs: number;
  readonly stateSinceMs: number;
  /** Split: when hosts wrote on the secondary first and last, as it was known when the engine last ended in order. */
  readonly secondaryWritten?: { readonly firstAtMs: number | null; readonly lastAtMs: number | null };
  readonly scheduledSplit?: ScheduledSplit;
  /** Suspended: the secondary failed at fence level `data`, so host writes fail until it is resynced or the fence lowered. */
  readonly isFenced?: true;
};

/** A consistency group: its members are pair ids. */
export type GroupRow = {
  readonly name: string;
  readonly pairs: readonly number[];
  readonly scheduledSplit?: ScheduledSplit;
};

export type HostAccess = 'ro' | 'rw';

/** A host: a machine that may reach volumes (specification 2), with what proves who it is. */
export type HostRow = {
  readonly name: string;
  /** SHA-256 of the enrolment token, hex; the token itself is shown once and never kept. */
  readonly tokenSha256: string;
  /** volume number (as text) -> access */
  readonly grants: Readonly<Record<string, HostAccess>>;
  /**
   * SHA-256 of the certificates that prove the host over TLS, hex, the newest last. A name in a certificate proves
   * nothing by itself: a host that is removed and enrolled anew under the same name would accept the old one's.
   */
  readonly certificates?: readonly string[];
  readonly createdAtMs: number;
};

/** Settings of the device; every one has a default and can be changed while it runs. */
export type DeviceSettings = {
  readonly condition: 'same' | 'any';
  readonly attributeAfterRelease: VolumeAttribute;
  readonly fit: 'off' | 'regions';
  /** What hosts get of a secondary whose pair is not split. */
  readonly secondaryAccess: 'refuse' | 'read-only';
  readonly durability: 'power' | 'process';
  readonly exportsFollowGrants: boolean;
  readonly restoreSizeOnRelease: boolean;
  /** How long a host's agent has to answer a mount inquiry. */
  readonly inquiryDeadlineMs: number;
};

export const SETTINGS_DEFAULT: DeviceSettings = {
  condition: 'any',
  attributeAfterRelease: 'secondary',
  fit: 'off',
  secondaryAccess: 'refuse',
  durability: 'power',
  exportsFollowGrants: false,
  restoreSizeOnRelease: false,
  inquiryDeadlineMs: 3000,
};

/**
 * One journal operation. A journal record is a list of operations that take effect together or not at all.
 * `scrub-put` holds runs that left a volume and still may hold its data: they belong to nobody until they read as
 * zeros, and a `scrub-delete` gives them to the unassigned-region table (specification 2, freed regions).
 */
export type TableOp =
  | { readonly op: 'pv-put'; readonly row: PvRow }
  | { readonly op: 'volume-put'; readonly row: VolumeRow }
  | { readonly op: 'volume-delete'; readonly number: number }
  | { readonly op: 'pair-put'; readonly row: PairRow }
  | { readonly op: 'pair-delete'; readonly id: number }
  | { readonly op: 'group-put'; readonly row: GroupRow }
  | { readonly op: 'group-delete'; readonly name: string }
  | { readonly op: 'host-put'; readonly row: HostRow }
  | { readonly op: 'host-delete'; readonly name: string }
  | { readonly op: 'settings-put'; readonly settings: DeviceSettings }
  | { readonly op: 'scrub-put'; readonly id: number; readonly runs: readonly RegionRun[] }
  | { readonly op: 'scrub-delete'; readonly id: number }
  /**
   * The next ids that were never used. Only a snapshot needs it: it holds no deleted rows, and a pair's id names its
   * bitmap file, so an id is never used again.
   */
  | { readonly op: 'counters-put'; readonly nextPairId: number; readonly nextScrubId: number }
  /** Clean shutdown mark: intents were empty; removed by the first record after it. */
  | { readonly op: 'clean-shutdown' };
