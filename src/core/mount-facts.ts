/**
 * What a host can say about one volume when it is asked (specification 6), as plain JSON values.
 *
 * There are four kinds of fact, and only one of them is good news. `mounted` and `open` are use. `unknown` is a part of
 * the host that could not be looked at: it proves nothing, so it counts like silence. `not-mounted` is the explicit
 * statement "I looked everywhere and found nothing"; it stands alone or not at all. What a host did *not* say becomes
 * `no-answer`, which only the asking side makes.
 *
 * Invariants: the facts of one volume are never an empty list; `not-mounted` never stands beside another fact.
 */
import type { HostAccess } from './rows.ts';

export const LAYER_KINDS = [
  'connection',
  'nbd',
  'ublk',
  'fuse',
  'loop',
  'partition',
  'device-mapper',
  'md',
  'holder',
  'file-system',
  'swap',
] as const;
/**
 * A step between the NBD connection and what uses it. `connection` is a process that speaks NBD itself; `holder` a
 * kernel device of another kind (bcache, say) that holds a device below it; `file-system` one that has a file in which
 * the next layer lives.
 */
export type LayerKind = (typeof LAYER_KINDS)[number];
export type Layer = { readonly kind: LayerKind; readonly name: string };

/** `pid` 0 stands for the kernel itself. */
export type ProcessRef = { readonly name: string; readonly pid: number };

/**
 * One NBD connection as both ends can name it: `tcp:ADDRESS:PORT`, the host's own end (IPv6 in brackets), or
 * `unix:INODE`, the inode of the server's end. With it the device recognises the connection that a host speaks of.
 */
export type ConnectionRef = string;

/** For a TCP connection, by the host's end of it, as either side's socket tells it (IPv4 may come inside IPv6). */
export const tcpConnectionRef = (address: string, port: number): ConnectionRef => {
  const plain = address
    .toLowerCase()
    .replace(/^::ffff:(?=\d+\.)/, '')
    .replace(/%.*$/, '');
  return plain.includes(':') ? `tcp:[${plain}]:${port}` : `tcp:${plain}:${port}`;
};

/** For a connection on a unix socket, by the inode of the server's end (`fstat` of its descriptor). */
export const unixConnectionRef = (inode: number): ConnectionRef => `unix:${inode}`;

export type MountedFact = {
  readonly kind: 'mounted';
  /** The block device or file that is mounted, `/dev/loop0`. */
  readonly device: string;
  /** As the host sees it; `[swap]` for swap space, which has no mount point. */
  readonly mountPoint: string;
  readonly fileSystem: string;
  readonly access: HostAccess;
  /** From the NBD connection upwards. */
  readonly layers: readonly Layer[];
  /** Where the mount point is to be read: null for the agent's own mount namespace, else a process inside another one. */
  readonly namespace: string | null;
  readonly connections: readonly ConnectionRef[];
};

export type OpenFact = {
  readonly kind: 'open';
  /** The device or file that is held open, or what the connection is for a process that speaks NBD itself. */
  readonly device: string;
  readonly layers: readonly Layer[];
  readonly processes: readonly ProcessRef[];
  readonly connections: readonly ConnectionRef[];
};

export type NotMountedFact = { readonly kind: 'not-mounted' };

export type UnknownFact = {
  readonly kind: 'unknown';
  /** What could not be seen: "the open files of 12 processes". */
  readonly what: string;
  /** Why: "permission denied (EACCES)". */
  readonly why: string;
  /**
   * The connections that this doubt is about; empty when it is about the host as a whole. A doubt about connections ends
   * when the device knows that every one of them belongs to another volume.
   */
  readonly connections: readonly ConnectionRef[];
};

export type HostFact = MountedFact | OpenFact | NotMountedFact | UnknownFact;

export const NO_ANSWER_REASONS = ['no-agent', 'deadline', 'disconnected', 'garbage', 'error'] as const;
export type NoAnswerReason = (typeof NO_ANSWER_REASONS)[number];

/** The outcome of asking one host about one volume. */
export type HostAnswer =
  | {
      readonly host: string;
      readonly volume: number;
      readonly outcome: 'answered';
      readonly facts: readonly HostFact[];
      readonly afterMs: number;
    }
  | {
      readonly host: string;
      readonly volume: number;
      readonly outcome: 'no-answer';
      readonly reason: NoAnswerReason;
      readonly text: string;
    };

/** What is asked about: a volume and every URI by which hosts reach it. */
export type InquiryTarget = { readonly volume: number; readonly name: string; readonly uris: readonly string[] };

export const FACTS_PER_VOLUME_MAX: number = 256;
export const SWAP_MOUNT_POINT: string = '[swap]';

/** True for facts that keep the invariants of this file. */
export const areFactsSound = (facts: readonly HostFact[]): boolean => {
  if (facts.length === 0 || facts.length > FACTS_PER_VOLUME_MAX) return false;
  return facts.length === 1 || !facts.some((fact) => fact.kind === 'not-mounted');
};

/**
 * The facts that a host sends for one volume, from what it found and what it could not see: nothing of either is
 * `not-mounted`, and only that. More than the limit is cut, with an `unknown` in place of the rest.
 */
export const factsOf = (found: ReadonlyArray<MountedFact | OpenFact>, gaps: readonly UnknownFact[]): readonly HostFact[] => {
  const facts: HostFact[] = [...found, ...gaps];
  if (facts.length === 0) return [{ kind: 'not-mounted' }];
  if (facts.length <= FACTS_PER_VOLUME_MAX) return facts;
  const kept = facts.slice(0, FACTS_PER_VOLUME_MAX - 1);
  const why = `an answer carries at most ${FACTS_PER_VOLUME_MAX} facts`;
  return [...kept, { kind: 'unknown', what: `${facts.length - kept.length} more findings`, why, connections: [] }];
};

/**
 * The same text for the same fact, whatever the order of its keys: to compare facts and to bind a consent to them. The
 * connections of a mount or an opener are left out: a client that reconnects has still the same thing mounted.
 */
export const factIdentity = (fact: HostFact): string => {
  const layers = (list: readonly Layer[]): string[][] => list.map((layer) => [layer.kind, layer.name]);
  switch (fact.kind) {
    case 'not-mounted':
      return JSON.stringify([fact.kind]);
    case 'unknown':
      return JSON.stringify([fact.kind, fact.what, fact.why, [...fact.connections].sort()]);
    case 'open': {
      const processes = fact.processes.map((process) => `${process.pid} ${process.name}`).sort();
      return JSON.stringify([fact.kind, fact.device, layers(fact.layers), processes]);
    }
    case 'mounted': {
      const { kind, device, mountPoint, fileSystem, access, namespace } = fact;
      return JSON.stringify([kind, device, mountPoint, fileSystem, access, namespace, layers(fact.layers)]);
    }
  }
};
