/**
 * Pairs and consistency groups of a declaration, compared with those of a device. A pair that is there is left in the
 * state in which it is; one that is missing is formed, with the volume that the device would choose at this point.
 */
import type { DeclarationPointer, DeclaredGroup, DeclaredPair, DeclaredStep } from './declaration.ts';
import { declaredTwice } from './declaration-diff.ts';
import type { DeclarationDiff } from './declaration-diff.ts';
import type { DeclarationModel } from './declaration-model.ts';
import { TwinvolError } from './faults.ts';
import { requireName } from './names.ts';
import { requireDirtyRegion, requirePrimary } from './pair-options.ts';
import type { DeviceSettings, PairRow, VolumeRow } from './rows.ts';
import type { Choice } from './selection.ts';
import type { Tables } from './tables.ts';
import { formatSize, parseSize } from './units.ts';

export type PairScope = {
  readonly model: DeclarationModel;
  readonly diff: DeclarationDiff;
  readonly real: Tables;
  /** Volumes that are declared and cannot be made. */
  readonly missing: ReadonlyMap<string, DeclarationPointer>;
  /** As they will be. */
  readonly settings: DeviceSettings;
};

type Entry = { readonly at: DeclarationPointer; readonly declared: DeclaredPair };

export const planPairs = (pairs: readonly DeclaredPair[], scope: PairScope): void => {
  const entries = pairs.map((declared, index): Entry => ({ at: `/pairs/${index}`, declared }));
  const named = new Map<string, DeclarationPointer>();
  /** Pairs that an entry means already. */
  const claimed = new Set<number>();
  // A volume that is named further down must not be chosen for somebody else before.
  for (const entry of [
    ...entries.filter(({ declared }) => declared.secondary !== undefined),
    ...entries.filter(({ declared }) => declared.secondary === undefined),
  ]) {
    const { at, declared } = entry;
    const requirement = `pair ${declared.primary} -> ${declared.secondary ?? '(the device chooses)'}`;
    const key = declared.secondary === undefined ? null : `${declared.primary} ${declared.secondary}`;
    scope.diff.item(() => {
      scope.diff.part(at, requirement, () => {
        const before = key === null ? undefined : named.get(key);
        if (before !== undefined) declaredTwice(before);
        if (key !== null) named.set(key, at);
        planPair(entry, claimed, scope);
      });
    });
  }
};

/** @throws TwinvolError `VOLUME_NOT_FOUND` */
const volumeOf = (name: string, { model, missing }: PairScope): VolumeRow => {
  const row = model.tables.findVolume(name);
  if (row !== undefined) return row;
  const at = missing.get(name);
  const why = at === undefined ? 'and none is declared' : `and it cannot be made (see ${at})`;
  throw new TwinvolError('VOLUME_NOT_FOUND', `there is no volume ${name}, ${why}`, { remedy: 'declare it with its size' });
};

const planPair = ({ at, declared }: Entry, claimed: Set<number>, scope: PairScope): void => {
  const primary = volumeOf(declared.primary, scope);
  const named = declared.secondary === undefined ? null : volumeOf(declared.secondary, scope);
  const dirtyRegionBytes = dirtyRegionOf(declared, scope);
  const present = scope.model.tables.pairsOfPrimary(primary.number);
  const existing = present.find(({ id, secondary }) => (named === null ? !claimed.has(id) : secondary === named.number));
  if (existing === undefined) {
    claimed.add(createPair(at, declared, { primary, named, dirtyRegionBytes }, scope));
    return;
  }
  claimed.add(existing.id);
  changePair(at, declared, existing, dirtyRegionBytes, scope);
};

/** @throws TwinvolError `SIZE_INVALID`, `USAGE` */
const dirtyRegionOf = ({ dirtyRegionSize: size }: DeclaredPair, { model }: PairScope): number | undefined => {
  const bytes = typeof size === 'string' ? parseSize(size) : size;
  requireDirtyRegion(bytes, model.tables.regionBytes);
  return bytes;
};

type Legs = { readonly primary: VolumeRow; readonly named: VolumeRow | null; readonly dirtyRegionBytes: number | undefined };

