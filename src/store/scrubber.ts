/**
 * Makes regions that left a volume read as zeros, durably, so that their next owner never sees old data (specification 2).
 *
 * The engine puts the runs into a scrub list in the same record in which they leave their volume, calls this, and then
 * commits `scrub-delete`. After a crash in between the list is still there, and the work is done again: it is the same
 * result however often. Nothing may write to the runs meanwhile.
 */
import type { RegionRun, VolumeRow } from '../core/rows.ts';
import { MiB } from '../core/units.ts';
import { seekData, seekHole } from '../platform/hole-seek.ts';
import { syncData, writeZeros } from '../platform/sparse-file.ts';
import { storeFault } from './store-faults.ts';
import type { Store } from './store.ts';

/** What platform/hole-punch.ts gives: false means "not possible, write zeros". Offset and length in bytes. */
export type Puncher = { punch(path: string, offset: number, length: number): Promise<boolean> };

export type ScrubResult = {
  /** Bytes that may have held data, given back to the file system. */
  readonly punchedBytes: number;
  /** Bytes that were overwritten with zeros, where giving back is not possible. */
  readonly zeroedBytes: number;
};

/** The longest stretch that is handled at once, so that a stop does not have to wait long. */
const STEP_BYTES = 1024 * MiB;

/**
 * @param signal ends the work early, between steps; the runs then stay in their list
 * @throws TwinvolError STORE_FULL, STORE_IO; AbortError
 */
export const scrubRuns = async (store: Store, runs: readonly RegionRun[], puncher: Puncher, signal?: AbortSignal): Promise<ScrubResult> => {
  let punchedBytes = 0;
  let zeroedBytes = 0;
  for (const run of runs) {
    const start = run.start * store.regionBytes;
    const cleared = await clearRange(store, run.pv, { start, end: start + run.count * store.regionBytes }, puncher, signal);
    punchedBytes += cleared.punchedBytes;
    zeroedBytes += cleared.zeroedBytes;
  }
  await syncAll(store, runs);
  return { punchedBytes, zeroedBytes };
};

/**
 * Makes the bytes behind a volume's end, in its last region, read as zeros, durably. For a volume that is about to get
 * larger: where region fitting has made it smaller by part of a region, its old data is still there. Nobody can read or
 * write these bytes until the new capacity is recorded, so it may be done, and done again, at any time before.
 * @throws TwinvolError STORE_FULL, STORE_IO
 */
export const scrubBehind = async (store: Store, { runs, capacityBytes }: VolumeRow, puncher: Puncher): Promise<void> => {
  const last = runs.at(-1);
  const usedBytes = capacityBytes % store.regionBytes;
  if (last === undefined || usedBytes === 0) return;
  const end = (last.start + last.count) * store.regionBytes;
  await clearRange(store, last.pv, { start: end - store.regionBytes + usedBytes, end }, puncher);
  await syncAll(store, [last]);
};

/** @param range in bytes of the physical volume */
const clearRange = async (
  store: Store,
  pv: number,
  { start, end }: { readonly start: number; readonly end: number },
  puncher: Puncher,
  signal?: AbortSignal,
): Promise<ScrubResult> => {
  let punchedBytes = 0;
  let zeroedBytes = 0;
  const path = store.pvPath(pv);
  try {
    for (const extent of dataExtents(store.pvFd(pv), start, end)) {
      signal?.throwIfAborted();
      if (await puncher.punch(path, extent.offset, extent.length)) {
        punchedBytes += extent.length;
      } else {
        await writeZeros(store.pvFd(pv), extent.offset, extent.length);
        zeroedBytes += extent.length;
      }
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw storeFault(error, 'clearing regions that left their volume', path);
  }
  return { punchedBytes, zeroedBytes };
};

/** Also where nothing was found to clear: an earlier attempt may have cleared it and stopped before it was durable. */
const syncAll = async (store: Store, runs: readonly RegionRun[]): Promise<void> => {
  for (const pv of new Set(runs.map((run) => run.pv))) {
    try {
      await syncData(store.pvFd(pv));
    } catch (error) {
      throw storeFault(error, 'flushing a physical volume', store.pvPath(pv));
    }
  }
};

/** The stretches of a range that may hold data, in bytes. */
function* dataExtents(fd: number, start: number, end: number): IterableIterator<{ readonly offset: number; readonly length: number }> {
  let offset = seekData(fd, start, end);
  while (offset < end) {
    const stop = Math.min(seekHole(fd, offset, end), offset + STEP_BYTES);
    if (stop <= offset) throw new Error(`no end of the data at byte ${offset}`);
    yield { offset, length: stop - offset };
    offset = seekData(fd, stop, end);
  }
}
