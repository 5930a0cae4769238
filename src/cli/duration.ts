/** Durations and moments, as people type and read them. */
import { TwinvolError } from '../core/faults.ts';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
export const DURATION_MS_MAX: number = 2 ** 31 - 1;

/**
 * `60s`, `1.5m`, `250ms`, `2h`, or a plain number of seconds.
 * @returns milliseconds, a whole number up to 2^31 - 1
 * @throws TwinvolError `USAGE`
 */
export const parseDuration = (text: string): number => {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)$/i.exec(text.trim());
  const ms =
    match?.[1] === undefined ? Number.NaN : Math.round(Number(match[1]) * (UNIT_MS[(match[2] || 's').toLowerCase()] ?? Number.NaN));
  if (!(ms <= DURATION_MS_MAX)) {
    throw new TwinvolError('USAGE', `"${text}" is not a duration`, {
      remedy: 'give a number with ms, s, m, h or d (24 days at most), such as 60s',
    });
  }
  return ms;
};

/** `0:07`, `12:30`, `1:02:03`; rounded up, so that it is zero only at the end. */
export const formatDuration = (ms: number): string => {
  const seconds = Math.ceil(ms / 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
};

/** A moment in local time: `2025-03-01 14:02:11`. */
export const formatMoment = (atMs: number): string => {
  const date = new Date(atMs);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
};
