/**
 * Verifies the invariants of the tables (listed in `tables.ts`) from the rows alone: slow, obvious, and independent of
 * the code that keeps them. For `store check`, and for the tests.
 */
import { groupVerdict, hostVerdict, pairVerdict, pvVerdict, settingsVerdict, volumeVerdict } from './row-rules.ts';
import type { RegionRun } from './rows.ts';
import { mergeNeighbours, sameRuns, sortedRuns, subtractRuns } from './runs.ts';
import type { Tables } from './tables.ts';
import { PAIRS_PER_PRIMARY_MAX } from './units.ts';

/** What is wrong, one sentence for each finding. */
export const checkTables = (tables: Tables): string[] => [
  ...checkRows(tables),
  ...checkOwners(tables),
  ...checkNames(tables),
  ...checkPairs(tables),
  ...checkGroups(tables),
  ...checkGrants(tables),
];

const checkRows = (tables: Tables): string[] => {
  const findings: string[] = [];
  const add = (what: string, verdict: string | null): void => {
    if (verdict !== null) findings.push(`${what} ${verdict}`);
  };
  for (const row of tables.pvs()) add(`physical volume ${row.number}`, pvVerdict(row, tables.regionBytes));
  for (const row of tables.volumes()) add(`volume ${row.number}`, volumeVerdict(row, tables.regionBytes));
  for (const row of tables.pairs()) add(`pair ${row.id}`, pairVerdict(row, tables.regionBytes));
  for (const row of tables.groups()) add(`group ${row.name}`, groupVerdict(row));
  for (const row of tables.hosts()) add(`host ${row.name}`, hostVerdict(row));
  add('a setting is wrong:', settingsVerdict(tables.settings));
  for (const row of tables.pairs()) if (row.id >= tables.nextPairId) add(`pair ${row.id}`, 'has an id that would be used again');
  for (const row of tables.scrubs()) if (row.id >= tables.nextScrubId) add(`scrub list ${row.id}`, 'has an id that would be used again');
  return findings;
};

type Owned = { readonly run: RegionRun; readonly owner: string };

const checkOwners = (tables: Tables): string[] => {
  const findings: string[] = [];
  const owned: Owned[] = [
    ...tables.volumes().flatMap(({ number, runs }) => runs.map((run) => ({ run, owner: `volume ${number}` }))),
    ...tables.scrubs().flatMap(({ id, runs }) => runs.map((run) => ({ run, owner: `scrub list ${id}` }))),
  ].sort((a, b) => a.run.pv - b.run.pv || a.run.start - b.run.start);
  let last: Owned | null = null;
  for (const entry of owned) {
    const { run, owner } = entry;
    if (run.start + run.count > (tables.pv(run.pv)?.regions ?? 0)) {
      findings.push(`${owner} has regions ${run.start} to ${run.start + run.count - 1} of physical volume ${run.pv}, which do not exist`);
    }
    if (last !== null && last.run.pv === run.pv && last.run.start + last.run.count > run.start) {
      findings.push(`region ${run.start} of physical volume ${run.pv} belongs to ${last.owner} and to ${owner}`);
    }
    if (last === null || last.run.pv !== run.pv || last.run.start + last.run.count < run.start + run.count) last = entry;
  }
  const all = tables.pvs().map(({ number, regions }) => ({ pv: number, start: 0, count: regions }));
  const free = subtractRuns(
    all,
    owned.map(({ run }) => run),
  );
  if (!sameRuns(mergeNeighbours(sortedRuns(free)), [...tables.unassigned.runs()])) {
    findings.push('the unassigned-region table is not what the owners leave over');
  }
  return findings;
};

const checkNames = (tables: Tables): string[] => {
  const findings: string[] = [];
  const seen = new Map<string, number>();
  for (const { name, number } of tables.volumes()) {
    if (seen.has(name)) findings.push(`volumes ${seen.get(name)} and ${number} have the same name ${name}`);
    if (tables.findVolume(name)?.number !== number) findings.push(`volume ${number} is not found by its name ${name}`);
    seen.set(name, number);
  }
  return findings;
};

const checkPairs = (tables: Tables): string[] => {
  const findings: string[] = [];
  const bySecondary = new Map<number, number>();
  const countOf = new Map<number, number>();
  for (const { id, primary, secondary } of tables.pairs()) {
    const from = tables.findVolume(primary);
    const to = tables.findVolume(secondary);
    if (from === undefined || to === undefined) {
      findings.push(`pair ${id} refers to a volume that does not exist: ${from === undefined ? primary : secondary}`);
      continue;
    }
    if (from.attribute !== 'normal') findings.push(`pair ${id} has the primary ${primary}, which is not of attribute normal`);
    if (to.attribute !== 'secondary') findings.push(`pair ${id} has the secondary ${secondary}, which is not of attribute secondary`);
    if (to.capacityBytes < from.capacityBytes) findings.push(`pair ${id} has a secondary that is smaller than its primary`);
    const other = bySecondary.get(secondary);
    if (other !== undefined) findings.push(`volume ${secondary} is the secondary of pair ${other} and of pair ${id}`);
    bySecondary.set(secondary, id);
    countOf.set(primary, (countOf.get(primary) ?? 0) + 1);
    if (tables.pairOfSecondary(secondary)?.id !== id) findings.push(`pair ${id} is not found by its secondary`);
    if (!tables.pairsOfPrimary(primary).some((pair) => pair.id === id)) findings.push(`pair ${id} is not found by its primary`);
  }
  for (const [volume, count] of countOf) {
    if (count > PAIRS_PER_PRIMARY_MAX) findings.push(`volume ${volume} has ${count} pairs, more than ${PAIRS_PER_PRIMARY_MAX}`);
    if (bySecondary.has(volume)) findings.push(`volume ${volume} is a primary and a secondary`);
  }
  return findings;
};

const checkGroups = (tables: Tables): string[] => {
  const findings: string[] = [];
  const groupOf = new Map<number, string>();
  for (const { name, pairs } of tables.groups()) {
    for (const id of pairs) {
      if (tables.pair(id) === undefined) findings.push(`group ${name} has the member ${id}, which is no pair`);
      if (groupOf.has(id)) findings.push(`pair ${id} is in the groups ${groupOf.get(id)} and ${name}`);
      if (tables.groupOfPair(id)?.name !== name) findings.push(`pair ${id} is not found in its group ${name}`);
      groupOf.set(id, name);
    }
  }
  return findings;
};

const checkGrants = (tables: Tables): string[] =>
  tables.hosts().flatMap(({ name, grants }) =>
    Object.keys(grants)
      .filter((volume) => tables.findVolume(Number(volume)) === undefined)
      .map((volume) => `host ${name} is granted the volume ${volume}, which does not exist`),
  );
