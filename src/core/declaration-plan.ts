/**
 * The comparison of a declaration with a device: what differs, in the order in which it has to be changed, and every
 * requirement that cannot be met. Pure: the changes are tried out on a model of the device (`declaration-model.ts`), so
 * what one makes possible or impossible for the next is known beforehand.
 *
 * Order: settings, volumes, pool, pairs with a named secondary, pairs whose secondary the device chooses, groups.
 */
import type { Declaration, DeclarationPlan, DeclarationPointer, DeclaredPool, DeclaredSize, DeclaredVolume } from './declaration.ts';
import { declaredTwice, DeclarationDiff } from './declaration-diff.ts';
import { DeclarationModel } from './declaration-model.ts';
import type { DeviceFacts } from './declaration-model.ts';
import { planGroups, planPairs } from './declaration-pairs.ts';
import { TwinvolError } from './faults.ts';
import { requireName } from './names.ts';
import { isCapacity } from './row-rules.ts';
import type { DeviceSettings, VolumeRow } from './rows.ts';
import { countRegions } from './runs.ts';
import type { Tables } from './tables.ts';
import { formatSize, parseSize } from './units.ts';

const POOL_NAME_DEFAULT = 'pool';

/** @throws TwinvolError never for a requirement: those that cannot be met are in the result */
export const planDeclaration = (declaration: Declaration, real: Tables, facts: DeviceFacts): DeclarationPlan => {
  const diff = new DeclarationDiff();
  const model = new DeclarationModel(real, facts);
  planSettings(declaration, real.settings, diff);
  const missing = planVolumes(declaration.volumes ?? [], real, model, diff);
  planPools(declaration.pool ?? [], model, diff);
  const scope = { model, diff, real, missing, settings: { ...real.settings, ...declaration.settings } };
  planPairs(declaration.pairs ?? [], scope);
  planGroups(declaration.groups ?? [], scope);
  return diff.result;
};

const planSettings = ({ settings = {} }: Declaration, present: DeviceSettings, diff: DeclarationDiff): void => {
  for (const name of Object.keys(settings) as (keyof DeviceSettings)[]) {
    diff.item(() => {
      if (settings[name] === present[name]) return;
      const text = `setting ${name}: ${present[name]} -> ${settings[name]}`;
      diff.change({ at: `/settings/${name}`, kind: 'change', text, step: { do: 'settings', changes: { [name]: settings[name] } } });
    });
  }
};

/** @throws TwinvolError `SIZE_INVALID`, `CAPACITY_INVALID` */
const capacityOf = (size: DeclaredSize): number => {
  const bytes = typeof size === 'number' ? size : parseSize(size);
  if (!isCapacity(bytes)) throw new TwinvolError('CAPACITY_INVALID', `${bytes} bytes are no capacity`);
  return bytes;
};

/** @returns the volumes that cannot be made, with the place of their declaration */
const planVolumes = (
  volumes: readonly DeclaredVolume[],
  real: Tables,
  model: DeclarationModel,
  diff: DeclarationDiff,
): ReadonlyMap<string, DeclarationPointer> => {
  const declared = new Map<string, DeclarationPointer>();
  const missing = new Map<string, DeclarationPointer>();
  for (const [index, volume] of volumes.entries()) {
    const at: DeclarationPointer = `/volumes/${index}`;
    const before = declared.get(volume.name);
    declared.set(volume.name, before ?? at);
    diff.item(() => {
      const requirement = `volume ${volume.name}`;
      if (before !== undefined) return void diff.part(at, requirement, () => declaredTwice(before));
      const row = real.findVolume(volume.name);
      if (row !== undefined) return changeVolume(at, volume, row, model, diff);
      if (!diff.part(at, requirement, () => createVolume(at, volume, model, diff))) missing.set(volume.name, at);
    });
  }
  return missing;
};

const createVolume = (at: DeclarationPointer, volume: DeclaredVolume, model: DeclarationModel, diff: DeclarationDiff): void => {
  const { name, size, attribute = 'normal', protected: isProtected = false } = volume;
  requireName('volume', name);
  if (size === undefined) {
    throw new TwinvolError('VOLUME_NOT_FOUND', `there is no volume ${name}, and without a size none can be made`, {
      remedy: 'declare its size',
    });
  }
  const sizeBytes = capacityOf(size);
  const row = model.createVolume({ name, sizeBytes, attribute, isProtected });
  const text = `volume ${name}: ${formatSize(sizeBytes)}, ${attribute}${isProtected ? ', protected' : ''}`;
  diff.change({
    at,
    kind: 'create',
    text,
    step: { do: 'volume-create', name, sizeBytes, attribute, isProtected },
    regions: countRegions(row.runs),
  });
};

