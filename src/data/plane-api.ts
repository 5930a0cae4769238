/**
 * The data plane's interface: what the engine asks of it, and what it tells the engine.
 *
 * The data plane owns lanes, shared memory, dirty-region bitmaps, intents and copy tasks, with the files that make
 * bitmaps and intents durable. It owns no table: which volume exists and which state a pair is in is the engine's
 * decision, journalled by the engine. The engine journals first what must survive (a new pair, a split, a resync),
 * then switches the plane; the plane's own files make every order of crash safe (see `PairMode`).
 */
import type { RegionRun } from '../core/rows.ts';
import type { ClientView, CopyPointer } from '../core/views.ts';
import type { FaultRule, VerifyReport } from '../engine/api.ts';

export type VolumeSpec = {
  readonly number: number;
  readonly name: string;
  readonly capacityBytes: number;
  readonly runs: readonly RegionRun[];
};

/**
 * What host writes do to a pair.
 * - `idle`: nothing (the pair is being formed or taken apart).
 * - `copying`: duplex-pending, primary to secondary. A dirty region is written on the primary only and left to the
 *   copy; a clean one on both.
 * - `restoring`: duplex-pending, secondary to primary. Reads of the primary volume are served from the secondary
 *   leg; a dirty region is written on the secondary only; a clean one on both.
 * - `mirroring`: duplex; both legs.
 * - `tracking`: split or suspended; each side's writes are recorded in its own bitmap.
 */
export type PairMode = 'idle' | 'copying' | 'restoring' | 'mirroring' | 'tracking';

export type PairSpec = {
  readonly id: number;
  readonly primary: number;
  readonly secondary: number;
  readonly dirtyRegionBytes: number;
  readonly fenceData: boolean;
  readonly pace: number;
  /** What an earlier run knew of `PairProgress.secondaryWritten`. */
  readonly secondaryWritten?: SecondaryWritten;
};

/** When hosts wrote on the secondary first and last since the split, milliseconds since 1970; null: nobody did, or not known. */
export type SecondaryWritten = { readonly firstAtMs: number | null; readonly lastAtMs: number | null };

/** What happens to the dirty bits at a switch, in the same closed gate. */
export type DirtyChange =
  | 'keep'
  /** Every region dirty: a new pair. */
  | 'all'
  /** Both bitmaps empty: the start of a split. */
  | 'clear'
  /** Primary := primary OR secondary, secondary := empty: the start of a resync or restore. */
  | 'merge';

export type PairSwitch = {
  readonly id: number;
  readonly mode: PairMode;
  readonly dirty: DirtyChange;
  /** Refuse the whole switch (return false) unless this pair has no dirty region at the closed gate. */
  readonly onlyIfClean?: boolean;
  /** From the switch on host writes fail, until the next one (fence `data`); default false. */
  readonly isFenced?: boolean;
};

export type PairProgress = {
  readonly pointer: CopyPointer;
  readonly dirtyBytes: { readonly primary: number; readonly secondary: number; readonly union: number };
  readonly copiedBytes: number;
  readonly rateBytesPerSecond: number | null;
  readonly etaMs: number | null;
  readonly secondaryWritten: SecondaryWritten;
};

/** Who is at the other end of an NBD connection, as far as it has proved it. */
export type PeerIdentity = {
  readonly transport: 'unix' | 'tcp' | 'tls';
  readonly address: string;
  /** Common name of a verified client certificate, or null. */
  readonly certificateName: string | null;
  /** SHA-256 of that certificate, hex, or null. */
  readonly certificateSha256: string | null;
};

export type ExportGrant = {
  readonly volume: number;
  readonly readOnly: boolean;
  readonly description: string;
  /** Name of the host, when the peer is a known one. */
  readonly host: string | null;
  /** Dirty bitmap offered with the export: the pair whose bitmap it is and the side; null for none. */
  readonly dirty: { readonly pair: number; readonly side: 'primary' | 'secondary' } | null;
};
export type ExportRefusal = { readonly refused: 'unknown' | 'policy' | 'shutdown'; readonly message: string };

/** The engine's say on who gets what. Asked once for each NBD option that names an export. */
export interface ExportPolicy {
  find(exportName: string, peer: PeerIdentity): ExportGrant | ExportRefusal;
  list(peer: PeerIdentity): ReadonlyArray<{ readonly name: string; readonly description: string }>;
}

export type ListenOptions = {
  readonly unixPath?: string;
  readonly tcp?: { readonly host: string; readonly port: number };
  readonly tls?: { readonly certPem: string; readonly keyPem: string; readonly caPem?: string; readonly required: boolean };
};

export type VerifyProgress = {
  readonly checkedBytes: number;
  readonly totalBytes: number;
  /** Of what was checked so far, in whole dirty regions. */
  readonly differingBytes: number;
  readonly rateBytesPerSecond: number | null;
  readonly etaMs: number | null;
};

export type FaultCounters = { readonly hits: number; readonly left: number | null };

