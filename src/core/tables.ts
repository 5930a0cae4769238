/**
 * The tables of a device: volumes, pairs, groups, hosts, settings, physical volumes, scrub lists, and the
 * unassigned-region table that follows from them. Pure: built by applying journal operations, and by nothing else.
 *
 * `apply` takes the operations of one record together: whole or, when it throws, not at all. What must hold is checked
 * at the end of the record, so their order within it does not matter (a volume's deletion and its regions' scrub list,
 * two volumes that swap names). What must hold (`check` verifies all of it anew, slowly):
 * - each region has one owner: a volume, a scrub list, or the unassigned-region table;
 * - regions go round in one direction only: unassigned -> volume -> scrub list -> unassigned. So a region that has held
 *   data cannot reach another volume before it was made to read as zeros (specification 2, freed regions);
 * - a volume's name is its own; its regions make its capacity;
 * - a pair's volumes exist, the primary is `normal` and the secondary is `secondary` and not smaller (so there are no
 *   cascades); a volume is the secondary of one pair at most; a pair's volumes never change; its id is never used again;
 * - a group's members exist, and a pair is in one group at most; a host's grants name volumes that exist (numbers are
 *   used again, so a grant must not outlive its volume).
 * Rows are never changed in place; what a lookup returns stays as it is.
 */
import { UnassignedRegions } from './allocator.ts';
import { TwinvolError } from './faults.ts';
import { isDigits } from './names.ts';
import { groupVerdict, hostVerdict, pairVerdict, pvVerdict, scrubVerdict, settingsVerdict, volumeVerdict } from './row-rules.ts';
import type { DeviceSettings, GroupRow, HostRow, PairRow, PvRow, RegionRun, TableOp, VolumeRow } from './rows.ts';
import { SETTINGS_DEFAULT } from './rows.ts';
import { sameRuns } from './runs.ts';
import { checkTables } from './table-check.ts';
import { TableIndexes } from './table-indexes.ts';
import { crossRules } from './table-rules.ts';
import { moveRegions } from './table-regions.ts';
import { TrackedRows } from './tracked-rows.ts';

/** Runs that left a volume and may still hold its data. */
export type ScrubRow = { readonly id: number; readonly runs: readonly RegionRun[] };

/** Takes the change back; only right after it, or after later changes were taken back (last one first). */
export type Undo = () => void;

/** The rows, as the rules and the region moves see them while a change is in progress. */
export type Rows = {
  readonly pvs: TrackedRows<number, PvRow>;
  readonly volumes: TrackedRows<number, VolumeRow>;
  readonly pairs: TrackedRows<number, PairRow>;
  readonly groups: TrackedRows<string, GroupRow>;
  readonly hosts: TrackedRows<string, HostRow>;
  readonly scrubs: TrackedRows<number, ScrubRow>;
};

/** What is not a row. */
type Scalars = {
  readonly settings: DeviceSettings;
  readonly nextPairId: number;
  readonly nextScrubId: number;
  readonly isCleanShutdown: boolean;
  readonly revision: number;
};

/** An operation that cannot be: a bug of the caller, or a journal that was tampered with. */
export const invalidOp = (text: string, details: Readonly<Record<string, unknown>> = {}): TwinvolError =>
  new TwinvolError('INTERNAL', `the tables refuse a change: ${text}`, { details });

const byNumber = (a: { readonly number: number }, b: { readonly number: number }): number => a.number - b.number;
const byId = (a: { readonly id: number }, b: { readonly id: number }): number => a.id - b.id;
const byName = (a: { readonly name: string }, b: { readonly name: string }): number => (a.name < b.name ? -1 : Number(a.name > b.name));

