/**
 * The rules between rows (the list is in `tables.ts`), checked at the end of a record for the rows that it changed and
 * those that refer to them. Reads only; throws at the first rule that is broken.
 */
import type { PairRow } from './rows.ts';
import type { TableIndexes } from './table-indexes.ts';
import type { Rows } from './tables.ts';
import { PAIRS_PER_PRIMARY_MAX } from './units.ts';

const assertRule = (holds: boolean, otherwise: string): void => {
  if (!holds) throw new Error(otherwise);
};

/** @param indexes as they were before the record */
export const crossRules = (rows: Rows, indexes: TableIndexes): void => {
  identityRules(rows);
  nameRules(rows, indexes);
  pairRules(rows, indexes);
  groupRules(rows, indexes);
  grantRules(rows);
};

/** A number that stays must stay for the same thing: a new volume would else inherit the regions of an old one. */
const identityRules = ({ pvs, volumes }: Rows): void => {
  for (const [number, before] of pvs.changes) {
    assertRule(before === undefined || before.regions === pvs.get(number)?.regions, `physical volume ${number} changes its size`);
  }
  for (const [number, before] of volumes.changes) {
    const after = volumes.get(number);
    assertRule(
      before === undefined || after === undefined || before.uuid === after.uuid,
      `volume ${number} becomes another volume in one step`,
    );
  }
};

const nameRules = ({ volumes }: Rows, indexes: TableIndexes): void => {
  const taken = new Map<string, number>();
  for (const number of volumes.changes.keys()) {
    const name = volumes.get(number)?.name;
    if (name === undefined) continue;
    const holder = indexes.volumeByName(name);
    const stillHolds = holder !== undefined && holder !== number && volumes.get(holder)?.name === name;
    assertRule(!stillHolds && !taken.has(name), `volumes ${holder ?? taken.get(name)} and ${number} have the same name ${name}`);
    taken.set(name, number);
  }
};

const pairRules = (rows: Rows, indexes: TableIndexes): void => {
  const { pairs, volumes } = rows;
  const ids = new Set(pairs.changes.keys());
  for (const number of volumes.changes.keys()) {
    for (const id of indexes.pairsByPrimary(number)) ids.add(id);
    const id = indexes.pairBySecondary(number);
    if (id !== undefined) ids.add(id);
  }
  for (const id of ids) {
    const pair = pairs.get(id);
    if (pair !== undefined) legRules(rows, pair);
  }
  newPairRules(rows, indexes);
};

/** What a pair's volumes must be. */
const legRules = ({ volumes }: Rows, pair: PairRow): void => {
  const primary = volumes.get(pair.primary);
  const secondary = volumes.get(pair.secondary);
  assertRule(primary !== undefined, `pair ${pair.id} has no primary: there is no volume ${pair.primary}`);
  assertRule(secondary !== undefined, `pair ${pair.id} has no secondary: there is no volume ${pair.secondary}`);
  assertRule(primary?.attribute === 'normal', `volume ${pair.primary}, the primary of pair ${pair.id}, is not of attribute normal`);
  assertRule(
    secondary?.attribute === 'secondary',
    `volume ${pair.secondary}, the secondary of pair ${pair.id}, is not of attribute secondary`,
  );
  assertRule(
    (secondary?.capacityBytes ?? 0) >= (primary?.capacityBytes ?? 0),
    `volume ${pair.secondary} is smaller than its primary ${pair.primary}`,
  );
};

/** One pair for a secondary, not too many for a primary. A pair's volumes never change, so only new rows matter. */
const newPairRules = ({ pairs }: Rows, indexes: TableIndexes): void => {
  const secondaries = new Set<number>();
  const primaries = new Map<number, number>();
  for (const [id, before] of pairs.changes) {
    const pair = pairs.get(id);
    if (pair === undefined || before !== undefined) continue;
    const other = indexes.pairBySecondary(pair.secondary);
    const isTaken = (other !== undefined && pairs.has(other)) || secondaries.has(pair.secondary);
    assertRule(!isTaken, `volume ${pair.secondary} is the secondary of two pairs`);
    secondaries.add(pair.secondary);
    primaries.set(pair.primary, (primaries.get(pair.primary) ?? 0) + 1);
  }
  for (const [primary, added] of primaries) {
    const kept = [...indexes.pairsByPrimary(primary)].filter((id) => pairs.has(id)).length;
    assertRule(kept + added <= PAIRS_PER_PRIMARY_MAX, `volume ${primary} has more than ${PAIRS_PER_PRIMARY_MAX} pairs`);
  }
};

const groupRules = ({ groups, pairs }: Rows, indexes: TableIndexes): void => {
  const taken = new Map<number, string>();
  for (const name of groups.changes.keys()) {
    for (const id of groups.get(name)?.pairs ?? []) {
      assertRule(pairs.has(id), `group ${name} has the member ${id}, which is no pair`);
      const other = indexes.groupOfPair(id);
      const stillThere = other !== undefined && other !== name && groups.get(other)?.pairs.includes(id) === true;
      assertRule(!stillThere && !taken.has(id), `pair ${id} is in the groups ${other ?? taken.get(id)} and ${name}`);
      taken.set(id, name);
    }
  }
  for (const id of pairs.changes.keys()) {
    if (pairs.has(id)) continue;
    const name = indexes.groupOfPair(id);
    assertRule(name === undefined || groups.get(name)?.pairs.includes(id) !== true, `pair ${id} is deleted and still in the group ${name}`);
  }
};

const grantRules = ({ hosts, volumes }: Rows): void => {
  for (const name of hosts.changes.keys()) {
    for (const volume of Object.keys(hosts.get(name)?.grants ?? {})) {
      assertRule(
        String(Number(volume)) === volume && volumes.has(Number(volume)),
        `host ${name} is granted the volume ${volume}, which does not exist`,
      );
    }
  }
  const deleted = [...volumes.changes.keys()].filter((number) => !volumes.has(number));
  if (deleted.length === 0) return;
  for (const host of hosts.values()) {
    for (const number of deleted)
      assertRule(host.grants[number] === undefined, `volume ${number} is deleted and still granted to the host ${host.name}`);
  }
};
