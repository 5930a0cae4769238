/**
 * The operations of common changes, built from the tables: what has to be in one record so that every invariant of
 * `tables.ts` holds. Pure; the caller commits the result (and may put more operations into the same record).
 */
import { TwinvolError } from './faults.ts';
import type { HostRow, PairRow, TableOp, VolumeRow } from './rows.ts';
import { countRegions, mergeNeighbours, splitRuns } from './runs.ts';
import type { Tables } from './tables.ts';

const withoutGrant = (host: HostRow, volume: number): HostRow => ({
  ...host,
  grants: Object.fromEntries(Object.entries(host.grants).filter(([number]) => Number(number) !== volume)),
});

/** Deletes a volume that is in no pair: its regions go to a scrub list, and the hosts' grants of it go too. */
export const volumeDeleteOps = (tables: Tables, volume: VolumeRow): TableOp[] => [
  { op: 'volume-delete', number: volume.number },
  { op: 'scrub-put', id: tables.nextScrubId, runs: mergeNeighbours(volume.runs) },
  ...tables
    .hosts()
    .filter((host) => host.grants[volume.number] !== undefined)
    .map((host): TableOp => ({ op: 'host-put', row: withoutGrant(host, volume.number) })),
];

/** Deletes a pair, also from its group. The secondary keeps its attribute. */
export const pairDeleteOps = (tables: Tables, pair: PairRow): TableOp[] => {
  const group = tables.groupOfPair(pair.id);
  const left =
    group === undefined ? [] : [{ op: 'group-put', row: { ...group, pairs: group.pairs.filter((id) => id !== pair.id) } } as const];
  return [{ op: 'pair-delete', id: pair.id }, ...left];
};

/**
 * Gives a volume another capacity. New regions come from the unassigned-region table, behind the last one where
 * possible; regions that are too many go to a scrub list.
 * @param scrubId id of that list; `tables.nextScrubId` when this is the record's only one
 * @throws TwinvolError `REGIONS_MISSING`, with `details.missing`
 */
export const volumeResizeOps = (
  tables: Tables,
  volume: VolumeRow,
  capacityBytes: number,
  scrubId: number = tables.nextScrubId,
): TableOp[] => {
  const wanted = Math.ceil(capacityBytes / tables.regionBytes);
  const present = countRegions(volume.runs);
  if (wanted <= present) {
    const { head, tail } = splitRuns(volume.runs, wanted);
    const row = { ...volume, capacityBytes, runs: head };
    return tail.length === 0
      ? [{ op: 'volume-put', row }]
      : [
          { op: 'volume-put', row },
          { op: 'scrub-put', id: scrubId, runs: tail },
        ];
  }
  const added = requireRegions(tables, wanted - present, volume.runs.at(-1));
  return [{ op: 'volume-put', row: { ...volume, capacityBytes, runs: mergeNeighbours([...volume.runs, ...added]) } }];
};

/** Regions for a new owner. @throws TwinvolError `REGIONS_MISSING`, with `details.missing` */
export const requireRegions = (tables: Tables, count: number, after?: VolumeRow['runs'][number]): VolumeRow['runs'] => {
  const runs = tables.unassigned.plan(count, after);
  if (runs !== null) return runs;
  const missing = count - tables.unassigned.freeRegions;
  throw new TwinvolError(
    'REGIONS_MISSING',
    `${count} regions are needed and ${tables.unassigned.freeRegions} are unassigned: ${missing} are missing`,
    {
      details: { needed: count, unassigned: tables.unassigned.freeRegions, missing },
    },
  );
};
