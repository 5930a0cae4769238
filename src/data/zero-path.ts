/**
 * Long ranges of zeros (TRIM, WRITE_ZEROES), in pieces, with the space given back to the file system where it can be.
 *
 * Punching a hole takes a program (platform/hole-punch.ts) and a millisecond, too long for a lane; it runs on a thread
 * of its own, which takes the same gate and the same range locks as a lane and needs nothing of the main thread while
 * it is inside. One piece at a time, so that nobody waits long for the gate.
 */
import { LOCK_GRANULE_BYTES } from '../core/units.ts';
import type { HolePuncher } from '../platform/hole-punch.ts';
import type { Leg } from './leg.ts';
import { followerLeg, truthLeg, type WorkerVolume, type WritePath } from './write-path.ts';

/** File systems give back whole blocks; smaller holes are not worth a program. */
export const PUNCH_BYTES_MIN: number = 64 * 1024;
const PIECE_BYTES: number = 16 * LOCK_GRANULE_BYTES;
const BLOCK_BYTES = 4096;

/**
 * Makes a leg's range read as zeros, as holes where the file system gives back blocks. Everything from the first data on
 * is punched at once, holes in between included: a program for each piece of data would take longer, and pieces that
 * are not worth one would stay allocated.
 * False: failed, the code is in `leg.failure`.
 */
export const punchLeg = async (leg: Leg, offset: number, length: number, puncher: HolePuncher): Promise<boolean> => {
  const end = offset + length;
  const at = leg.nextData(offset, end);
  if (at === end) return true;
  const isPunched =
    end - at >= PUNCH_BYTES_MIN &&
    puncher.method === 'fallocate' &&
    (await leg.eachPiece(at, end - at, (path, fileOffset, bytes) => puncher.punch(path, fileOffset, bytes)));
  return isPunched || leg.clear(at, end - at);
};

/** Zeros [offset, offset + length) of a volume on all legs. `punch` false: zeros are written, and take space. */
export const zeroVolume = async (
  path: WritePath,
  volume: WorkerVolume,
  range: { readonly offset: number; readonly length: number; readonly punch: boolean },
  puncher: HolePuncher,
): Promise<string> => {
  const zero = (leg: Leg, offset: number, length: number): Promise<boolean> =>
    range.punch ? punchLeg(leg, offset, length, puncher) : Promise.resolve(leg.writeZeros(offset, length));
  const end = range.offset + range.length;
  // Where the truth leg is a hole, it reads as zeros already, and so do clean regions of its followers.
  const skip = (offset: number): number => (range.punch ? truthLeg(volume).nextData(offset, end) : offset);
  for (let offset = skip(range.offset); offset < end; offset = skip(offset)) {
    const length = Math.min(end - offset, PIECE_BYTES - (offset % BLOCK_BYTES));
    path.gate.enter();
    try {
      const code = await zeroPiece(path, volume, offset, length, zero);
      if (code !== '') return code;
    } finally {
      path.gate.leave();
    }
    offset += length;
  }
  return '';
};

const zeroPiece = async (
  path: WritePath,
  volume: WorkerVolume,
  offset: number,
  length: number,
  zero: (leg: Leg, offset: number, length: number) => Promise<boolean>,
): Promise<string> => {
  const refusal = path.begin(volume, offset, length);
  if (refusal !== '') return refusal;
  try {
    const truth = truthLeg(volume);
    if (!(await zero(truth, offset, length))) return path.truthFailed(volume, offset, length, truth.failure);
    let code = '';
    for (const pair of volume.primaryOf) {
      const pieces: Array<readonly [number, number]> = [];
      path.eachFollowerPiece(pair, offset, length, (from, bytes) => pieces.push([from, bytes]) > 0);
      const leg = followerLeg(pair);
      for (const [from, bytes] of pieces) {
        if (await zero(leg, from, bytes)) continue;
        // The other followers get their zeros all the same: no leg may miss what the truth has.
        if (!path.followerFailed(pair, offset, length) && code === '') code = leg.failure;
        break;
      }
    }
    return code;
  } catch (error) {
    path.truthFailed(volume, offset, length, 'EIO');
    throw error;
  } finally {
    path.end();
  }
};
