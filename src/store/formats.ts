/**
 * Format versions of the store, and how a store of an older one is read.
 *
 * The version covers the superblock and the journal's records. A store of version n is read by passing each of its
 * operations through the upgraders n, n+1, ... up to the present version; then a new journal in the present format is
 * written and the superblock switched to it, which is one step (see compaction in `metadata-log.ts`). A crash before
 * that step leaves the old store as it was. A store of a newer version is refused.
 *
 * To change the format: raise FORMAT_VERSION, and add the upgrader of the version before. Never change an old upgrader.
 */
import type { TableOp } from '../core/rows.ts';

export const FORMAT_VERSION: number = 1;

/** Operations of one record of version n, as operations of version n+1. */
export type Upgrader = (ops: readonly unknown[]) => readonly unknown[];

export type Formats = {
  /** The version that is written, and the newest that is read. */
  readonly current: number;
  /** version n -> upgrader from n to n+1 */
  readonly upgraders: ReadonlyMap<number, Upgrader>;
};

/** Version 1 is the first: nothing to upgrade yet. */
export const FORMATS: Formats = { current: FORMAT_VERSION, upgraders: new Map() };

/** @returns null when a version between has no upgrader: the store is older than anything this program knows */
export const upgradePath = (from: number, formats: Formats): readonly Upgrader[] | null => {
  const path: Upgrader[] = [];
  for (let version = from; version < formats.current; version += 1) {
    const upgrader = formats.upgraders.get(version);
    if (upgrader === undefined) return null;
    path.push(upgrader);
  }
  return path;
};

export const upgradeOps = (ops: readonly unknown[], path: readonly Upgrader[]): readonly TableOp[] =>
  path.reduce((converted, upgrader) => upgrader(converted), ops) as readonly TableOp[];
