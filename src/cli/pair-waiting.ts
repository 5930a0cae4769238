/** Waiting for a pair's state with its progress on show: one `pair.wait` in flight, and looks at the pair beside it. */
import type { PairState } from '../core/rows.ts';
import type { PairView } from '../core/views.ts';
import type { PairRef } from '../engine/api.ts';
import type { CommandContext } from './command-context.ts';
import { CopyProgress } from './copy-progress.ts';
import { DURATION_MS_MAX } from './duration.ts';

/**
 * @returns the pair in its new state; null for `simplex`
 * @throws TwinvolError `TIMEOUT`, `WAIT_IMPOSSIBLE`
 */
export const waitForState = async (
  context: CommandContext,
  pair: PairRef,
  state: PairState,
  timeoutMs: number = DURATION_MS_MAX,
): Promise<PairView | null> => {
  return showingProgress(context, pair, new CopyProgress(context), context.call('pair.wait', { ...pair, state, timeoutMs }));
};

/**
 * Waits until none of these pairs is copying any more, with one time limit for all. A pair in another state is not
 * waited for: it does not become duplex by itself, and the command that follows says so.
 * @throws TwinvolError as `waitForState`
 */
export const waitWhileCopying = async (
  context: CommandContext,
  pairs: readonly PairView[],
  timeoutMs: number = DURATION_MS_MAX,
): Promise<void> => {
  const endMs = context.io.nowMs() + timeoutMs;
  for (const { primary, secondary, state } of pairs) {
    if (state !== 'duplex-pending') continue;
    const ref = { primary: primary.number, secondary: secondary.number };
    await waitForState(context, ref, 'duplex', Math.max(0, endMs - context.io.nowMs()));
  }
};

/** Waits for a call that is under way, and shows meanwhile how far the pair is. @throws what the call throws */
export const showingProgress = async <T>(
  context: CommandContext,
  pair: PairRef,
  progress: CopyProgress,
  waiting: Promise<T>,
): Promise<T> => {
  let isOver = false;
  const over = waiting.then(
    () => undefined,
    () => undefined,
  );
  void over.then(() => {
    isOver = true;
  });
  try {
    while (!isOver) {
      const view = await viewOf(context, pair);
      if (view !== null && !isOver) progress.show(view);
      await Promise.race([over, delay(progress.intervalMs, over)]);
    }
  } finally {
    progress.end();
  }
  return waiting;
};

/** The pair as it is now; null when there is none, or none that can be told apart. Only for show: errors are the wait's matter. */
const viewOf = async (context: CommandContext, pair: PairRef): Promise<PairView | null> => {
  try {
    const pairs = await context.call('pair.status', { primary: pair.primary });
    const isMeant = ({ secondary }: PairView): boolean =>
      pair.secondary === undefined || secondary.name === pair.secondary || secondary.number === pair.secondary;
    return pairs.find(isMeant) ?? null;
  } catch {
    return null;
  }
};

const delay = (ms: number, sooner: Promise<void>): Promise<void> => {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    void sooner.then(() => clearTimeout(timer));
  });
};