export class Tables {
  /** Size of a physical region, in bytes. */
  readonly regionBytes: number;
  /** The unassigned-region table. Read it and plan with it; only `apply` changes it. */
  readonly unassigned: UnassignedRegions = new UnassignedRegions();
  readonly #indexes = new TableIndexes();
  readonly #rows: Rows = {
    pvs: new TrackedRows(),
    volumes: new TrackedRows(),
    pairs: new TrackedRows(),
    groups: new TrackedRows(),
    hosts: new TrackedRows(),
    scrubs: new TrackedRows(),
  };
  #scalars: Scalars = { settings: SETTINGS_DEFAULT, nextPairId: 1, nextScrubId: 1, isCleanShutdown: false, revision: 0 };
  #volumesInOrder: readonly VolumeRow[] | null = null;

  constructor(options: { readonly regionBytes: number }) {
    this.regionBytes = options.regionBytes;
  }

  get settings(): DeviceSettings {
    return this.#scalars.settings;
  }
  /** The next pair's id. Never one that was used before. */
  get nextPairId(): number {
    return this.#scalars.nextPairId;
  }
  get nextScrubId(): number {
    return this.#scalars.nextScrubId;
  }
  /** The next volume's number: the lowest that is free. */
  get nextVolumeNumber(): number {
    return this.#indexes.lowestFreeNumber((number) => this.#rows.volumes.has(number));
  }
  /** True when the last record says so and nothing came after it. */
  get isCleanShutdown(): boolean {
    return this.#scalars.isCleanShutdown;
  }
  /** Rises with every applied record. */
  get revision(): number {
    return this.#scalars.revision;
  }
  get volumeCount(): number {
    return this.#rows.volumes.size;
  }
  get pairCount(): number {
    return this.#rows.pairs.size;
  }

  /** Physical volumes by number. */
  pvs(): readonly PvRow[] {
    return [...this.#rows.pvs.values()].sort(byNumber);
  }
  pv(number: number): PvRow | undefined {
    return this.#rows.pvs.get(number);
  }

  /** Volumes by number. The list is shared: do not change it. */
  volumes(): readonly VolumeRow[] {
    this.#volumesInOrder ??= [...this.#rows.volumes.values()].sort(byNumber);
    return this.#volumesInOrder;
  }

  /** A text of digits is a number. */
  findVolume(ref: string | number): VolumeRow | undefined {
    if (typeof ref === 'number') return this.#rows.volumes.get(ref);
    if (isDigits(ref)) return this.#rows.volumes.get(Number(ref));
    const number = this.#indexes.volumeByName(ref);
    return number === undefined ? undefined : this.#rows.volumes.get(number);
  }

  /** @throws TwinvolError `VOLUME_NOT_FOUND` */
  volume(ref: string | number): VolumeRow {
    const row = this.findVolume(ref);
    if (row === undefined) throw new TwinvolError('VOLUME_NOT_FOUND', `there is no volume ${ref}`, { details: { volume: ref } });
    return row;
  }

  /** Pairs by id. */
  pairs(): readonly PairRow[] {
    return [...this.#rows.pairs.values()].sort(byId);
  }
  pair(id: number): PairRow | undefined {
    return this.#rows.pairs.get(id);
  }
  /** Pairs of a primary, by id; empty when the volume is none. */
  pairsOfPrimary(volume: number): readonly PairRow[] {
    return [...this.#indexes.pairsByPrimary(volume)].map((id) => this.#rows.pairs.get(id) as PairRow).sort(byId);
  }
  pairOfSecondary(volume: number): PairRow | undefined {
    const id = this.#indexes.pairBySecondary(volume);
    return id === undefined ? undefined : this.#rows.pairs.get(id);
  }
  isPaired(volume: number): boolean {
    return this.#indexes.pairBySecondary(volume) !== undefined || this.#indexes.pairsByPrimary(volume).size > 0;
  }

  /** Groups by name. */
  groups(): readonly GroupRow[] {
    return [...this.#rows.groups.values()].sort(byName);
  }
  group(name: string): GroupRow | undefined {
    return this.#rows.groups.get(name);
  }
  groupOfPair(id: number): GroupRow | undefined {
    const name = this.#indexes.groupOfPair(id);
    return name === undefined ? undefined : this.#rows.groups.get(name);
  }

  /** Hosts by name. */
  hosts(): readonly HostRow[] {
    return [...this.#rows.hosts.values()].sort(byName);
  }
  host(name: string): HostRow | undefined {
    return this.#rows.hosts.get(name);
  }

  /** Scrub lists by id. */
  scrubs(): readonly ScrubRow[] {
    return [...this.#rows.scrubs.values()].sort(byId);
  }

  /**
   * Applies one record.
   * @returns how to take it back
   * @throws TwinvolError `INTERNAL`, with no effect, when an operation or what comes of all of them is invalid
   */
  apply(ops: readonly TableOp[]): Undo {
    const scalars = this.#scalars;
    let undoRegions: Undo;
    try {
      this.#scalars = { ...scalars, isCleanShutdown: false, revision: scalars.revision + 1 };
      for (const op of ops) this.#applyOp(op);
      crossRules(this.#rows, this.#indexes);
      undoRegions = moveRegions(this.#rows, this.unassigned);
    } catch (error) {
      for (const table of Object.values(this.#rows) as Array<TrackedRows<unknown, unknown>>) table.restore(table.settle());
      this.#scalars = scalars;
      throw error instanceof TwinvolError ? error : invalidOp((error as Error).message);
    }
    this.#reindex();
    const before = (Object.values(this.#rows) as Array<TrackedRows<unknown, unknown>>).map((table) => ({ table, rows: table.settle() }));
    return () => {
      undoRegions();
      for (const { table, rows } of before) for (const [key, row] of rows) row === undefined ? table.delete(key) : table.set(key, row);
      this.#reindex();
      for (const { table } of before) table.settle();
      this.#scalars = scalars;
    };
  }

  /** One list of operations that makes these tables from nothing. The mark of a clean shutdown is not in it. */
  snapshot(): TableOp[] {
    const { settings, nextPairId, nextScrubId } = this.#scalars;
    return [
      { op: 'settings-put', settings },
      ...this.pvs().map((row): TableOp => ({ op: 'pv-put', row })),
      ...this.volumes().map((row): TableOp => ({ op: 'volume-put', row })),
      ...this.scrubs().map(({ id, runs }): TableOp => ({ op: 'scrub-put', id, runs })),
      ...this.pairs().map((row): TableOp => ({ op: 'pair-put', row })),
      ...this.groups().map((row): TableOp => ({ op: 'group-put', row })),
      ...this.hosts().map((row): TableOp => ({ op: 'host-put', row })),
      { op: 'counters-put', nextPairId, nextScrubId },
    ];
  }

  /** Verifies every invariant from the rows alone. Empty: all hold. */
  check(): string[] {
    return checkTables(this);
  }

  #reindex(): void {
    this.#indexes.moveVolumes(this.#rows.volumes.changes, this.#rows.volumes);
    this.#indexes.movePairs(this.#rows.pairs.changes, this.#rows.pairs);
    this.#indexes.moveGroups(this.#rows.groups.changes, this.#rows.groups);
    if (this.#rows.volumes.changes.size > 0) this.#volumesInOrder = null;
  }

  #applyOp(op: TableOp): void {
    const { pvs, volumes, groups, hosts } = this.#rows;
    switch (op.op) {
      case 'pv-put':
        return this.#put(pvs, op.row.number, op.row, 'physical volume', pvVerdict(op.row, this.regionBytes));
      case 'volume-put':
        return this.#put(volumes, op.row.number, op.row, 'volume', volumeVerdict(op.row, this.regionBytes));
      case 'volume-delete':
        return this.#delete(volumes, op.number, 'volume');
      case 'pair-put':
        return this.#putPair(op.row);
      case 'pair-delete':
        return this.#delete(this.#rows.pairs, op.id, 'pair');
      case 'group-put':
        return this.#put(groups, op.row.name, op.row, 'group', groupVerdict(op.row));
      case 'group-delete':
        return this.#delete(groups, op.name, 'group');
      case 'host-put':
        return this.#put(hosts, op.row.name, op.row, 'host', hostVerdict(op.row));
      case 'host-delete':
        return this.#delete(hosts, op.name, 'host');
      case 'scrub-put':
        return this.#putScrub({ id: op.id, runs: op.runs });
      case 'scrub-delete':
        return this.#delete(this.#rows.scrubs, op.id, 'scrub list');
      default:
        return this.#applyScalar(op);
    }
  }

  #applyScalar(op: Extract<TableOp, { readonly op: 'settings-put' | 'counters-put' | 'clean-shutdown' }>): void {
    switch (op.op) {
      case 'settings-put': {
        // A setting that is younger than the record has its default.
        const settings = { ...SETTINGS_DEFAULT, ...op.settings };
        const verdict = settingsVerdict(settings);
        if (verdict !== null) throw invalidOp(verdict);
        this.#scalars = { ...this.#scalars, settings };
        return;
      }
      case 'counters-put': {
        const { nextPairId, nextScrubId } = op;
        if (!(nextPairId >= this.nextPairId) || !(nextScrubId >= this.nextScrubId)) throw invalidOp('a counter goes back');
        this.#scalars = { ...this.#scalars, nextPairId, nextScrubId };
        return;
      }
      case 'clean-shutdown':
        this.#scalars = { ...this.#scalars, isCleanShutdown: true };
        return;
      default:
        throw invalidOp(`unknown operation ${JSON.stringify((op as { readonly op?: unknown }).op)}`);
    }
  }

  #put<K extends string | number, R>(table: TrackedRows<K, R>, key: K, row: R, kind: string, verdict: string | null): void {
    if (verdict !== null) throw invalidOp(`${kind} ${key} ${verdict}`);
    table.set(key, row);
  }

  #delete<K extends string | number, R>(table: TrackedRows<K, R>, key: K, kind: string): void {
    if (!table.delete(key)) throw invalidOp(`there is no ${kind} ${key} to delete`);
  }

  #putPair(row: PairRow): void {
    const old = this.#rows.pairs.get(row.id);
    if (old === undefined && row.id < this.nextPairId) throw invalidOp(`pair id ${row.id} was used before`);
    if (old !== undefined && (old.primary !== row.primary || old.secondary !== row.secondary))
      throw invalidOp(`pair ${row.id} changes its volumes`);
    this.#put(this.#rows.pairs, row.id, row, 'pair', pairVerdict(row, this.regionBytes));
    this.#scalars = { ...this.#scalars, nextPairId: Math.max(this.nextPairId, row.id + 1) };
  }

  #putScrub(row: ScrubRow): void {
    const old = this.#rows.scrubs.get(row.id);
    if (old !== undefined && !sameRuns(old.runs, row.runs)) throw invalidOp(`scrub list ${row.id} is there already`);
    this.#put(this.#rows.scrubs, row.id, row, 'scrub list', scrubVerdict(row.id, row.runs));
    this.#scalars = { ...this.#scalars, nextScrubId: Math.max(this.nextScrubId, row.id + 1) };
  }
}