const changeVolume = (
  at: DeclarationPointer,
  volume: DeclaredVolume,
  before: VolumeRow,
  model: DeclarationModel,
  diff: DeclarationDiff,
): void => {
  let row = before;
  const { size, attribute = row.attribute, protected: isProtected = row.isProtected } = volume;
  if (size !== undefined) {
    diff.part(`${at}/size`, `volume ${row.name}: size ${size}`, () => {
      row = changeSize(`${at}/size`, row, capacityOf(size), model, diff);
    });
  }
  const step = { do: 'volume-set', volume: row.name } as const;
  if (attribute !== row.attribute) {
    const text = `volume ${row.name}: attribute ${row.attribute} -> ${attribute}`;
    diff.part(`${at}/attribute`, text, () => {
      requireUnpaired(row, model.tables);
      row = model.put({ ...row, attribute });
      const overwrites = attribute === 'secondary' ? row.number : null;
      diff.change({ at: `${at}/attribute`, kind: 'change', text, step: { ...step, attribute }, overwrites });
    });
  }
  if (isProtected === row.isProtected) return;
  model.put({ ...row, isProtected });
  const text = `volume ${row.name}: ${isProtected ? 'protected: no automatic choice takes it' : 'open to automatic choice'}`;
  diff.change({ at: `${at}/protected`, kind: 'change', text, step: { ...step, isProtected } });
};

/** @throws TwinvolError `VOLUME_PAIRED`, `CAPACITY_INVALID`, `REGIONS_MISSING`, `LIMIT` */
const changeSize = (
  at: DeclarationPointer,
  row: VolumeRow,
  sizeBytes: number,
  model: DeclarationModel,
  diff: DeclarationDiff,
): VolumeRow => {
  if (sizeBytes === row.capacityBytes) return row;
  const isFitted = row.formerCapacityBytes === sizeBytes;
  // The fitted size is the pair's doing, and ends with it.
  if (isFitted && model.tables.isPaired(row.number)) return row;
  if (sizeBytes < row.capacityBytes && !isFitted) {
    throw new TwinvolError('CAPACITY_INVALID', `it has ${formatSize(row.capacityBytes)}, and a volume cannot be made smaller`, {
      remedy: 'declare the size that it has, or another volume',
    });
  }
  requireUnpaired(row, model.tables);
  const text = `volume ${row.name}: ${formatSize(row.capacityBytes)} -> ${formatSize(sizeBytes)}`;
  const regions = Math.abs(Math.ceil(sizeBytes / model.tables.regionBytes) - countRegions(row.runs));
  const fitting = isFitted ? model.formerFitting(row) : null;
  if (fitting !== null) {
    const restored = model.refitVolume(row, fitting);
    diff.change({
      at,
      kind: 'change',
      text: `${text}, its size before region fitting`,
      step: { do: 'restore-size', volume: row.name },
      regions,
      overwrites: row.number,
    });
    return restored;
  }
  const grown = model.growVolume(row, sizeBytes);
  diff.change({ at, kind: 'change', text, step: { do: 'volume-grow', volume: row.name, sizeBytes }, regions });
  return grown;
};

const requireUnpaired = (row: VolumeRow, tables: Tables): void => {
  const pair = tables.pairOfSecondary(row.number) ?? tables.pairsOfPrimary(row.number)[0];
  if (pair === undefined) return;
  const [primary, secondary] = [tables.findVolume(pair.primary)?.name, tables.findVolume(pair.secondary)?.name];
  throw new TwinvolError('VOLUME_PAIRED', `${row.name} is in the pair ${primary} -> ${secondary} (${pair.state})`);
};

const planPools = (pools: readonly DeclaredPool[], model: DeclarationModel, diff: DeclarationDiff): void => {
  const declared = new Map<number, DeclarationPointer>();
  for (const [index, pool] of pools.entries()) {
    const at: DeclarationPointer = `/pool/${index}`;
    diff.item(() => {
      diff.part(at, `pool: ${pool.count} volumes of ${pool.size}`, () => {
        const sizeBytes = capacityOf(pool.size);
        const before = declared.get(sizeBytes);
        if (before !== undefined) declaredTwice(before);
        declared.set(sizeBytes, at);
        planPool(at, pool, sizeBytes, model, diff);
      });
    });
  }
};

/** What is fitted at the moment counts with the size that it had before, so that a pair does not make a pool look short. */
const planPool = (at: DeclarationPointer, pool: DeclaredPool, sizeBytes: number, model: DeclarationModel, diff: DeclarationDiff): void => {
  const { count, name: prefix = POOL_NAME_DEFAULT } = pool;
  requireName('volume', `${prefix}-1`);
  const isMeant = (row: VolumeRow): boolean =>
    row.attribute === 'secondary' && !row.isProtected && (row.formerCapacityBytes ?? row.capacityBytes) === sizeBytes;
  const present = model.tables.volumes().filter(isMeant).length;
  let number = 0;
  for (let more = present; more < count; more += 1) {
    do number += 1;
    while (model.tables.findVolume(`${prefix}-${number}`) !== undefined);
    createVolume(at, { name: `${prefix}-${number}`, size: sizeBytes, attribute: 'secondary' }, model, diff);
  }
};
