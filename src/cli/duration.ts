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

const MOMENT = /^(?:(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](?=\d)|$))?(?:(\d{1,2}):(\d{2})(?::(\d{2}))?)?(Z|[+-]\d{2}:\d{2})?$/i;

/**
 * `2025-03-01 02:00`, `02:00` (the next time that it is), both in local time; `2025-03-01T02:00:00Z` or with `+01:00`;
 * `+10m` from now.
 * @returns milliseconds since 1970
 * @throws TwinvolError `USAGE`
 */
export const parseMoment = (text: string, nowMs: number): number => {
  if (text.startsWith('+')) return nowMs + parseDuration(text.slice(1));
  const [, year, month, day, hour, minute, second = '0', zone] = MOMENT.exec(text.trim()) ?? [];
  const now = new Date(nowMs);
  const wanted = [
    year === undefined ? now.getFullYear() : Number(year),
    year === undefined ? now.getMonth() : Number(month) - 1,
    year === undefined ? now.getDate() : Number(day),
    Number(hour ?? 0),
    Number(minute ?? 0),
    Number(second),
  ] as const;
  const isKnown = (year !== undefined && (zone === undefined || hour !== undefined)) || (hour !== undefined && zone === undefined);
  const utc = new Date(Date.UTC(...wanted));
  const parts = [utc.getUTCFullYear(), utc.getUTCMonth(), utc.getUTCDate(), utc.getUTCHours(), utc.getUTCMinutes(), utc.getUTCSeconds()];
  // The 30th of February, 25:00: numbers that Date would carry over into another day.
  if (!isKnown || parts.some((part, index) => part !== wanted[index])) throw notAMoment(text);
  if (zone !== undefined) return utc.getTime() - zoneMs(zone);
  const local = new Date(...wanted).getTime();
  if (year !== undefined || local > nowMs) return local;
  return new Date(wanted[0], wanted[1], wanted[2] + 1, wanted[3], wanted[4], wanted[5]).getTime();
};

const zoneMs = (zone: string): number => {
  if (/^z$/i.test(zone)) return 0;
  const [hours = 0, minutes = 0] = zone.slice(1).split(':').map(Number);
  return (zone.startsWith('-') ? -1 : 1) * (hours * 60 + minutes) * 60_000;
};

const notAMoment = (text: string): TwinvolError =>
  new TwinvolError('USAGE', `"${text}" is not a moment`, {
    remedy: 'give 02:00, 2025-03-01 02:00 (local time), 2025-03-01T02:00:00Z, or +10m from now',
  });

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
