/**
 * How the regions of a record change their owners: unassigned -> volume -> scrub list -> unassigned, never otherwise.
 *
 * The order of the steps is what enforces it. A volume takes its new regions before anything is given back, so it gets
 * only what was unassigned before the record. What a volume gives must be in a scrub list at the end.
 */
import type { UnassignedRegions } from './allocator.ts';
import type { RegionRun } from './rows.ts';
import { sameRuns, subtractRuns } from './runs.ts';
import type { Rows, Undo } from './tables.ts';

/** @throws Error, with no effect on `unassigned`, when a region would have two owners or leave its circle */
export const moveRegions = (rows: Rows, unassigned: UnassignedRegions): Undo => {
  const undos: Undo[] = [];
  const undo = (): void => {
    for (const step of undos.splice(0).reverse()) step();
  };
  const take = (runs: readonly RegionRun[]): void => {
    unassigned.take(runs);
    undos.push(() => unassigned.give(runs));
  };
  const give = (runs: readonly RegionRun[]): void => {
    unassigned.give(runs);
    undos.push(() => unassigned.take(runs));
  };
  try {
    addPvs(rows, unassigned, undos);
    const removed = moveVolumeRegions(rows, take);
    for (const runs of removed.values()) give(runs);
    const scrubs = [...rows.scrubs.changes].map(([id, before]) => ({ old: before?.runs ?? [], now: rows.scrubs.get(id)?.runs ?? [] }));
    for (const { old, now } of scrubs) if (!sameRuns(old, now)) give(old);
    for (const { old, now } of scrubs) if (!sameRuns(old, now)) take(now);
    for (const [number, runs] of removed) {
      if (runs.some((run) => unassigned.touchesFree(run))) throw new Error(`regions leave volume ${number} and are in no scrub list`);
    }
  } catch (error) {
    undo();
    throw error;
  }
  return undo;
};

const addPvs = (rows: Rows, unassigned: UnassignedRegions, undos: Undo[]): void => {
  for (const [number, before] of rows.pvs.changes) {
    const after = rows.pvs.get(number);
    if (before !== undefined || after === undefined) continue;
    unassigned.addPv(number, after.regions);
    undos.push(() => unassigned.removePv(number));
  }
};

/** Takes what volumes gain; returns, by volume, what they lose. */
const moveVolumeRegions = (rows: Rows, take: (runs: readonly RegionRun[]) => void): Map<number, readonly RegionRun[]> => {
  const removed = new Map<number, readonly RegionRun[]>();
  for (const [number, before] of rows.volumes.changes) {
    const old = before?.runs ?? [];
    const now = rows.volumes.get(number)?.runs ?? [];
    if (sameRuns(old, now)) continue;
    if (old.length === 0) {
      take(now);
      continue;
    }
    const lost = subtractRuns(old, now);
    const gained = subtractRuns(now, old);
    assertNoRegionTwice(number, old, now, lost, gained);
    if (gained.length > 0) take(gained);
    if (lost.length > 0) removed.set(number, lost);
  }
  return removed;
};

/** A set difference hides a region that a map has twice; the counts show it. */
const assertNoRegionTwice = (
  number: number,
  old: readonly RegionRun[],
  now: readonly RegionRun[],
  lost: readonly RegionRun[],
  gained: readonly RegionRun[],
): void => {
  const count = (runs: readonly RegionRun[]): number => runs.reduce((sum, run) => sum + run.count, 0);
  if (count(old) - count(lost) + count(gained) !== count(now)) throw new Error(`volume ${number} has a region twice`);
};
