/**
 * The secondary pool: who can be a secondary and why not, and giving a fitted volume its former capacity back.
 *
 * Restoring a capacity, as fitting, takes regions from the unassigned-region table only; regions that it gives back are
 * cleared when no lane has them in a map any more.
 */
import { TwinvolError } from '../core/faults.ts';
import { fittingFor } from '../core/fitting.ts';
import type { Fitting } from '../core/fitting.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import { regionsMissing, reportCandidates } from '../core/selection.ts';
import type { Pool } from '../core/selection.ts';
import type { TableOp, VolumeRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import type { CandidateView, PlanView, VolumeView } from '../core/views.ts';
import type { CandidatesInput, Consent, Planned, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';
import { wholeVolume } from './pair-destruction.ts';
import { planView } from './plan.ts';
import { fittingText, onceCleared, onVolume, plannedMoves, refitOps, requireUnpaired, volumeSpec } from './volume-support.ts';

/** The pool as the choice sees it. */
export const poolOf = (context: DeviceContext): Pool => {
  const { store, pairs, regions } = context;
  const { tables } = store;
  return {
    volumes: tables.volumes(),
    involvementOf: (number) => {
      if (!tables.isPaired(number)) return undefined;
      const asSecondary = pairs.ofSecondary(number);
      const pair = asSecondary ?? pairs.ofPrimary(number)[0];
      if (pair === undefined) return undefined;
      const partner = asSecondary === undefined ? pair.secondary : pair.primary;
      return {
        role: asSecondary === undefined ? 'primary' : 'secondary',
        partner: tables.findVolume(partner)?.name ?? `#${partner}`,
        state: pair.state,
      };
    },
    regionBytes: store.regionBytes,
    unassignedRegions: tables.unassigned.freeRegions,
    scrubbingRegions: regions.scrubbingRegions,
  };
};

export class PoolCommands {
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  candidates(input: CandidatesInput): readonly CandidateView[] {
    const { tables } = this.#context.store;
    return reportCandidates(tables.volume(input.primary), poolOf(this.#context), {
      // The device's default condition binds its own choice only (`pair-create.ts`).
      condition: input.condition ?? 'any',
      fit: input.fit ?? tables.settings.fit,
      explain: input.explain === true,
    });
  }

  async restoreSize(input: Planned & { readonly volume: VolumeRef; readonly consent?: Consent }): Promise<VolumeView | PlanView> {
    return onVolume(this.#context, input.volume, 'pool restore-size', async (row) => {
      requireUnpaired(this.#context, row, 'pool restore-size');
      requireInPool(row);
      const fitting = this.#formerFitting(row);
      if (input.plan !== true) await this.#waitForRegions(fitting);
      this.#requireRegions(row, fitting, input.plan === true);
      if (input.plan === true) {
        const hosts = this.#context.gate.hostsFor([row.number]);
        return planView('pool restore-size', {
          steps: [fittingText(row, fitting)],
          volumes: [row.name],
          hosts,
          regions: fitting.surplusRegions + fitting.missingRegions,
          moves: plannedMoves(this.#context.store.tables, row, fitting),
          destroys: lostBy(row, fitting),
        });
      }
      const { plane } = this.#context;
      await onceCleared(this.#context, row, 'pool restore-size', input.consent, async () => {
        await this.#context.regions.clearBehind(row, fitting.capacityBytes);
        const scrubId = await this.#commit(row, fitting);
        await plane.volumeReplace(volumeSpec(this.#context.store.tables.volume(row.number)));
        if (scrubId !== null) this.#context.regions.ready(scrubId);
      });
      const restored = this.#context.store.tables.volume(row.number);
      this.#context.events.append('change', 'volume', row.number, { name: restored.name, capacityBytes: restored.capacityBytes });
      return this.#context.views.volume(restored);
    });
  }

  #formerFitting(row: VolumeRow): Fitting {
    const fitting =
      row.formerCapacityBytes === undefined ? null : fittingFor(row, row.formerCapacityBytes, this.#context.store.regionBytes);
    if (fitting !== null) return fitting;
    throw new TwinvolError('NEVER_FITTED', `pool restore-size refused: the capacity of ${row.name} was never changed by region fitting`, {
      details: { volume: row.number },
    });
  }

  async #waitForRegions(fitting: Fitting): Promise<void> {
    if (fitting.missingRegions > 0) await this.#context.regions.waitForCleared(fitting.missingRegions);
  }

  /** @throws TwinvolError `REGIONS_MISSING` */
  #requireRegions(row: VolumeRow, fitting: Fitting, isPlan: boolean): void {
    const pool = poolOf(this.#context);
    // The command itself waits for those that are being cleared.
    const expected = pool.unassignedRegions + (isPlan ? pool.scrubbingRegions : 0);
    if (fitting.missingRegions > expected) throw regionsMissing(row, row, fitting, pool);
  }

  async #commit(row: VolumeRow, fitting: Fitting): Promise<number | null> {
    let scrubId: number | null = null;
    await this.#context.regions.commitTaking((tables: Tables): readonly TableOp[] => {
      const refitted = refitOps(tables, tables.volume(row.number), fitting);
      scrubId = refitted.scrubId;
      return refitted.ops;
    });
    return scrubId;
  }
}

/** A volume that a release made normal keeps all of its data, with the capacity that it has by then. */
const requireInPool = (row: VolumeRow): void => {
  if (row.attribute === 'secondary') return;
  throw new TwinvolError('NOT_IN_POOL', `pool restore-size refused: ${row.name} is a normal volume; nothing was changed`, {
    remedy: `its data would be cut off or lost: put it into the pool first, with twinvol volume set ${row.name} --attribute secondary`,
    details: { volume: row.number },
  });
};

/** What was written behind the former capacity goes with its regions. */
const lostBy = (row: VolumeRow, { capacityBytes, surplusRegions }: Fitting): readonly Destruction[] =>
  surplusRegions === 0 ? [] : [{ ...wholeVolume(row), regions: surplusRegions, bytes: row.capacityBytes - capacityBytes }];
