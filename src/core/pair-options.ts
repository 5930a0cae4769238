/** What a pair is formed with: who can be a primary, and the size of its dirty regions. */
import { TwinvolError } from './faults.ts';
import type { PairRow, VolumeRow } from './rows.ts';
import { DIRTY_REGION_BYTES_MIN, formatSize, isPowerOfTwo, PAIRS_PER_PRIMARY_MAX } from './units.ts';

export type PrimaryFacts = {
  /** Name of the primary whose secondary it is; null when it is none. */
  readonly secondaryOf: string | null;
  /** Pairs whose primary it is already. */
  readonly pairs: readonly PairRow[];
};

/** @throws TwinvolError `NOT_A_PRIMARY`, `LIMIT`, `PAIR_STATE` */
export const requirePrimary = (primary: VolumeRow, { secondaryOf, pairs }: PrimaryFacts): void => {
  if (secondaryOf !== null || primary.attribute === 'secondary') {
    const why = secondaryOf === null ? 'it is a volume of the pool (attribute secondary)' : `it is the secondary of ${secondaryOf}`;
    throw new TwinvolError('NOT_A_PRIMARY', `${primary.name} cannot be a primary: ${why}`, { details: { volume: primary.number } });
  }
  if (pairs.length >= PAIRS_PER_PRIMARY_MAX) {
    throw new TwinvolError('LIMIT', `${primary.name} has ${pairs.length} pairs, and ${PAIRS_PER_PRIMARY_MAX} is the limit`, {
      remedy: 'release one of them first',
    });
  }
  // In the midst of a restore, or stopped there, the primary holds neither image whole.
  const restoring = pairs.find(({ copy }) => copy === 'restore');
  if (restoring === undefined) return;
  throw new TwinvolError('PAIR_STATE', `${primary.name} is being restored by another of its pairs (${restoring.state})`, {
    remedy: 'wait until that pair is duplex',
    details: { pair: restoring.id, state: restoring.state },
  });
};

/** @throws TwinvolError `USAGE` */
export const requireDirtyRegion = (bytes: number | undefined, regionBytes: number): void => {
  if (bytes === undefined || (isPowerOfTwo(bytes) && bytes >= DIRTY_REGION_BYTES_MIN && bytes <= regionBytes)) return;
  throw new TwinvolError('USAGE', `a dirty region cannot be ${bytes} bytes`, {
    remedy: `give a power of two from ${formatSize(DIRTY_REGION_BYTES_MIN)} to the physical region's ${formatSize(regionBytes)}`,
  });
};
