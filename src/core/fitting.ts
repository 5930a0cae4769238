/**
 * Region fitting (JP embodiment 3): what it takes to give a secondary exactly the primary's capacity. Pure.
 *
 * A larger volume gives its last regions away; a smaller one gets regions appended at its end. So the logical
 * regions that stay keep their numbers, and only the tail of the region map changes.
 */
import type { RegionRun, VolumeRow } from './rows.ts';
import { countRegions, mergeNeighbours, splitRuns } from './runs.ts';
import type { RegionMove } from './views.ts';

/** Physical regions for a capacity; the last one may be used in part. */
export const regionsFor = (capacityBytes: number, regionBytes: number): number => Math.ceil(capacityBytes / regionBytes);

export type Fitting = {
  readonly capacityBytes: number;
  /** Regions that the volume gives to the unassigned-region table. */
  readonly surplusRegions: number;
  /** Regions that it gets from there. */
  readonly missingRegions: number;
};

/** What fitting `volume` to a capacity takes; null when it has that capacity already. */
export const fittingFor = (volume: Pick<VolumeRow, 'capacityBytes'>, capacityBytes: number, regionBytes: number): Fitting | null => {
  if (volume.capacityBytes === capacityBytes) return null;
  const difference = regionsFor(capacityBytes, regionBytes) - regionsFor(volume.capacityBytes, regionBytes);
  return { capacityBytes, surplusRegions: Math.max(0, -difference), missingRegions: Math.max(0, difference) };
};

export type Refit = { readonly row: VolumeRow; readonly surplus: readonly RegionRun[] };

/**
 * The volume's row after fitting. `formerCapacityBytes` remembers the first capacity, so that two fittings in a row
 * are still undone to what it once was; it is dropped when the volume is back there.
 * @param granted runs for the missing regions, exactly `missingRegions` of them
 */
export const refit = (volume: VolumeRow, fitting: Fitting, granted: readonly RegionRun[]): Refit => {
  if (countRegions(granted) !== fitting.missingRegions)
    throw new Error(`fitting needs ${fitting.missingRegions} regions, got ${countRegions(granted)}`);
  const { head: kept, tail: surplus } = splitRuns(volume.runs, countRegions(volume.runs) - fitting.surplusRegions);
  const { formerCapacityBytes, ...rest } = volume;
  const former = formerCapacityBytes ?? volume.capacityBytes;
  const row: VolumeRow = {
    ...rest,
    capacityBytes: fitting.capacityBytes,
    runs: mergeNeighbours([...kept, ...granted]),
    ...(former === fitting.capacityBytes ? {} : { formerCapacityBytes: former }),
  };
  return { row, surplus };
};

/**
 * What goes where in a fitting, for its plan.
 * @param granted the regions that it would get; null while some of them are not there to be given yet
 */
export const movesOf = (volume: VolumeRow, fitting: Fitting, granted: readonly RegionRun[] | null): readonly RegionMove[] => {
  const { surplusRegions, missingRegions } = fitting;
  const firstRegion = countRegions(volume.runs) - surplusRegions;
  if (surplusRegions > 0)
    return [{ from: volume.name, to: null, firstRegion, regions: surplusRegions, runs: splitRuns(volume.runs, firstRegion).tail }];
  if (missingRegions > 0) return [{ from: null, to: volume.name, firstRegion, regions: missingRegions, runs: granted ?? [] }];
  return [];
};
