/**
 * Waiting for a pair's state. Ends with the state, with the time, or as soon as the state cannot come any more by
 * itself: a pair that is suspended does not become duplex without a command, and one that was released is simplex.
 */
import { TwinvolError } from '../core/faults.ts';
import type { PairRow, PairState } from '../core/rows.ts';
import type { PairView } from '../core/views.ts';
import type { PairWaitInput } from './api.ts';
import type { DeviceContext } from './context.ts';
import { findPair, refText } from './pair-lookup.ts';

/** setTimeout's own limit. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

type Verdict = { readonly kind: 'reached' } | { readonly kind: 'waiting' } | { readonly kind: 'impossible'; readonly why: string };

/** The error of work that its caller gave up, or that the end of the engine did. */
export const givenUp = (signal: AbortSignal | undefined, what: string): TwinvolError => {
  const reason: unknown = signal?.reason;
  return reason instanceof TwinvolError ? reason : new TwinvolError('CANCELLED', `${what} was given up by its caller`);
};

/** Whether the wait is over. `wanted` is not `simplex` where `row` is null at the start. */
export const waitVerdict = (row: PairRow | null, wanted: PairState): Verdict => {
  const state = row?.state ?? 'simplex';
  if (state === wanted) return { kind: 'reached' };
  if (row === null) return { kind: 'impossible', why: 'the pair was released' };
  if (state === 'suspended' && wanted === 'duplex')
    return { kind: 'impossible', why: `the pair is suspended (${row.reason ?? 'no reason known'})` };
  return { kind: 'waiting' };
};

/**
 * @returns the pair in the state, or null for `simplex`
 * @throws TwinvolError `TIMEOUT`, `WAIT_IMPOSSIBLE`, `PAIR_NOT_FOUND`, `CANCELLED`, `ENGINE_STOPPING`
 */
export const waitForPair = async (context: DeviceContext, input: PairWaitInput, signal?: AbortSignal): Promise<PairView | null> => {
  const found = findPair(context, input);
  if (found === null) {
    if (input.state === 'simplex') return null;
    throw new TwinvolError('PAIR_NOT_FOUND', `pair wait refused: ${refText(context, input)} is simplex: there is no such pair`);
  }
  const text = context.views.pairText(found);
  const rowNow = (): PairRow | null => context.pairs.row(found.id) ?? null;
  return new Promise((resolve, reject) => {
    let stopListening = (): void => undefined;
    const end = (finish: () => void): void => {
      stopListening();
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      finish();
    };
    const look = (): void => {
      const row = rowNow();
      const verdict = waitVerdict(row, input.state);
      if (verdict.kind === 'reached') return end(() => resolve(row === null ? null : context.views.pair(row)));
      if (verdict.kind === 'waiting') return;
      const details = { state: row?.state ?? 'simplex', reason: row?.reason ?? null };
      end(() => reject(new TwinvolError('WAIT_IMPOSSIBLE', `${text} does not become ${input.state}: ${verdict.why}`, { details })));
    };
    const late = (): void => {
      const state = rowNow()?.state ?? 'simplex';
      end(() =>
        reject(
          new TwinvolError('TIMEOUT', `${text} is ${state} and not ${input.state} after ${input.timeoutMs} ms`, {
            details: { state, wanted: input.state },
          }),
        ),
      );
    };
    const aborted = (): void => end(() => reject(givenUp(signal, `the wait for ${text}`)));
    const timer = setTimeout(late, Math.min(Math.max(0, input.timeoutMs), TIMEOUT_MS_MAX));
    signal?.addEventListener('abort', aborted, { once: true });
    stopListening = context.pairs.onChange((id) => {
      if (id === found.id) look();
    });
    if (signal?.aborted === true) return aborted();
    look();
  });
};
