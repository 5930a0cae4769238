/**
 * Verify: compares the legs of a pair under load, and with `repair` has copied again what differs.
 *
 * It holds no lock while it reads, which may take hours: a command or error that changes the pair's state ends the
 * verify too, because from then on the legs may differ rightly. The bits of what differs are set by the data plane while
 * it compares. A duplex pair then goes to duplex-pending with its reason, and the report says `repaired` when it is
 * duplex again; in split and suspended the next resync copies what was marked, and the report says so (`repaired` false).
 */
import { TwinvolError } from '../core/faults.ts';
import type { VerifyInput, VerifyReport } from './api.ts';
import type { DeviceContext } from './context.ts';
import { requirePair } from './pair-lookup.ts';
import type { PairShell } from './pair-shell.ts';
import { givenUp, waitForPair } from './pair-wait.ts';

/** A repair copies what differs; how long that takes is the caller's patience (its signal). */
const REPAIR_WAIT_MS = 2 ** 31 - 1;

/** @throws TwinvolError `PAIR_STATE`, `CHANGED` (the pair's state changed meanwhile), `CANCELLED`, `STORE_IO` */
export const verifyPair = async (
  context: DeviceContext,
  shell: PairShell,
  input: VerifyInput,
  signal?: AbortSignal,
): Promise<VerifyReport> => {
  const { pairs, plane, views, locks } = context;
  const pair = requirePair(context, input, 'verify');
  const text = views.pairText(pair);
  const changed = new AbortController();
  const stopListening = pairs.onChange((id) => {
    if (id === pair.id && pairs.row(id)?.state !== pair.state) changed.abort();
  });
  // Regions that differ are marked as they are found, and a duplex pair with a dirty region can neither be split nor resynced.
  const recopy = (bytes: number): Promise<void> =>
    locks.runUnbounded([`pair:${pair.id}`], `pair verify ${text}`, () => shell.happening(pair.id, { event: 'differs', bytes }));
  const signals = signal === undefined ? [changed.signal] : [signal, changed.signal];
  try {
    const report = await plane.verify(pair.id, { repair: input.repair === true, signal: AbortSignal.any(signals) });
    const { dirtyBytes } = views.pair(requirePair(context, input, 'verify'));
    const found = { ...report, dirtyBytes: dirtyBytes.union };
    if (input.repair !== true || report.differingBytes === 0) return { ...found, repaired: false };
    stopListening();
    await recopy(report.differingBytes);
    if (pair.state !== 'duplex') return { ...found, repaired: false };
    await waitForPair(context, { primary: pair.primary, secondary: pair.secondary, state: 'duplex', timeoutMs: REPAIR_WAIT_MS }, signal);
    return { ...found, dirtyBytes: 0, repaired: true };
  } catch (error) {
    const marked = input.repair === true && pairs.row(pair.id)?.state === 'duplex' ? plane.pairProgress(pair.id).dirtyBytes.union : 0;
    stopListening();
    if (marked > 0) await recopy(marked);
    if (signal?.aborted === true) throw givenUp(signal, `the verify of ${text}`);
    if (!changed.signal.aborted) throw error;
    const state = pairs.row(pair.id)?.state ?? 'simplex';
    throw new TwinvolError('CHANGED', `verify ended: ${text} became ${state} meanwhile, so its legs may differ rightly`, {
      cause: error,
      details: { state },
    });
  } finally {
    stopListening();
  }
};
