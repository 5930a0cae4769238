/** Numbers as the tables show them. */
import { medianOf } from '../../src/bench/comparison.ts';

export { medianOf };

/** Three significant digits. */
export const short = (value: number): string => {
  if (!Number.isFinite(value)) return '-';
  if (value >= 100 || value === 0) return String(Math.round(value));
  return value.toFixed(value >= 10 ? 1 : 2);
};

export const times = (ratio: number): string => `${ratio.toFixed(2)}x`;

/** Microseconds. */
export const latency = (us: number): string => (us < 1000 ? `${Math.round(us)} us` : `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)} ms`);

/** What was measured together in one round. */
export const medians = <Key extends string>(
  rounds: ReadonlyArray<Readonly<Record<Key, number>>>,
  keys: readonly Key[],
): Record<Key, number> => Object.fromEntries(keys.map((key) => [key, medianOf(rounds.map((round) => round[key]))])) as Record<Key, number>;
