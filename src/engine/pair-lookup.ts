/** From what the operator names to the pair, with the refusals that every pair command shares. */
import { TwinvolError } from '../core/faults.ts';
import { isRestoreInterrupted, refusalError, refusalOf } from '../core/pair-machine.ts';
import type { PairCommand } from '../core/pair-matrix.ts';
import type { PairRow, VolumeRow } from '../core/rows.ts';
import type { PairRef } from './api.ts';
import type { DeviceContext } from './context.ts';

export const PACE_MAX: number = 15;

/**
 * The pair that a reference names; null when the volumes are in no such pair.
 * @throws TwinvolError `VOLUME_NOT_FOUND`, `PAIR_AMBIGUOUS`
 */
export const findPair = (context: DeviceContext, ref: PairRef): PairRow | null => {
  const { tables } = context.store;
  const primary = tables.volume(ref.primary);
  const pairs = context.pairs.ofPrimary(primary.number);
  if (ref.secondary !== undefined) {
    const secondary = tables.volume(ref.secondary);
    return pairs.find((pair) => pair.secondary === secondary.number) ?? null;
  }
  if (pairs.length > 1) {
    const names = pairs.map((pair) => tables.volume(pair.secondary).name);
    throw new TwinvolError('PAIR_AMBIGUOUS', `${primary.name} has ${pairs.length} pairs, with ${names.join(', ')}`, {
      details: { primary: primary.number, secondaries: names },
    });
  }
  return pairs[0] ?? null;
};

/** How a reference is named in messages, also when there is no such pair. */
export const refText = (context: DeviceContext, ref: PairRef): string => {
  const { tables } = context.store;
  const primary = tables.volume(ref.primary);
  const pair = findPair(context, ref);
  if (pair !== null) return context.views.pairText(pair);
  if (ref.secondary !== undefined) return `pair ${primary.name} -> ${tables.volume(ref.secondary).name}`;
  const asSecondary = context.pairs.ofSecondary(primary.number);
  return asSecondary === undefined
    ? `volume ${primary.name}`
    : `volume ${primary.name} (a secondary: name its primary, ${tables.volume(asSecondary.primary).name}, instead)`;
};

/**
 * The pair of a command that needs one, allowed in its state.
 * @throws TwinvolError the refusal of the matrix, naming the state and what is allowed; as `findPair`
 */
export const requirePair = (context: DeviceContext, ref: PairRef, command: PairCommand): PairRow => {
  const pair = findPair(context, ref);
  const refusal = refusalOf(pair, command);
  if (refusal !== null) throw refusalError(refusal, refText(context, ref));
  if (pair === null) throw new Error(`the matrix allows ${command} on no pair`);
  return pair;
};

/**
 * Runs a command alone on a pair and its volumes; the pair is looked up again once they are ours.
 * @throws TwinvolError as `requirePair`
 */
export const onPair = async <T>(
  context: DeviceContext,
  ref: PairRef,
  command: PairCommand,
  work: (row: PairRow, text: string) => Promise<T>,
): Promise<T> => {
  const { id, primary, secondary } = requirePair(context, ref, command);
  const text = `pair ${command} ${refText(context, ref).replace(/^pair /, '')}`;
  return context.locks.run([`volume:${primary}`, `volume:${secondary}`, `pair:${id}`], text, () => {
    const row = context.pairs.row(id) ?? null;
    const refusal = refusalOf(row, command);
    if (refusal !== null) throw refusalError(refusal, text.replace(`pair ${command}`, 'pair'));
    if (row === null) throw new Error(`the matrix allows ${command} on no pair`);
    return work(row, text);
  });
};

/**
 * While one pair of a primary is restored (or stopped halfway through it), the primary's own content is neither image,
 * so nothing may be copied from it.
 * @throws TwinvolError `PAIR_STATE`
 */
export const requireNoRestore = (context: DeviceContext, primary: VolumeRow, exceptPair: number | null, command: PairCommand): void => {
  const busy = context.pairs
    .ofPrimary(primary.number)
    .find((pair) => pair.id !== exceptPair && (pair.copy === 'restore' || isRestoreInterrupted(pair)));
  if (busy === undefined) return;
  throw new TwinvolError(
    'PAIR_STATE',
    `${command} refused: ${primary.name} is being restored by ${context.views.pairText(busy)} (${busy.state})`,
    {
      remedy: 'wait until that pair is duplex',
      details: { pair: busy.id, state: busy.state },
    },
  );
};

/** @throws TwinvolError `USAGE` */
export const requirePace = (pace: number | undefined): void => {
  if (pace === undefined || (Number.isSafeInteger(pace) && pace >= 1 && pace <= PACE_MAX)) return;
  throw new TwinvolError('USAGE', `${pace} is no pace`, {
    remedy: `give a whole number from 1 (gives way most) to ${PACE_MAX} (gives way least)`,
  });
};
