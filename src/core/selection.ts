/**
 * The choice of a secondary (specification 5, JP embodiments 1 to 3). Pure: rows in, a choice or a refusal out.
 *
 * Automatic choice, in this order:
 *   1. an unused volume of attribute secondary with the primary's capacity, the lowest number first;
 *   2. without fitting and with condition `same`: refused;
 *   3. the smallest larger one (of equally large ones the lowest number);
 *   4. with fitting only: the largest smaller one (lowest number), if the unassigned-region table has what it lacks.
 * With fitting the chosen one always ends with the primary's capacity, so condition `same` holds in any case.
 * A protected volume is never chosen automatically. A named one is judged by the same rules, protection aside; the
 * condition binds a named one only where the command gives it.
 */
import { TwinvolError } from './faults.ts';
import { fittingFor } from './fitting.ts';
import type { Fitting } from './fitting.ts';
import type { PairState, VolumeRow } from './rows.ts';
import { formatSize } from './units.ts';
import type { CandidateView } from './views.ts';

/** What a volume is in at the moment; undefined: in no pair. */
export type Involvement = { readonly role: 'primary' | 'secondary'; readonly partner: string; readonly state: PairState };

export type Pool = {
  readonly volumes: Iterable<VolumeRow>;
  readonly involvementOf: (number: number) => Involvement | undefined;
  readonly regionBytes: number;
  /** Regions that can be given out now. */
  readonly unassignedRegions: number;
  /** Regions that left a volume and still have to be cleared. */
  readonly scrubbingRegions: number;
};

export type Wish = { readonly condition: 'same' | 'any'; readonly fit: 'off' | 'regions' };

export type Choice = {
  readonly volume: VolumeRow;
  readonly how: 'same' | 'larger' | 'smaller';
  /** Null: its capacity stays. */
  readonly fitting: Fitting | null;
};

/** Why a volume cannot be the secondary of `primary` whatever its capacity; null when it can. */
export const unusableReason = (primary: VolumeRow, volume: VolumeRow, involvement: Involvement | undefined): string | null => {
  if (volume.number === primary.number) return 'it is the primary itself';
  if (involvement?.role === 'primary') return `it is a primary (of ${involvement.partner}, ${involvement.state})`;
  if (involvement !== undefined) return `it is in use as the secondary of ${involvement.partner} (${involvement.state})`;
  if (volume.attribute !== 'secondary') return 'its attribute is normal, not secondary';
  return null;
};

const sizeRelation = (primary: VolumeRow, volume: VolumeRow): Choice['how'] => {
  if (volume.capacityBytes === primary.capacityBytes) return 'same';
  return volume.capacityBytes > primary.capacityBytes ? 'larger' : 'smaller';
};

const better = (challenger: VolumeRow, holder: VolumeRow | undefined, preferSmall: boolean): boolean => {
  if (holder === undefined) return true;
  if (challenger.capacityBytes !== holder.capacityBytes) return challenger.capacityBytes < holder.capacityBytes === preferSmall;
  return challenger.number < holder.number;
};

type Best = { same?: VolumeRow; larger?: VolumeRow; smaller?: VolumeRow };

const bestOf = (primary: VolumeRow, pool: Pool): Best => {
  const best: Best = {};
  for (const volume of pool.volumes) {
    if (volume.isProtected || unusableReason(primary, volume, pool.involvementOf(volume.number)) !== null) continue;
    const how = sizeRelation(primary, volume);
    if (better(volume, best[how], how !== 'smaller')) best[how] = volume;
  }
  return best;
};

/**
 * The device's own choice.
 * @throws TwinvolError `NO_CANDIDATE`, `REGIONS_MISSING`; nothing has changed then
 */
export const chooseSecondary = (primary: VolumeRow, pool: Pool, wish: Wish): Choice => {
  const best = bestOf(primary, pool);
  if (best.same !== undefined) return { volume: best.same, how: 'same', fitting: null };
  const fits = wish.fit === 'regions';
  if (best.larger !== undefined && (fits || wish.condition === 'any')) return chosen(primary, best.larger, pool, wish);
  if (best.smaller !== undefined && fits) return chosen(primary, best.smaller, pool, wish);
  throw noCandidate(primary, best, pool, wish);
};

/**
 * Judges the volume that the operator or host named.
 * @param condition the command's own, not the device's default
 * @throws TwinvolError `NOT_A_SECONDARY`, `VOLUME_PAIRED`, `REGIONS_MISSING`
 */
