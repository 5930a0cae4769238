/**
 * What a device would be like: a copy of its tables on which the changes of a declaration are carried out one after the
 * other, with the same rules as the real ones. A change that the device would refuse is refused here, before anything
 * has happened.
 *
 * Regions that a volume gives away count as unassigned at once: a command that needs them waits until they are cleared.
 */
import { TwinvolError } from './faults.ts';
import { fittingFor, refit } from './fitting.ts';
import type { Fitting } from './fitting.ts';
import type { PairRow, TableOp, VolumeAttribute, VolumeRow } from './rows.ts';
import { countRegions, mergeNeighbours } from './runs.ts';
import { chooseSecondary, nameSecondary } from './selection.ts';
import type { Choice, Pool, Wish } from './selection.ts';
import { requireRegions } from './table-changes.ts';
import { Tables } from './tables.ts';
import { dirtyRegionBytesFor, PV_COUNT_MAX, VOLUME_COUNT_MAX } from './units.ts';

/** Facts about the real device that its tables do not say. */
export type DeviceFacts = {
  /** Regions of a physical volume that is added when volumes are made or grown. */
  readonly regionsPerPv: number;
};

export type NewVolume = {
  readonly name: string;
  readonly sizeBytes: number;
  readonly attribute: VolumeAttribute;
  readonly isProtected: boolean;
};

export class DeclarationModel {
  readonly tables: Tables;
  readonly #facts: DeviceFacts;
  /** Unused volumes of attribute secondary: whom a choice looks at. Kept, because there may be thousands of choices. */
  readonly #unused = new Map<number, VolumeRow>();
  #pvCount: number;

  constructor(real: Tables, facts: DeviceFacts) {
    this.tables = new Tables({ regionBytes: real.regionBytes });
    this.tables.apply(real.snapshot());
    this.#facts = facts;
    this.#pvCount = real.pvs().length;
    for (const { id } of this.tables.scrubs()) this.tables.apply([{ op: 'scrub-delete', id }]);
    for (const row of this.tables.volumes()) this.#note(row);
  }

  /** @throws TwinvolError `LIMIT` */
  createVolume({ name, sizeBytes, attribute, isProtected }: NewVolume): VolumeRow {
    const number = this.tables.nextVolumeNumber;
    if (number > VOLUME_COUNT_MAX) throw new TwinvolError('LIMIT', `a device has at most ${VOLUME_COUNT_MAX} volumes`);
    const count = Math.ceil(sizeBytes / this.tables.regionBytes);
    this.#growPvs(count);
    const runs = requireRegions(this.tables, count);
    return this.put({ number, name, capacityBytes: sizeBytes, attribute, isProtected, runs, uuid: `declared:${name}`, createdAtMs: 0 });
  }

  /** @throws TwinvolError `LIMIT` */
  growVolume(row: VolumeRow, sizeBytes: number): VolumeRow {
    const { formerCapacityBytes: _former, ...rest } = row;
    const more = Math.ceil(sizeBytes / this.tables.regionBytes) - countRegions(row.runs);
    this.#growPvs(more);
    const runs = mergeNeighbours([...row.runs, ...requireRegions(this.tables, more, row.runs.at(-1))]);
    return this.put({ ...rest, capacityBytes: sizeBytes, runs });
  }

  /** Region fitting, of a secondary or back to a former capacity. @throws TwinvolError `REGIONS_MISSING` */
  refitVolume(row: VolumeRow, fitting: Fitting): VolumeRow {
    const { row: fitted, surplus } = refit(row, fitting, requireRegions(this.tables, fitting.missingRegions, row.runs.at(-1)));
    const id = this.tables.nextScrubId;
    const scrub: readonly TableOp[] = surplus.length === 0 ? [] : [{ op: 'scrub-put', id, runs: surplus }];
    this.tables.apply([{ op: 'volume-put', row: fitted }, ...scrub]);
    if (surplus.length > 0) this.tables.apply([{ op: 'scrub-delete', id }]);
    this.#note(fitted);
    return fitted;
  }

  /** The fitting back to the capacity that the volume once had; null: it was never fitted. */
  formerFitting(row: VolumeRow): Fitting | null {
    return row.formerCapacityBytes === undefined ? null : fittingFor(row, row.formerCapacityBytes, this.tables.regionBytes);
  }

  put(row: VolumeRow): VolumeRow {
    this.tables.apply([{ op: 'volume-put', row }]);
    this.#note(row);
    return row;
  }

  /**
   * The secondary that the device would choose, or the judgement on the named one.
   * @throws TwinvolError `NO_CANDIDATE`, `REGIONS_MISSING`, `NOT_A_SECONDARY`, `VOLUME_PAIRED`
   */
  choose(primary: VolumeRow, named: VolumeRow | null, wish: Wish): Choice {
    return named === null ? chooseSecondary(primary, this.#pool(), wish) : nameSecondary(primary, named, this.#pool(), wish);
  }

  createPair(primary: VolumeRow, { volume, fitting }: Choice): PairRow {
    const secondary = fitting === null ? volume : this.refitVolume(volume, fitting);
    const row: PairRow = {
      id: this.tables.nextPairId,
      primary: primary.number,
      secondary: secondary.number,
      state: 'duplex-pending',
      copy: 'initial',
      dirtyRegionBytes: dirtyRegionBytesFor(primary.capacityBytes, this.tables.regionBytes),
      fence: 'never',
      pace: 8,
      createdAtMs: 0,
      stateSinceMs: 0,
    };
    this.tables.apply([{ op: 'pair-put', row }]);
    this.#unused.delete(secondary.number);
    return row;
  }

  #pool(): Pool {
    const { tables } = this;
    return {
      volumes: { [Symbol.iterator]: () => this.#unused.values() },
      involvementOf: (number) => {
        const asSecondary = tables.pairOfSecondary(number);
        const pair = asSecondary ?? tables.pairsOfPrimary(number)[0];
        if (pair === undefined) return undefined;
        const partner = tables.findVolume(asSecondary === undefined ? pair.secondary : pair.primary)?.name ?? '';
        return { role: asSecondary === undefined ? 'primary' : 'secondary', partner, state: pair.state };
      },
      regionBytes: tables.regionBytes,
      unassignedRegions: tables.unassigned.freeRegions,
      scrubbingRegions: 0,
    };
  }

  #note(row: VolumeRow): void {
    if (row.attribute === 'secondary' && !this.tables.isPaired(row.number)) this.#unused.set(row.number, row);
    else this.#unused.delete(row.number);
  }

  /** Physical volumes are added for volumes that are made or grown, as the device does it. */
  #growPvs(regions: number): void {
    const missing = regions - this.tables.unassigned.freeRegions;
    const count = Math.max(0, Math.ceil(missing / this.#facts.regionsPerPv));
    if (this.#pvCount + count > PV_COUNT_MAX) {
      throw new TwinvolError(
        'LIMIT',
        `${count} more physical volumes are needed, there would be ${this.#pvCount}, and ${PV_COUNT_MAX} is the limit`,
      );
    }
    const last = this.tables.pvs().at(-1)?.number ?? 0;
    const ops = Array.from(
      { length: count },
      (_, index): TableOp => ({ op: 'pv-put', row: { number: last + 1 + index, regions: this.#facts.regionsPerPv } }),
    );
    if (count > 0) this.tables.apply(ops);
    this.#pvCount += count;
  }
}
