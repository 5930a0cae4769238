/** Moments as people type them, and the command lines of scheduled splits. Local time is that of the zone set here. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMoment } from '../../../src/cli/duration.ts';
import { pairView, statusView } from '../control/scripted-engine.ts';
import { device } from './command-line.ts';

/** 14:30 in Berlin (winter time). */
const NOW_MS = Date.UTC(2025, 0, 31, 13, 30);
let zone: string | undefined;
beforeAll(() => {
  zone = process.env['TZ'];
  process.env['TZ'] = 'Europe/Berlin';
});
afterAll(() => {
  if (zone === undefined) delete process.env['TZ'];
  else process.env['TZ'] = zone;
});

describe('a moment', () => {
  it.each<readonly [string, number]>([
    ['2025-03-01T02:00:00Z', Date.UTC(2025, 2, 1, 2)],
    ['2025-03-01 02:00:05+01:00', Date.UTC(2025, 2, 1, 1, 0, 5)],
    ['2025-03-01T02:00-05:30', Date.UTC(2025, 2, 1, 7, 30)],
    ['2025-02-01 02:00', Date.UTC(2025, 1, 1, 1)],
    ['2025-7-1 2:05', Date.UTC(2025, 6, 1, 0, 5)],
    ['2025-07-01', Date.UTC(2025, 5, 30, 22)],
    ['15:00', Date.UTC(2025, 0, 31, 14)],
    // It is past for today, so it is tomorrow's, over the end of the month.
    ['02:00', Date.UTC(2025, 1, 1, 1)],
    ['14:30', Date.UTC(2025, 1, 1, 13, 30)],
    ['+90s', NOW_MS + 90_000],
    ['+1.5h', NOW_MS + 5_400_000],
    ['2020-01-01', Date.UTC(2019, 11, 31, 23)],
  ])('%s', (text, atMs) => {
    expect(new Date(parseMoment(text, NOW_MS)).toISOString()).toBe(new Date(atMs).toISOString());
  });

  it.each([
    '',
    'soon',
    '25:00',
    '12:60',
    '2025-02-30',
    '2025-13-01',
    '2025-02-30 01:00Z',
    '02:00Z',
    '2025-01-01T',
    '+',
    '+5x',
    '7',
    '2025-01-01Z',
  ])('is not %j', (text) => {
    expect(() => parseMoment(text, NOW_MS)).toThrow(/is not a (moment|duration)/);
  });
});

describe('the command lines', () => {
  const atMs = Date.UTC(2030, 0, 1);
  const scheduled = pairView({ scheduledSplit: { atMs, failure: null, group: null } });

  it('schedule, take back, and show', async () => {
    const calls: unknown[] = [];
    const { line } = await device({
      pairSplit: async (input) => {
        calls.push(input);
        return scheduled;
      },
      groupSplit: async (input) => {
        calls.push(input);
        return [scheduled, scheduled];
      },
      pairStatus: () => [scheduled, pairView({ id: 2, scheduledSplit: { atMs, failure: 'PAIR_STATE: it is split', group: 'g' } })],
      status: () => statusView({ scheduledSplits: { pending: 1, failed: 1, nextAtMs: atMs } }),
    });
    expect(await line("pair split db --at '2030-01-01T00:00Z'")).toMatchObject({
      exit: 0,
      out: expect.stringMatching(/^pair db -> db-copy will be split at 2030-01-01 01:00:00\n$/),
    });
    expect((await line('pair split db --cancel')).out).toBe('pair db -> db-copy will not be split any more\n');
    expect((await line('group split g --at 2030-01-01T00:00Z')).out).toBe('group g: 2 pairs will be split at 2030-01-01 01:00:00\n');
    expect((await line('pair split --group g --cancel --plan')).exit).toBe(0);
    expect(calls).toEqual([
      { primary: 'db', atMs },
      { primary: 'db', atMs: null },
      { name: 'g', atMs },
      { name: 'g', atMs: null, plan: true },
    ]);
    const shown = (await line('pair status')).out;
    expect(shown).toContain('SPLIT AT');
    expect(shown).toContain('2030-01-01 01:00:00 (group) not split: PAIR_STATE: it is split');
    expect((await line('status')).out).toContain('1 scheduled, the next at 2030-01-01 01:00:00; 1 did not happen');
  });

  it.each([
    ['pair split db --at 02:00 --cancel', 'contradict'],
    ['pair split db --at 02:00 --wait', '--wait splits as soon as'],
    ['pair split --group g --at 02:00 --wait', '--wait splits as soon as'],
    ['group split g --cancel --wait', '--wait splits as soon as'],
    ['pair split db --at never', 'is not a moment'],
    ['group split g --at 25:00', 'is not a moment'],
  ])('%s is refused', async (words, part) => {
    const { line } = await device({});
    expect(await line(words)).toMatchObject({ exit: 64, err: expect.stringContaining(part) });
  });
});