/** @returns the new pair's id in the model */
const createPair = (
  at: DeclarationPointer,
  declared: DeclaredPair,
  { primary, named, dirtyRegionBytes }: Legs,
  scope: PairScope,
): number => {
  const { model, diff, real, settings } = scope;
  const { tables } = model;
  requirePrimary(primary, { secondaryOf: nameOfPrimary(primary, tables), pairs: tables.pairsOfPrimary(primary.number) });
  const fit = declared.fit ?? settings.fit;
  const condition = declared.condition ?? (named === null ? settings.condition : 'any');
  const choice = model.choose(primary, named, { condition, fit });
  const { volume, fitting } = choice;
  const pair = model.createPair(primary, choice);
  const { pace, fence } = declared;
  const step: DeclaredStep = {
    do: 'pair-create',
    primary: primary.name,
    secondary: volume.name,
    fit,
    ...(pace === undefined ? {} : { pace }),
    ...(fence === undefined ? {} : { fence }),
    ...(dirtyRegionBytes === undefined ? {} : { dirtyRegionBytes }),
  };
  diff.change({
    at,
    kind: 'create',
    text: `pair ${primary.name} -> ${volume.name}${choiceText(primary, choice, named === null)}`,
    step,
    regions: fitting === null ? 0 : fitting.surplusRegions + fitting.missingRegions,
    bytes: primary.capacityBytes,
    overwrites: real.findVolume(volume.name)?.number ?? null,
  });
  return pair.id;
};

const choiceText = (primary: VolumeRow, { volume, how, fitting }: Choice, isChosen: boolean): string => {
  const parts = [
    ...(isChosen ? [`chosen by the device: ${how === 'same' ? 'same capacity' : `${how}, ${formatSize(volume.capacityBytes)}`}`] : []),
    ...(fitting === null ? [] : [`fitted to ${formatSize(primary.capacityBytes)}`]),
  ];
  return parts.length === 0 ? '' : ` (${parts.join('; ')})`;
};

const nameOfPrimary = (volume: VolumeRow, tables: Tables): string | null => {
  const pair = tables.pairOfSecondary(volume.number);
  return pair === undefined ? null : (tables.findVolume(pair.primary)?.name ?? null);
};

const changePair = (
  at: DeclarationPointer,
  declared: DeclaredPair,
  pair: PairRow,
  dirtyRegionBytes: number | undefined,
  scope: PairScope,
): void => {
  const { model, diff } = scope;
  if (dirtyRegionBytes !== undefined && dirtyRegionBytes !== pair.dirtyRegionBytes) {
    throw new TwinvolError(
      'PAIR_STATE',
      `its dirty regions have ${formatSize(pair.dirtyRegionBytes)}, which is fixed when a pair is formed`,
      {
        remedy: 'release the pair, then apply the declaration again',
      },
    );
  }
  const { pace = pair.pace, fence = pair.fence } = declared;
  const differs = [
    ...(pace === pair.pace ? [] : [`pace ${pair.pace} -> ${pace}`]),
    ...(fence === pair.fence ? [] : [`fence ${pair.fence} -> ${fence}`]),
  ];
  if (differs.length === 0) return;
  const secondary = model.tables.volume(pair.secondary).name;
  const changed = { ...(pace === pair.pace ? {} : { pace }), ...(fence === pair.fence ? {} : { fence }) };
  const text = `pair ${declared.primary} -> ${secondary}: ${differs.join(', ')}`;
  diff.change({ at, kind: 'change', text, step: { do: 'pair-set', primary: declared.primary, secondary, ...changed } });
};

/** The members of all groups, as they are and as they are to become. */
type Membership = { readonly groupOf: Map<number, string>; readonly wanted: Map<string, ReadonlySet<number>> };

