/**
 * Makes regions that left a volume read as zeros, durably, so that their next owner never sees old data (specification 2).
 *
 * The engine puts the runs into a scrub list in the same record in which they leave their volume, calls this, and then
 * commits `scrub-delete`. After a crash in between the list is still there, and the work is done again: it is the same
 * result however often. Nothing may write to the runs meanwhile.
 */
import type { RegionRun } from '../core/rows.ts';
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
    const path = store.pvPath(run.pv);
    const end = (run.start + run.count) * store.regionBytes;
    try {
      for (const extent of dataExtents(store.pvFd(run.pv), run.start * store.regionBytes, end)) {
        signal?.throwIfAborted();
        if (await puncher.punch(path, extent.offset, extent.length)) {
          punchedBytes += extent.length;
        } else {
          await writeZeros(store.pvFd(run.pv), extent.offset, extent.length);
          zeroedBytes += extent.length;
        }
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw storeFault(error, 'clearing regions that left their volume', path);
    }
  }
  await syncAll(store, runs);
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
