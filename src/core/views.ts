/**
 * What the device reports: the shapes that the library, the control socket and the command line's `--json` share.
 * Plain JSON values. Sizes in bytes, times in milliseconds since 1970, durations in milliseconds.
 */
import type { Destruction } from './inquiry-text.ts';
import type { CopyKind, DeviceSettings, FenceLevel, PairState, PairedState, RegionRun, VolumeAttribute } from './rows.ts';

export type VolumeView = {
  readonly number: number;
  readonly name: string;
  readonly capacityBytes: number;
  readonly attribute: VolumeAttribute;
  readonly paired: boolean;
  /** `primary`, `secondary` of a pair, or null. */
  readonly role: 'primary' | 'secondary' | null;
  /** JP fig. 13: `invalid` for a normal volume, `in-use` or `unused` for one of attribute secondary. */
  readonly inUse: 'invalid' | 'in-use' | 'unused';
  readonly protected: boolean;
  readonly formerCapacityBytes: number | null;
  readonly regions: number;
  readonly runs: readonly RegionRun[];
  readonly uuid: string;
  readonly createdAtMs: number;
  /** NBD connections right now. */
  readonly clients: number;
  readonly uri: string;
};

export type CopyPointer = {
  /** Number of the next dirty region to copy; equals `regions` when the copy is done. */
  readonly region: number;
  readonly regions: number;
  /** 0 to 100. */
  readonly percent: number;
};

/** A split that is scheduled for a pair, or for the group that it is in. */
export type ScheduledSplitView = {
  readonly atMs: number;
  /** Why it did not happen when its moment had come; null while that is ahead. */
  readonly failure: string | null;
  /** The group that is split as a whole; null: this pair alone. */
  readonly group: string | null;
};

/** `differingBytes`: in what was checked so far. Rate and time to go are null until they can be told. */
export type VerifyProgressView = {
  readonly checkedBytes: number;
  readonly totalBytes: number;
  readonly differingBytes: number;
  readonly rateBytesPerSecond: number | null;
  readonly etaMs: number | null;
};

export type PairView = {
  readonly id: number;
  readonly primary: { readonly number: number; readonly name: string };
  readonly secondary: { readonly number: number; readonly name: string };
  readonly state: PairedState;
  readonly copy: CopyKind | null;
  readonly copyPointer: CopyPointer;
  readonly dirtyRegionBytes: number;
  /** Bytes that differ or may differ: primary side, secondary side, and their union. */
  readonly dirtyBytes: { readonly primary: number; readonly secondary: number; readonly union: number };
  readonly copiedBytes: number;
  /** What a resync with `checksum` read on both legs and found equal. */
  readonly skippedBytes: number;
  /** How far a running verify is; null when there is none. */
  readonly verify: VerifyProgressView | null;
  /** Bytes a second, and milliseconds to the end; null when nothing is copied. */
  readonly rateBytesPerSecond: number | null;
  readonly etaMs: number | null;
  readonly fence: FenceLevel;
  readonly pace: number;
  readonly reason: string | null;
  readonly group: string | null;
  /** The next scheduled split, of the pair or of its group; without one, the last that did not happen. */
  readonly scheduledSplit: ScheduledSplitView | null;
  readonly createdAtMs: number;
  readonly stateSinceMs: number;
};

export type ClientView = {
  readonly id: number;
  readonly volume: { readonly number: number; readonly name: string } | null;
  /** `unix` or `host:port`. */
  readonly peer: string;
  readonly transport: 'unix' | 'tcp' | 'tls';
  readonly phase: 'handshake' | 'transmission' | 'closing';
  readonly readOnly: boolean;
  readonly host: string | null;
  /** The connection as the host's agent names it, `unix:INODE` or `tcp:ADDRESS:PORT`; null where it could not be told. */
  readonly ref: string | null;
  readonly lane: number;
  readonly connectedAtMs: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly requests: number;
};