export const nameSecondary = (primary: VolumeRow, named: VolumeRow, pool: Pool, wish: Wish): Choice => {
  const involvement = pool.involvementOf(named.number);
  const reason = unusableReason(primary, named, involvement);
  if (reason !== null) throw unusable(primary, named, reason, involvement !== undefined && named.number !== primary.number);
  const how = sizeRelation(primary, named);
  if (wish.fit === 'off' && how === 'smaller') {
    throw unusable(
      primary,
      named,
      `it is smaller than ${primary.name} by ${formatSize(primary.capacityBytes - named.capacityBytes)}, and regions are not fitted`,
      false,
    );
  }
  if (wish.fit === 'off' && how === 'larger' && wish.condition === 'same') {
    throw unusable(primary, named, `it is larger than ${primary.name}, and the condition is "same"`, false);
  }
  return chosen(primary, named, pool, wish);
};

const chosen = (primary: VolumeRow, volume: VolumeRow, pool: Pool, wish: Wish): Choice => {
  const fitting = wish.fit === 'regions' ? fittingFor(volume, primary.capacityBytes, pool.regionBytes) : null;
  if (fitting !== null && fitting.missingRegions > pool.unassignedRegions) throw regionsMissing(primary, volume, fitting, pool);
  return { volume, how: sizeRelation(primary, volume), fitting };
};

const unusable = (primary: VolumeRow, named: VolumeRow, reason: string, isPaired: boolean): TwinvolError => {
  const another = `choose another one (twinvol pool candidates ${primary.name})`;
  const remedy = isPaired
    ? `${another}, or release that pair first`
    : named.attribute === 'normal' && named.number !== primary.number
      ? `put it into the pool with twinvol volume set ${named.name} --attribute secondary; its content will be overwritten`
      : another;
  return new TwinvolError(
    isPaired ? 'VOLUME_PAIRED' : 'NOT_A_SECONDARY',
    `volume ${named.name} (${named.number}) cannot be the secondary: ${reason}; nothing was changed`,
    { remedy, details: { volume: named.number, reason } },
  );
};

const noCandidate = (primary: VolumeRow, best: Best, pool: Pool, wish: Wish): TwinvolError => {
  const needed = `${formatSize(primary.capacityBytes)}`;
  const near = best.larger ?? best.smaller;
  const { inUse, kept } = notOffered(primary, pool);
  const [spared] = kept.filter((volume) => wouldDo(primary, volume, pool, wish));
  const why =
    best.larger !== undefined
      ? `none has exactly ${needed}, and the condition is "same" (volume ${best.larger.name} has ${formatSize(best.larger.capacityBytes)})`
      : near !== undefined
        ? `the largest unused one, ${near.name}, has ${formatSize(near.capacityBytes)} of the ${needed} needed`
        : noneUnusedText(inUse, kept);
  const remedy =
    spared !== undefined
      ? `name ${spared.name} if it is meant, or end its protection with twinvol volume set ${spared.name} --protected off`
      : best.larger !== undefined
        ? 'give --condition any, or --fit regions'
        : near !== undefined
          ? 'give --fit regions, or create a volume of that size with --attribute secondary'
          : `create one with twinvol volume create NAME --size ${primary.capacityBytes} --attribute secondary, or release a pair`;
  const spare = spared === undefined || near === undefined ? '' : `; ${spared.name} would do, but is protected`;
  return new TwinvolError('NO_CANDIDATE', `no secondary for ${primary.name}: ${why}${spare}; nothing was changed`, {
    remedy,
    details: {
      primary: primary.number,
      neededBytes: primary.capacityBytes,
      condition: wish.condition,
      fit: wish.fit,
      inUse,
      protected: kept.slice(0, 100).map(({ name }) => name),
    },
  });
};

/** What the pool has besides the volumes that may be chosen. */
const notOffered = (primary: VolumeRow, pool: Pool): { readonly inUse: number; readonly kept: readonly VolumeRow[] } => {
  let inUse = 0;
  const kept: VolumeRow[] = [];
  for (const volume of pool.volumes) {
    if (volume.attribute !== 'secondary') continue;
    if (pool.involvementOf(volume.number) !== undefined) inUse += 1;
    else if (volume.isProtected && volume.number !== primary.number) kept.push(volume);
  }
  return { inUse, kept };
};

/** Whether an unused volume would have been chosen, had it been the only one. */
const wouldDo = (primary: VolumeRow, volume: VolumeRow, pool: Pool, wish: Wish): boolean => {
  const how = sizeRelation(primary, volume);
  if (how === 'same' || wish.fit === 'off') return how === 'same' || (how === 'larger' && wish.condition === 'any');
  const missing = fittingFor(volume, primary.capacityBytes, pool.regionBytes)?.missingRegions ?? 0;
  return missing <= pool.unassignedRegions;
};

