/**
 * What a command would destroy on a volume, for the warning and the plan (specification 6, step 3).
 *
 * Split or suspended, the bitmap of the side that is overwritten says what was written there since; a new pair destroys
 * everything that its secondary holds, and nobody has counted that: it is at most the whole volume, and is called so.
 */
import type { Destruction } from '../core/inquiry-text.ts';
import type { PairSide } from '../core/pair-machine.ts';
import type { PairCommand } from '../core/pair-matrix.ts';
import type { PairRow, VolumeRow } from '../core/rows.ts';
import { countRegions } from '../core/runs.ts';
import type { DataPlane } from '../data/plane-api.ts';

/**
 * @param pair the pair before the command; null when it is being formed
 * @param command a restore takes nothing away from the secondary: hosts must let go of it because it mirrors again
 */
export const destructionOf = (
  volume: VolumeRow,
  side: PairSide,
  pair: PairRow | null,
  command: PairCommand,
  plane: Pick<DataPlane, 'pairProgress'>,
): Destruction => {
  const times = { firstAtMs: null, lastAtMs: null };
  if (command === 'restore' && side === 'secondary')
    return { volumeName: volume.name, regions: 0, bytes: 0, ...times, since: 'that a restore takes away' };
  if (pair === null) return wholeVolume(volume);
  const { dirtyBytes, secondaryWritten } = plane.pairProgress(pair.id);
  if (command === 'release') {
    // Of a restore, whose image is the secondary's: what the copy has not brought to the primary yet is nowhere else.
    const bytes = dirtyBytes.union;
    const since = 'that the restore has not copied yet, and that stays on the secondary only';
    return { volumeName: volume.name, regions: Math.ceil(bytes / pair.dirtyRegionBytes), bytes, ...times, since, isAtMost: true };
  }
  const bytes = dirtyBytes[side];
  const since = pair.state === 'split' ? 'since the split' : `since the pair is ${pair.state}`;
  const written = side === 'secondary' ? secondaryWritten : times;
  return { volumeName: volume.name, regions: Math.ceil(bytes / pair.dirtyRegionBytes), bytes, ...written, since };
};

/** All that the volume holds, for commands that give the volume itself away. */
export const wholeVolume = (volume: VolumeRow): Destruction => ({
  volumeName: volume.name,
  regions: regionsIn(volume),
  bytes: volume.capacityBytes,
  firstAtMs: null,
  lastAtMs: null,
  since: 'since it was created',
  isAtMost: true,
});

const regionsIn = (volume: VolumeRow): number => countRegions(volume.runs);
