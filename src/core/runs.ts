/**
 * Lists of runs of physical regions: counting, ordering, set difference.
 *
 * A run list has two readings. In a region map its order is the order of the logical regions; as a set its order does
 * not matter. The functions here that take a set say so. A run's position is one number that orders runs over all
 * physical volumes; runs of two physical volumes are never neighbours by position.
 */
import type { RegionRun } from './rows.ts';

/** More than any region number: 8 TiB in regions of 64 KiB are 2^27. */
const POSITIONS_PER_PV = 2 ** 32;

/** (physical volume, region) as one number below 2^53. */
export const positionOf = (pv: number, region: number): number => pv * POSITIONS_PER_PV + region;
export const pvOfPosition = (position: number): number => Math.floor(position / POSITIONS_PER_PV);
export const regionOfPosition = (position: number): number => position % POSITIONS_PER_PV;

/** Regions in a list of runs that do not overlap. */
export const countRegions = (runs: readonly RegionRun[]): number => {
  let count = 0;
  for (const run of runs) count += run.count;
  return count;
};

export const isWellFormedRun = (run: RegionRun): boolean =>
  Number.isSafeInteger(run.pv) &&
  run.pv >= 0 &&
  Number.isSafeInteger(run.start) &&
  run.start >= 0 &&
  Number.isSafeInteger(run.count) &&
  run.count >= 1;

export const sameRuns = (a: readonly RegionRun[], b: readonly RegionRun[]): boolean => {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (const [index, run] of a.entries()) {
    const other = b[index];
    if (other === undefined || run.pv !== other.pv || run.start !== other.start || run.count !== other.count) return false;
  }
  return true;
};

/** A copy as a set: sorted by position. */
export const sortedRuns = (runs: readonly RegionRun[]): RegionRun[] => [...runs].sort((a, b) => a.pv - b.pv || a.start - b.start);

/** The first run that shares a region with another one of the list (a set), or null. */
export const overlapIn = (runs: readonly RegionRun[]): RegionRun | null => {
  let end = -1;
  for (const run of sortedRuns(runs)) {
    const start = positionOf(run.pv, run.start);
    if (start < end) return run;
    end = start + run.count;
  }
  return null;
};

/** Joins runs that follow each other in the list and on the medium; the order, so the logical reading, stays. */
export const mergeNeighbours = (runs: readonly RegionRun[]): RegionRun[] => {
  const merged: RegionRun[] = [];
  for (const run of runs) {
    const last = merged.at(-1);
    if (last !== undefined && last.pv === run.pv && last.start + last.count === run.start) {
      merged[merged.length - 1] = { pv: last.pv, start: last.start, count: last.count + run.count };
    } else {
      merged.push(run);
    }
  }
  return merged;
};

/** The regions of set `a` that are not in set `b`, as runs sorted by position. Linear after sorting. */
export const subtractRuns = (a: readonly RegionRun[], b: readonly RegionRun[]): RegionRun[] => {
  const holes = sortedRuns(b);
  const left: RegionRun[] = [];
  let next = 0;
  for (const run of sortedRuns(a)) {
    let position = positionOf(run.pv, run.start);
    const end = position + run.count;
    while (position < end) {
      let hole = holes[next];
      while (hole !== undefined && positionOf(hole.pv, hole.start) + hole.count <= position) {
        next += 1;
        hole = holes[next];
      }
      const holeStart = hole === undefined ? end : positionOf(hole.pv, hole.start);
      if (holeStart > position) left.push({ pv: run.pv, start: regionOfPosition(position), count: Math.min(holeStart, end) - position });
      position = hole === undefined ? end : Math.max(position, holeStart + hole.count);
    }
  }
  return left;
};

/** The first `count` logical regions of a region map, and what is left over after them. */
export const splitRuns = (runs: readonly RegionRun[], count: number): { readonly head: RegionRun[]; readonly tail: RegionRun[] } => {
  const head: RegionRun[] = [];
  const tail: RegionRun[] = [];
  let wanted = count;
  for (const run of runs) {
    const taken = Math.min(wanted, run.count);
    if (taken > 0) head.push({ pv: run.pv, start: run.start, count: taken });
    if (taken < run.count) tail.push({ pv: run.pv, start: run.start + taken, count: run.count - taken });
    wanted -= taken;
  }
  return { head, tail };
};