/** All leave before anybody joins, so that a pair may go from one declared group to another. */
export const planGroups = (groups: readonly DeclaredGroup[], scope: PairScope): void => {
  const { model, diff } = scope;
  const membership: Membership = { groupOf: new Map(), wanted: new Map() };
  for (const { name, pairs } of model.tables.groups()) for (const id of pairs) membership.groupOf.set(id, name);
  const differing = new Set<DeclaredGroup>();
  for (const [index, group] of groups.entries()) {
    const before = diff.differences;
    const at: DeclarationPointer = `/groups/${index}`;
    const isKnown = diff.part(at, `group ${group.name}`, () => leaveGroup(at, group, membership, scope));
    if (!isKnown || diff.differences !== before) differing.add(group);
  }
  for (const [index, group] of groups.entries()) {
    const join = (): void => joinGroup(`/groups/${index}`, group, membership, scope);
    if (differing.has(group)) join();
    else diff.item(join);
  }
};

const leaveGroup = (at: DeclarationPointer, group: DeclaredGroup, { groupOf, wanted }: Membership, scope: PairScope): void => {
  const { model, diff } = scope;
  requireName('group', group.name);
  if (wanted.has(group.name)) throw new TwinvolError('USAGE', 'it is declared twice', { remedy: 'leave one of the two out' });
  const ids = new Set<number>();
  for (const [index, member] of group.pairs.entries()) {
    const ref = typeof member === 'string' ? { primary: member } : member;
    const pointer: DeclarationPointer = `${at}/pairs/${index}`;
    diff.part(pointer, `group ${group.name}: pair ${ref.primary}${ref.secondary === undefined ? '' : ` -> ${ref.secondary}`}`, () => {
      ids.add(memberOf(ref, scope).id);
    });
  }
  wanted.set(group.name, ids);
  const present = model.tables.group(group.name);
  if (present === undefined)
    diff.change({ at, kind: 'create', text: `group ${group.name}`, step: { do: 'group-create', name: group.name } });
  for (const id of present?.pairs ?? []) {
    if (ids.has(id)) continue;
    groupOf.delete(id);
    const names = legNames(id, model.tables);
    const text = `group ${group.name}: without pair ${names.primary} -> ${names.secondary}`;
    diff.change({ at: `${at}/pairs`, kind: 'remove', text, step: { do: 'group-remove', name: group.name, ...names } });
  }
};

const joinGroup = (at: DeclarationPointer, group: DeclaredGroup, { groupOf, wanted }: Membership, { model, diff }: PairScope): void => {
  for (const id of wanted.get(group.name) ?? []) {
    const other = groupOf.get(id);
    if (other === group.name) continue;
    const names = legNames(id, model.tables);
    const text = `group ${group.name}: with pair ${names.primary} -> ${names.secondary}`;
    diff.part(`${at}/pairs`, text, () => {
      if (other !== undefined) {
        const why = wanted.has(other) ? 'is declared in the group' : 'is in the group';
        throw new TwinvolError('PAIR_GROUPED', `the pair ${why} ${other}, and a pair can be in one only`, {
          remedy: `declare the group ${other} without it`,
        });
      }
      groupOf.set(id, group.name);
      diff.change({ at: `${at}/pairs`, kind: 'change', text, step: { do: 'group-add', name: group.name, ...names } });
    });
  }
};

/** @throws TwinvolError `VOLUME_NOT_FOUND`, `PAIR_NOT_FOUND`, `PAIR_AMBIGUOUS` */
const memberOf = (ref: { readonly primary: string; readonly secondary?: string }, scope: PairScope): PairRow => {
  const primary = volumeOf(ref.primary, scope);
  const secondary = ref.secondary === undefined ? null : volumeOf(ref.secondary, scope);
  const pairs = scope.model.tables
    .pairsOfPrimary(primary.number)
    .filter((pair) => secondary === null || pair.secondary === secondary.number);
  const [pair] = pairs;
  if (pair === undefined)
    throw new TwinvolError('PAIR_NOT_FOUND', `${ref.primary} is in no such pair, and none is declared that can be formed`);
  if (pairs.length > 1) throw new TwinvolError('PAIR_AMBIGUOUS', `${ref.primary} has ${pairs.length} pairs`);
  return pair;
};

const legNames = (id: number, tables: Tables): { readonly primary: string; readonly secondary: string } => {
  const pair = tables.pair(id);
  if (pair === undefined) throw new Error(`a group has the member ${id}, which is no pair`);
  return { primary: tables.volume(pair.primary).name, secondary: tables.volume(pair.secondary).name };
};
