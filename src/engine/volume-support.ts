/** What several command groups do with a volume: find it, refuse it while paired, hold it, ask about it, refit it. */
import { TwinvolError } from '../core/faults.ts';
import { movesOf, refit } from '../core/fitting.ts';
import type { Fitting } from '../core/fitting.ts';
import type { TableOp, VolumeRow } from '../core/rows.ts';
import { countRegions } from '../core/runs.ts';
import { requireRegions } from '../core/table-changes.ts';
import type { Tables } from '../core/tables.ts';
import type { RegionMove } from '../core/views.ts';
import type { VolumeSpec } from '../data/plane-api.ts';
import type { Consent, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';
import { wholeVolume } from './pair-destruction.ts';

export const volumeSpec = (row: VolumeRow): VolumeSpec => ({
  number: row.number,
  name: row.name,
  capacityBytes: row.capacityBytes,
  runs: row.runs,
});

/** @throws TwinvolError `VOLUME_PAIRED`, naming the pair and its state */
export const requireUnpaired = (context: DeviceContext, row: VolumeRow, command: string): void => {
  const pair = context.pairs.ofSecondary(row.number) ?? context.pairs.ofPrimary(row.number)[0];
  if (pair === undefined) return;
  const role = pair.secondary === row.number ? 'secondary' : 'primary';
  throw new TwinvolError(
    'VOLUME_PAIRED',
    `${command} refused: ${row.name} is the ${role} of ${context.views.pairText(pair)} (${pair.state}); nothing was changed`,
    {
      details: { volume: row.number, pair: pair.id, role, state: pair.state },
    },
  );
};

/**
 * Runs a command alone on a volume. The row is looked up again once the volume is ours: another command may have
 * changed, renamed or deleted it while this one waited.
 */
export const onVolume = async <T>(
  context: DeviceContext,
  ref: VolumeRef,
  command: string,
  work: (row: VolumeRow) => Promise<T>,
): Promise<T> => {
  const { number, uuid, name } = context.store.tables.volume(ref);
  return context.locks.run([`volume:${number}`], `${command} ${name}`, () => {
    const row = context.store.tables.findVolume(number);
    if (row?.uuid !== uuid)
      throw new TwinvolError('VOLUME_NOT_FOUND', `volume ${name} was deleted meanwhile`, { details: { volume: number } });
    return work(row);
  });
};

/**
 * Holds a volume that is in no pair, asks whether somebody uses it (specification 6), and then does the work.
 * @throws TwinvolError as `InquiryGate.check`, and whatever the work throws
 */
export const onceCleared = async <T>(
  context: DeviceContext,
  row: VolumeRow,
  command: string,
  consent: Consent | undefined,
  work: () => Promise<T>,
): Promise<T> => {
  const { plane, gate } = context;
  await plane.volumeHold(row.number);
  try {
    const permit = await gate.check({
      command: `${command} ${row.name}`,
      targets: [{ number: row.number, name: row.name, destroys: wholeVolume(row) }],
      generation: `${row.uuid}:${row.attribute}:${row.capacityBytes}`,
      ...(consent === undefined ? {} : { consent }),
    });
    try {
      const done = await work();
      await permit.ended(null);
      return done;
    } catch (error) {
      await permit.ended(error);
      throw error;
    }
  } finally {
    await plane.volumeUnhold(row.number);
  }
};

export type RefitOps = {
  readonly ops: readonly TableOp[];
  readonly row: VolumeRow;
  /** The list of the regions that were given away; null when there are none. */
  readonly scrubId: number | null;
};

/** Operations that fit a volume. Called within `commit`. @throws TwinvolError `REGIONS_MISSING` */
export const refitOps = (tables: Tables, row: VolumeRow, fitting: Fitting): RefitOps => {
  const granted = requireRegions(tables, fitting.missingRegions, row.runs.at(-1));
  const { row: fitted, surplus } = refit(row, fitting, granted);
  const put: TableOp = { op: 'volume-put', row: fitted };
  if (surplus.length === 0) return { ops: [put], row: fitted, scrubId: null };
  const scrubId = tables.nextScrubId;
  return { ops: [put, { op: 'scrub-put', id: scrubId, runs: surplus }], row: fitted, scrubId };
};

/** The regions that a fitting would move if it were done now. */
export const plannedMoves = (tables: Tables, row: VolumeRow, fitting: Fitting): readonly RegionMove[] =>
  movesOf(row, fitting, tables.unassigned.plan(fitting.missingRegions, row.runs.at(-1)));

/** `12 regions go to the unassigned-region table`, for plans. */
export const fittingText = (row: VolumeRow, fitting: Fitting): string => {
  if (fitting.surplusRegions > 0)
    return `${row.name} gives ${fitting.surplusRegions} of its ${countRegions(row.runs)} regions to the unassigned-region table; they are cleared first`;
  if (fitting.missingRegions > 0) return `${row.name} gets ${fitting.missingRegions} regions from the unassigned-region table`;
  return `${row.name} gets the capacity of ${fitting.capacityBytes} bytes within its ${countRegions(row.runs)} regions`;
};