export type PlaneEvents = {
  /** Every region is clean and durable on the target leg; the engine switches to `mirroring` with `onlyIfClean`. */
  copyDone: [{ readonly pair: number }];
  /** The copy cannot go on: a leg failed, or its worker died again and again. */
  copyFailed: [{ readonly pair: number; readonly leg: 'source' | 'target' | 'worker'; readonly code: string; readonly message: string }];
  /**
   * A host write or flush met an error on a leg. For `secondary` the plane has already put the pair in `tracking`
   * (the engine journals `suspended`); for `primary` a region may differ (the bits are set, the engine recopies).
   */
  legFailed: [{ readonly pair: number; readonly leg: 'primary' | 'secondary'; readonly code: string; readonly message: string }];
  clientOpened: [{ readonly id: number; readonly volume: number | null; readonly peer: string }];
  clientClosed: [{ readonly id: number; readonly volume: number | null; readonly peer: string; readonly reason: string }];
  /** A worker died, and with it its connections. `isReplaced`: another one has its task. */
  workerLost: [{ readonly worker: string; readonly isReplaced: boolean; readonly message: string }];
};

export interface DataPlane {
  on<K extends keyof PlaneEvents>(event: K, listener: (...args: PlaneEvents[K]) => void): unknown;

  /** Makes a volume known to every lane; with `recover`, its intents are read (see `pairAttach`). */
  volumeAttach(spec: VolumeSpec): Promise<void>;
  /** New name, capacity or runs, at a closed gate; connections stay. */
  volumeReplace(spec: VolumeSpec): Promise<void>;
  volumeDetach(number: number): Promise<void>;
  /** Writes and new connections to the volume wait (they are not failed) until `volumeUnhold`; returns when none is inside. */
  volumeHold(number: number): Promise<void>;
  volumeUnhold(number: number): Promise<void>;
  volumeFlush(number: number): Promise<void>;
  /** Somebody outside of the data plane met a failed sync of these physical volumes: what hosts wrote there may be lost. */
  mediumFailed(pvs: readonly number[]): void;

  /**
   * Makes a pair known in mode `idle`. `fresh`: new bitmap files. Otherwise they are read, and the marked intents of
   * both volumes are added: after an unclean end the bits are a superset of what may differ.
   * `distrust`: whatever the files say, every region is dirty.
   * @returns bytes that were added from intents
   */
  pairAttach(
    spec: PairSpec,
    options: { readonly fresh: boolean; readonly distrust?: boolean },
  ): Promise<{ readonly recoveredBytes: number; readonly dirtyBytes: number }>;
  /** What was found wrong with bitmap and intent files of pairs that were attached: a line for each file. */
  fileDamage(): readonly string[];
  /** All switches at one point in time: no write is inside, none is lost. False if an `onlyIfClean` did not hold. */
  pairsSwitch(switches: readonly PairSwitch[]): Promise<{ readonly switched: boolean; readonly pauseMs: number }>;
  /** `isFenced`: host writes fail until the next switch (fence `data`, after the secondary failed). */
  pairConfigure(id: number, changes: { readonly pace?: number; readonly fenceData?: boolean; readonly isFenced?: boolean }): void;
  /** Stops copying and tracking and deletes the bitmap files. */
  pairDetach(id: number): Promise<void>;
  pairProgress(id: number): PairProgress;
  /** ORs the primary bitmap of `from` into the primary bitmap of `into` (a restore changes what other pairs see). */
  pairMarkFrom(into: number, from: number): Promise<void>;

  /** `checksum`: until it has ended this copy reads its target too, and writes only what differs. */
  copyStart(id: number, options?: { readonly checksum?: boolean }): void;
  /** What the present or last copy found to be equal, in bytes. */
  copySkippedBytes(id: number): number;
  copyStop(id: number): Promise<void>;
  verify(
    id: number,
    options: { readonly repair: boolean; readonly signal?: AbortSignal },
  ): Promise<Omit<VerifyReport, 'repaired' | 'dirtyBytes'>>;

  /** How far a verify of the pair is; null when there is none. */
  verifyProgress(id: number): VerifyProgress | null;

  /** Resolves when every lane has taken the rules in. */
  faultsSet(volume: number, rules: readonly FaultRule[]): Promise<void>;
  /** How often a rule has struck, and how often it still will; null: for ever. */
  faultCounters(id: number): FaultCounters;

  listen(options: ListenOptions): Promise<readonly string[]>;
  clients(): Promise<readonly ClientView[]>;
  /** Ends connections with the protocol's shutdown error; resolves when they are gone. */
  clientsEnd(which: { readonly client?: number; readonly volume?: number }): Promise<number>;
  clientCount(volume?: number): number;

  /** Upper bound of what a crash right now would have to resync, in bytes. */
  resyncBoundBytes(): number;
  readonly laneCount: number;
  readonly handover: 'descriptor' | 'own-listener';
  /** Resolves when the level holds: raised to `power`, when what was acknowledged before is durable too. */
  setDurability(level: 'power' | 'process'): Promise<void>;

  /** Refuses new connections, answers what is in flight, ends the rest with the shutdown error, flushes. */
  drain(): Promise<void>;
  close(): Promise<void>;
}
