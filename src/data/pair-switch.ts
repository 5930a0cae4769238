/**
 * A switch of pairs: what writes do from one moment on, with the dirty bits that move in the same closed gate.
 *
 * A switch moves bits in memory while their files still say what was before. Order: (1) the right to write the files
 * is taken, so that neither a copy nor the cleaner writes or forgets anything in between; (2) the primary's file gets
 * what will be dirty, so a file that cannot be written stops the switch while nothing has changed; (3) the gate; (4)
 * the secondary's file is emptied. At every point the files, with the marks, name a superset of what may differ.
 */
import type { DirtyChange, PairSwitch } from './plane-api.ts';
import type { PairState } from './plane-state.ts';
import type { WriteGate } from './write-gate.ts';

export type PairChange = { readonly change: PairSwitch; readonly pair: PairState };

const dirtyOf = ({ mode, dirty }: PairSwitch): DirtyChange =>
  dirty === 'keep' && (mode === 'copying' || mode === 'restoring') ? 'merge' : dirty;

/** @throws the system's error of a bitmap file; then nothing was switched */
export const switchPairs = async (
  gate: WriteGate,
  pairs: readonly PairChange[],
): Promise<{ readonly switched: boolean; readonly pauseMs: number }> => {
  const written = pairs.filter(({ change }) => ['merge', 'all'].includes(dirtyOf(change)));
  const locked: PairState[] = [];
  try {
    // In one order, so that two switches of the same pairs do not wait for each other.
    for (const { change, pair } of written.sort((one, other) => one.change.id - other.change.id)) {
      await pair.lockFiles();
      locked.push(pair);
      pair.prepareFiles(dirtyOf(change));
    }
    let switched = true;
    const pauseMs = await gate.closedFromMain(() => {
      switched = pairs.every(({ change, pair }) => change.onlyIfClean !== true || pair.dirtyBytes().union === 0);
      if (!switched) return;
      for (const { change, pair } of pairs) pair.apply(change.mode, dirtyOf(change), change.isFenced);
    });
    if (switched) for (const { change, pair } of written) pair.settleFiles(dirtyOf(change));
    return { switched, pauseMs };
  } finally {
    for (const pair of locked) pair.unlockFiles();
  }
};
