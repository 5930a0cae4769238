/**
 * Rows, progress and connections as the reports that the operator and programs see (`core/views.ts`). Reads only.
 */
import { countRegions } from '../core/runs.ts';
import type { GroupRow, PairRow, VolumeRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import type { PairView, ScheduledSplitView, VolumeView } from '../core/views.ts';
import type { DataPlane } from '../data/plane-api.ts';
import type { ExportAddresses } from './export-addresses.ts';
import type { PairBook } from './pair-book.ts';
/** What a view asks of the data plane. */
type PairReports = Pick<DataPlane, 'pairProgress' | 'clientCount' | 'copySkippedBytes' | 'verifyProgress'>;

export class Views {
  readonly #tables: Tables;
  readonly #plane: PairReports;
  readonly #pairs: PairBook;
  readonly #addresses: ExportAddresses;

  constructor(tables: Tables, plane: PairReports, pairs: PairBook, addresses: ExportAddresses) {
    this.#tables = tables;
    this.#plane = plane;
    this.#pairs = pairs;
    this.#addresses = addresses;
  }

  volume(row: VolumeRow): VolumeView {
    // A volume is never both, so one that is paired and no secondary is a primary.
    const isSecondary = this.#tables.pairOfSecondary(row.number) !== undefined;
    const isPrimary = !isSecondary && this.#tables.isPaired(row.number);
    return {
      number: row.number,
      name: row.name,
      capacityBytes: row.capacityBytes,
      attribute: row.attribute,
      paired: isPrimary || isSecondary,
      role: isPrimary ? 'primary' : isSecondary ? 'secondary' : null,
      inUse: row.attribute === 'normal' ? 'invalid' : isSecondary ? 'in-use' : 'unused',
      protected: row.isProtected,
      formerCapacityBytes: row.formerCapacityBytes ?? null,
      regions: countRegions(row.runs),
      runs: row.runs,
      uuid: row.uuid,
      createdAtMs: row.createdAtMs,
      clients: this.#plane.clientCount(row.number),
      uri: this.uri(row),
    };
  }

  uri(row: VolumeRow): string {
    return this.#addresses.uriOf(row.name);
  }

  pair(row: PairRow): PairView {
    const progress = this.#plane.pairProgress(row.id);
    const group = this.#tables.groupOfPair(row.id);
    return {
      id: row.id,
      primary: this.#named(row.primary),
      secondary: this.#named(row.secondary),
      state: row.state,
      copy: row.copy ?? null,
      copyPointer: progress.pointer,
      dirtyRegionBytes: row.dirtyRegionBytes,
      dirtyBytes: progress.dirtyBytes,
      copiedBytes: progress.copiedBytes,
      skippedBytes: this.#plane.copySkippedBytes(row.id),
      verify: this.#plane.verifyProgress(row.id),
      rateBytesPerSecond: progress.rateBytesPerSecond,
      etaMs: progress.etaMs,
      fence: row.fence,
      pace: row.pace,
      reason: row.reason ?? null,
      group: group?.name ?? null,
      scheduledSplit: scheduledSplitOf(row, group),
      createdAtMs: row.createdAtMs,
      stateSinceMs: row.stateSinceMs,
    };
  }

  /** The pair's present view; null when there is no such pair (any more). */
  pairById(id: number): PairView | null {
    const row = this.#pairs.row(id);
    return row === undefined ? null : this.pair(row);
  }

  /** `pair db -> copy`, as messages name it. */
  pairText(row: Pick<PairRow, 'primary' | 'secondary'>): string {
    return `pair ${this.#named(row.primary).name} -> ${this.#named(row.secondary).name}`;
  }

  #named(number: number): { readonly number: number; readonly name: string } {
    return { number, name: this.#tables.findVolume(number)?.name ?? `#${number}` };
  }
}

/** The next one that is ahead, of the pair or its group; without one, the last that did not happen. */
const scheduledSplitOf = (pair: PairRow, group: GroupRow | undefined): ScheduledSplitView | null => {
  const views = [
    { row: pair, name: null },
    { row: group, name: group?.name ?? null },
  ].flatMap(({ row, name }): ScheduledSplitView[] =>
    row?.scheduledSplit === undefined ? [] : [{ atMs: row.scheduledSplit.atMs, failure: row.scheduledSplit.failure ?? null, group: name }],
  );
  const ahead = views.filter(({ failure }) => failure === null).sort((one, other) => one.atMs - other.atMs);
  return ahead[0] ?? views.sort((one, other) => other.atMs - one.atMs)[0] ?? null;
};
