/** Rows for tests of the tables, with everything that a test does not care about filled in. Regions are 1 MiB. */
import type { HostRow, PairRow, RegionRun, TableOp, VolumeRow } from '../../src/core/rows.ts';
import { MiB } from '../../src/core/units.ts';

export const REGION_BYTES: number = MiB;

export const pvPut = (number: number, regions: number): TableOp => ({ op: 'pv-put', row: { number, regions } });

/** A volume with exactly the regions of `runs`. */
export const volumeRow = (number: number, runs: readonly RegionRun[], fields: Partial<VolumeRow> = {}): VolumeRow => ({
  number,
  name: `v${number}`,
  capacityBytes: runs.reduce((sum, run) => sum + run.count, 0) * REGION_BYTES,
  attribute: 'normal',
  runs,
  isProtected: false,
  uuid: `uuid-${number}`,
  createdAtMs: 1_700_000_000_000,
  ...fields,
});

export const volumePut = (number: number, runs: readonly RegionRun[], fields: Partial<VolumeRow> = {}): TableOp => ({
  op: 'volume-put',
  row: volumeRow(number, runs, fields),
});

export const pairPut = (id: number, primary: number, secondary: number, fields: Partial<PairRow> = {}): TableOp => ({
  op: 'pair-put',
  row: {
    id,
    primary,
    secondary,
    state: 'duplex',
    dirtyRegionBytes: 65_536,
    fence: 'never',
    pace: 8,
    createdAtMs: 1,
    stateSinceMs: 1,
    ...fields,
  },
});

export const hostPut = (name: string, grants: HostRow['grants'] = {}): TableOp => ({
  op: 'host-put',
  row: { name, tokenSha256: 'ab'.repeat(32), grants, createdAtMs: 1 },
});