const noneUnusedText = (inUse: number, kept: readonly VolumeRow[]): string => {
  const used = inUse === 0 ? '' : `${inUse} ${inUse === 1 ? 'is' : 'are'} in use`;
  if (kept.length === 0) return `no volume of the pool is unused (${used || 'it has none'})`;
  const names = kept.slice(0, 3).map(({ name }) => name);
  const more = kept.length > names.length ? ` and ${kept.length - names.length} more` : '';
  return `every unused volume of the pool is protected (${names.join(', ')}${more})${used === '' ? '' : `, and ${used}`}`;
};

/** Names what is missing and where it could come from: regions being cleared, and other unused volumes of the pool. */
export const regionsMissing = (primary: VolumeRow, volume: VolumeRow, fitting: Fitting, pool: Pool): TwinvolError => {
  const missing = fitting.missingRegions - pool.unassignedRegions;
  const sources: { readonly volume: string; readonly regions: number }[] = [];
  for (const other of pool.volumes) {
    if (other.number === volume.number || other.isProtected) continue;
    if (unusableReason(primary, other, pool.involvementOf(other.number)) !== null) continue;
    sources.push({ volume: other.name, regions: Math.ceil(other.capacityBytes / pool.regionBytes) });
  }
  sources.sort((a, b) => b.regions - a.regions);
  const from = [
    ...(pool.scrubbingRegions > 0 ? [`${pool.scrubbingRegions} regions are being cleared and come soon`] : []),
    ...sources.slice(0, 3).map((source) => `unused volume ${source.volume} has ${source.regions}`),
  ];
  const where = from.length === 0 ? 'no unused volume of the pool could give them' : from.join('; ');
  return new TwinvolError(
    'REGIONS_MISSING',
    `volume ${volume.name} needs ${fitting.missingRegions} more regions, and ${missing} of them are missing from the unassigned-region table (${where}); nothing was changed`,
    {
      remedy:
        sources.length > 0
          ? 'delete an unused volume of the pool, or create a secondary of the right capacity'
          : 'create a secondary of the right capacity: the device adds physical volumes for it',
      details: {
        missingRegions: missing,
        neededRegions: fitting.missingRegions,
        unassignedRegions: pool.unassignedRegions,
        scrubbingRegions: pool.scrubbingRegions,
        sources: sources.slice(0, 100),
      },
    },
  );
};

/**
 * The unused-secondary report: the candidates for a named choice, or with `explain` every volume and why it is not one.
 * Smaller volumes are candidates only where regions are fitted; larger ones with condition `same` too.
 */
export const reportCandidates = (
  primary: VolumeRow,
  pool: Pool,
  options: Wish & { readonly explain: boolean },
): readonly CandidateView[] => {
  const views: CandidateView[] = [];
  for (const volume of pool.volumes) {
    const reason = candidateReason(primary, volume, pool, options);
    if (reason !== null && !options.explain) continue;
    const isSizeMeaningful = volume.number !== primary.number && (reason === null || volume.attribute === 'secondary');
    views.push({
      number: volume.number,
      name: volume.name,
      capacityBytes: volume.capacityBytes,
      fit: isSizeMeaningful ? sizeRelation(primary, volume) : 'none',
      candidate: reason === null,
      reason,
    });
  }
  return views.sort((a, b) => a.number - b.number);
};

const candidateReason = (primary: VolumeRow, volume: VolumeRow, pool: Pool, { condition, fit }: Wish): string | null => {
  const reason = unusableReason(primary, volume, pool.involvementOf(volume.number));
  if (reason !== null) return reason;
  if (volume.isProtected) return 'it is protected: it is not offered, but can be named';
  const how = sizeRelation(primary, volume);
  if (how === 'larger' && fit === 'off' && condition === 'same')
    return `it is larger by ${formatSize(volume.capacityBytes - primary.capacityBytes)}, and the condition is "same"`;
  if (how !== 'smaller') return null;
  if (fit === 'off') return `it is smaller by ${formatSize(primary.capacityBytes - volume.capacityBytes)}, and regions are not fitted`;
  const missing = (fittingFor(volume, primary.capacityBytes, pool.regionBytes)?.missingRegions ?? 0) - pool.unassignedRegions;
  return missing > 0 ? `it is smaller, and ${missing} regions are missing from the unassigned-region table` : null;
};