export type CandidateView = {
  readonly number: number;
  readonly name: string;
  readonly capacityBytes: number;
  readonly fit: 'same' | 'larger' | 'smaller' | 'none';
  readonly candidate: boolean;
  /** Why it is not a candidate; null when it is one. */
  readonly reason: string | null;
};

export type StatusView = {
  readonly version: string;
  readonly pid: number;
  readonly store: {
    readonly directory: string;
    /** It was deleted or moved while the engine runs. */
    readonly gone: boolean;
    readonly uuid: string;
    readonly formatVersion: number;
    readonly regionBytes: number;
    readonly physicalVolumes: number;
    readonly regions: { readonly total: number; readonly unassigned: number; readonly scrubbing: number };
  };
  readonly sockets: { readonly control: string; readonly nbd: readonly string[] };
  readonly startedAtMs: number;
  readonly volumes: number;
  readonly pairs: Readonly<Record<PairState, number>>;
  /** Splits of pairs and groups that have a moment of their own; `failed`: it passed, and they did not happen. */
  readonly scheduledSplits: { readonly pending: number; readonly failed: number; readonly nextAtMs: number | null };
  readonly clients: number;
  readonly lanes: { readonly count: number; readonly handover: 'descriptor' | 'own-listener' };
  /** What is native and what stands in for it, with what the stand-in does less. */
  readonly native: {
    readonly fsExt: boolean;
    readonly fileLock: string;
    readonly holeSeek: string;
    readonly spaceReclaim: string;
    readonly weaker: readonly string[];
  };
  readonly durability: {
    readonly level: 'power' | 'process';
    /** Upper bound of what a crash right now would have to resync, in bytes. */
    readonly resyncBoundBytes: number;
    /** What the last start had to resync, in bytes. */
    readonly lastRecoveryBytes: number;
    /** The run before this one ended in order, so there was nothing to recover. */
    readonly wasCleanShutdown: boolean;
  };
  readonly settings: DeviceSettings;
  readonly memory: { readonly rssBytes: number };
};

/** Physical regions that change hands when a volume is fitted. Null stands for the unassigned-region table. */
export type RegionMove = {
  readonly from: string | null;
  readonly to: string | null;
  /** The first of the volume's logical regions that are meant. */
  readonly firstRegion: number;
  readonly regions: number;
  /** Which physical regions; empty where some of them are still being cleared. */
  readonly runs: readonly RegionRun[];
};

/** What a command would do (`--plan`), or did. */
export type PlanView = {
  readonly command: string;
  readonly plan: true;
  readonly steps: readonly string[];
  readonly volumes: readonly string[];
  readonly hosts: readonly string[];
  readonly regions: number;
  /** Region fitting: what goes where. It holds until another command takes or gives regions. */
  readonly moves: readonly RegionMove[];
  readonly bytes: number;
  /** What would be lost: bytes written on the secondary since the split, say. */
  readonly destroysBytes: number;
  /** The same for each volume that would lose something, with the times of its first and last write. */
  readonly destroys: readonly Destruction[];
};

/** What a declaration would change (`plan`), or has changed. */
export type ApplyView = {
  readonly plan: boolean;
  /** In the order in which they are made. `at` is a JSON pointer into the declaration. */
  readonly changes: ReadonlyArray<{ readonly at: string; readonly kind: 'create' | 'change' | 'remove'; readonly text: string }>;
  /** Requirements that are met without a change. */
  readonly met: number;
  /** Hosts that are asked before anything is overwritten. */
  readonly hosts: readonly string[];
  readonly regions: number;
  /** To be copied into new pairs, holes included. */
  readonly bytes: number;
  /** Capacity of the volumes whose content is overwritten or given up; 0 where it has happened. */
  readonly destroysBytes: number;
};

/** A numbered event; `exists` records describe what is there, the rest what changed. */
export type EventView = {
  readonly seq: number;
  readonly atMs: number;
  readonly kind: 'exists' | 'create' | 'change' | 'destroy' | 'warning' | 'notice';
  readonly object: 'device' | 'volume' | 'pair' | 'client' | 'host' | 'group' | 'inquiry';
  /** Number or name of the object. */
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
};
