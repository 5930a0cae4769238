/**
 * The lookups that the tables keep beside the rows: name -> volume, primary -> pairs, secondary -> pair, pair -> group.
 * Derived, never stored. They are moved from one state of the rows to another in two passes (all old entries out, then
 * all new ones in), so that the order of rows within a change does not matter and a change can be taken back.
 */
import type { GroupRow, PairRow, VolumeRow } from './rows.ts';
import type { Before, TrackedRows } from './tracked-rows.ts';

const NONE: ReadonlySet<number> = new Set();

export class TableIndexes {
  readonly #volumeByName = new Map<string, number>();
  readonly #pairsByPrimary = new Map<number, Set<number>>();
  readonly #pairBySecondary = new Map<number, number>();
  readonly #groupOfPair = new Map<number, string>();
  /** No volume number below this one is free. */
  #lowestFreeNumber = 1;

  volumeByName(name: string): number | undefined {
    return this.#volumeByName.get(name);
  }
  pairsByPrimary(volume: number): ReadonlySet<number> {
    return this.#pairsByPrimary.get(volume) ?? NONE;
  }
  pairBySecondary(volume: number): number | undefined {
    return this.#pairBySecondary.get(volume);
  }
  groupOfPair(id: number): string | undefined {
    return this.#groupOfPair.get(id);
  }

  /** The lowest volume number that is not in use. */
  lowestFreeNumber(isUsed: (number: number) => boolean): number {
    while (isUsed(this.#lowestFreeNumber)) this.#lowestFreeNumber += 1;
    return this.#lowestFreeNumber;
  }

  /** Moves the entries of the changed rows from the old state to the present one. */
  moveVolumes(before: Before<number, VolumeRow>, rows: TrackedRows<number, VolumeRow>): void {
    for (const row of before.values()) if (row !== undefined) this.#volumeByName.delete(row.name);
    for (const number of before.keys()) {
      const row = rows.get(number);
      if (row !== undefined) this.#volumeByName.set(row.name, number);
      else this.#lowestFreeNumber = Math.min(this.#lowestFreeNumber, number);
    }
  }

  movePairs(before: Before<number, PairRow>, rows: TrackedRows<number, PairRow>): void {
    for (const row of before.values()) if (row !== undefined) this.#dropPair(row);
    for (const id of before.keys()) {
      const row = rows.get(id);
      if (row === undefined) continue;
      this.#pairBySecondary.set(row.secondary, id);
      const ids = this.#pairsByPrimary.get(row.primary);
      if (ids === undefined) this.#pairsByPrimary.set(row.primary, new Set([id]));
      else ids.add(id);
    }
  }

  moveGroups(before: Before<string, GroupRow>, rows: TrackedRows<string, GroupRow>): void {
    for (const row of before.values()) for (const id of row?.pairs ?? []) this.#groupOfPair.delete(id);
    for (const name of before.keys()) for (const id of rows.get(name)?.pairs ?? []) this.#groupOfPair.set(id, name);
  }

  #dropPair(row: PairRow): void {
    this.#pairBySecondary.delete(row.secondary);
    const ids = this.#pairsByPrimary.get(row.primary);
    ids?.delete(row.id);
    if (ids?.size === 0) this.#pairsByPrimary.delete(row.primary);
  }
}
