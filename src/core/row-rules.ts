/**
 * What one row must be by itself, apart from all others: number ranges, names, lengths. The tables check every row
 * with these rules before it takes effect, so a row in the tables or in the journal can be relied on.
 * Rules between rows (owners of regions, pairs and their volumes) are in `tables.ts`.
 */
import { isValidName } from './names.ts';
import type { DeviceSettings, GroupRow, HostRow, PairRow, PvRow, RegionRun, ScheduledSplit, VolumeRow } from './rows.ts';
import { PAIR_STATES } from './rows.ts';
import { countRegions, isWellFormedRun } from './runs.ts';
import {
  CAPACITY_BYTES_MAX,
  CAPACITY_BYTES_MIN,
  DIRTY_REGION_BYTES_MIN,
  isPowerOfTwo,
  PV_BYTES_MAX,
  PV_COUNT_MAX,
  SECTOR_BYTES,
  VOLUME_COUNT_MAX,
} from './units.ts';

/** First number of volumes and of physical volumes. */
export const FIRST_NUMBER: number = 1;

/** Null when the row is right, else what is wrong with it. */
type Verdict = string | null;

const first = (...rules: ReadonlyArray<readonly [holds: boolean, otherwise: string]>): Verdict =>
  rules.find(([holds]) => !holds)?.[1] ?? null;

const isId = (value: unknown, max: number = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isSafeInteger(value) && (value as number) >= FIRST_NUMBER && (value as number) <= max;
const isTime = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isOptionalText = (value: unknown): boolean => value === undefined || typeof value === 'string';

export const isCapacity = (bytes: unknown): boolean =>
  Number.isSafeInteger(bytes) &&
  (bytes as number) >= CAPACITY_BYTES_MIN &&
  (bytes as number) <= CAPACITY_BYTES_MAX &&
  (bytes as number) % SECTOR_BYTES === 0;

const runsVerdict = (runs: readonly RegionRun[]): Verdict => {
  if (!Array.isArray(runs)) return 'has no list of runs';
  const bad = runs.find((run) => !isWellFormedRun(run));
  return bad === undefined ? null : `has the impossible run ${JSON.stringify(bad)}`;
};

export const pvVerdict = (row: PvRow, regionBytes: number): Verdict =>
  first(
    [isId(row.number, PV_COUNT_MAX), 'has an impossible number'],
    [isId(row.regions, Math.floor(PV_BYTES_MAX / regionBytes)), 'has an impossible size'],
  );

export const volumeVerdict = (row: VolumeRow, regionBytes: number): Verdict =>
  first(
    [isId(row.number, VOLUME_COUNT_MAX), 'has an impossible number'],
    [typeof row.name === 'string' && isValidName(row.name), `has the impossible name ${JSON.stringify(row.name)}`],
    [isCapacity(row.capacityBytes), `has the impossible capacity ${row.capacityBytes}`],
    [row.attribute === 'normal' || row.attribute === 'secondary', 'has an unknown attribute'],
    [typeof row.isProtected === 'boolean', 'does not say if it is protected'],
    [row.formerCapacityBytes === undefined || isCapacity(row.formerCapacityBytes), 'has an impossible former capacity'],
    [typeof row.uuid === 'string' && row.uuid.length > 0, 'has no uuid'],
    [isTime(row.createdAtMs), 'has no time of creation'],
  ) ??
  runsVerdict(row.runs) ??
  first([
    countRegions(row.runs) === Math.ceil(row.capacityBytes / regionBytes),
    `has ${countRegions(row.runs)} regions of ${regionBytes} bytes for ${row.capacityBytes} bytes`,
  ]);

const isScheduleRight = ({ scheduledSplit }: { readonly scheduledSplit?: ScheduledSplit }): boolean =>
  scheduledSplit === undefined || (isTime(scheduledSplit.atMs) && isOptionalText(scheduledSplit.failure));

const areWriteTimesRight = (written: PairRow['secondaryWritten']): boolean =>
  written === undefined || [written.firstAtMs, written.lastAtMs].every((atMs) => atMs === null || isTime(atMs));

/** A copy is named while it runs, and a suspended restore is still one: its primary holds neither image whole. */
const isCopyRight = (row: PairRow): boolean =>
  row.state === 'suspended'
    ? row.copy === undefined || row.copy === 'restore'
    : (row.state === 'duplex-pending') === (row.copy !== undefined);

const isFenceRight = ({ isFenced, state, fence }: PairRow): boolean =>
  isFenced === undefined || (state === 'suspended' && fence === 'data');

export const pairVerdict = (row: PairRow, regionBytes: number): Verdict =>
  first(
    [isId(row.id), 'has an impossible id'],
    [isId(row.primary, VOLUME_COUNT_MAX) && isId(row.secondary, VOLUME_COUNT_MAX), 'names an impossible volume'],
    [row.primary !== row.secondary, 'pairs a volume with itself'],
    [(row.state as string) !== 'simplex' && PAIR_STATES.includes(row.state), `has the unknown state ${row.state}`],
    [isCopyRight(row), `is ${row.state} with the copy ${row.copy ?? 'none'}`],
    [row.copy === undefined || ['initial', 'resync', 'restore'].includes(row.copy), `has the unknown copy ${row.copy}`],
    [
      isPowerOfTwo(row.dirtyRegionBytes) && row.dirtyRegionBytes >= DIRTY_REGION_BYTES_MIN && row.dirtyRegionBytes <= regionBytes,
      `has dirty regions of ${row.dirtyRegionBytes} bytes`,
    ],
    [row.fence === 'never' || row.fence === 'data', 'has an unknown fence level'],
    [isFenceRight(row), 'is fenced in a state in which it cannot be'],
    [isId(row.pace, 15), 'has an impossible pace'],
    [isOptionalText(row.reason), 'has a reason that is no text'],
    [isTime(row.createdAtMs) && isTime(row.stateSinceMs), 'has no times'],
    [areWriteTimesRight(row.secondaryWritten), 'has impossible times of writes'],
    [isScheduleRight(row), 'has an impossible scheduled split'],
  );

export const groupVerdict = (row: GroupRow): Verdict =>
  first(
    [typeof row.name === 'string' && isValidName(row.name), `has the impossible name ${JSON.stringify(row.name)}`],
    [Array.isArray(row.pairs) && row.pairs.every((id) => isId(id)), 'has impossible members'],
    [new Set(row.pairs).size === row.pairs.length, 'has a member twice'],
    [isScheduleRight(row), 'has an impossible scheduled split'],
  );

export const hostVerdict = (row: HostRow): Verdict =>
  first(
    [typeof row.name === 'string' && isValidName(row.name), `has the impossible name ${JSON.stringify(row.name)}`],
    [typeof row.tokenSha256 === 'string' && /^[0-9a-f]{64}$/.test(row.tokenSha256), 'has no SHA-256 of its token'],
    [
      typeof row.grants === 'object' &&
        row.grants !== null &&
        Object.values(row.grants).every((access) => access === 'ro' || access === 'rw'),
      'has an unknown access',
    ],
    [isCertificateList(row.certificates), 'has certificates that are no SHA-256'],
    [isTime(row.createdAtMs), 'has no time of creation'],
  );

/** Certificates of one host: the one in use, and older ones until they are replaced everywhere. */
export const CERTIFICATES_PER_HOST_MAX: number = 8;
/** What an inquiry may take at least and at most. */
export const INQUIRY_DEADLINE_MS_MIN: number = 50;
export const INQUIRY_DEADLINE_MS_MAX: number = 60_000;

const isCertificateList = (list: HostRow['certificates']): boolean =>
  list === undefined ||
  (Array.isArray(list) && list.length <= CERTIFICATES_PER_HOST_MAX && list.every((sha256) => /^[0-9a-f]{64}$/.test(sha256)));

export const scrubVerdict = (id: number, runs: readonly RegionRun[]): Verdict =>
  first([isId(id), 'has an impossible id']) ?? runsVerdict(runs) ?? first([runs.length > 0, 'is empty']);

export const settingsVerdict = (settings: DeviceSettings): Verdict =>
  first(
    [settings.condition === 'same' || settings.condition === 'any', 'condition is same or any'],
    [
      settings.attributeAfterRelease === 'normal' || settings.attributeAfterRelease === 'secondary',
      'attributeAfterRelease is normal or secondary',
    ],
    [settings.fit === 'off' || settings.fit === 'regions', 'fit is off or regions'],
    [settings.secondaryAccess === 'refuse' || settings.secondaryAccess === 'read-only', 'secondaryAccess is refuse or read-only'],
    [settings.durability === 'power' || settings.durability === 'process', 'durability is power or process'],
    [typeof settings.exportsFollowGrants === 'boolean', 'exportsFollowGrants is true or false'],
    [typeof settings.restoreSizeOnRelease === 'boolean', 'restoreSizeOnRelease is true or false'],
    [
      isId(settings.inquiryDeadlineMs, INQUIRY_DEADLINE_MS_MAX) && settings.inquiryDeadlineMs >= INQUIRY_DEADLINE_MS_MIN,
      `inquiryDeadlineMs is ${INQUIRY_DEADLINE_MS_MIN} to ${INQUIRY_DEADLINE_MS_MAX}`,
    ],
  );
