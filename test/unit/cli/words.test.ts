/** Words and numbers, as people type and read them: durations, near misses, choices, ranges, plain progress. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { choiceArgument, flagArgument, paceArgument, rangeArgument, rateArgument, volumeArgument } from '../../../src/cli/arguments.ts';
import { formatDuration, parseDuration } from '../../../src/cli/duration.ts';
import { nearest } from '../../../src/core/nearest.ts';
import { MiB } from '../../../src/core/units.ts';

describe('durations', () => {
  it.each([
    ['60s', 60_000],
    ['60', 60_000],
    ['1.5m', 90_000],
    ['250ms', 250],
    ['2h', 7_200_000],
    ['0', 0],
    ['24d', 2_073_600_000],
  ])('%s is %i ms', (text, ms) => expect(parseDuration(text)).toBe(ms));

  it.each(['', 's', '-1s', '1e3', '25d', '1 week', 'Infinity', '0x10'])('%j is none', (text) => {
    expect(() => parseDuration(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it('are rounded up, so that only the end is zero', () => {
    expect([0, 1, 1000, 61_000, 3_661_000].map(formatDuration)).toEqual(['0:00', '0:01', '0:01', '1:01', '1:01:01']);
  });
});

describe('near misses', () => {
  const commands = ['volume', 'pair', 'pool', 'status', 'pairsplit'];

  it('finds what was meant, and nothing where nothing is near', () => {
    expect(nearest('volum', commands)).toBe('volume');
    expect(nearest('stauts', commands)).toBe('status');
    expect(nearest('PAIRSLPIT', commands)).toBe('pairsplit');
    expect(nearest('frobnicate', commands)).toBeNull();
    expect(nearest('x'.repeat(10_000), commands)).toBeNull();
  });

  it('finds any word with one slip in it', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('volume', 'status', 'pairsplit'),
        fc.nat(),
        fc.constantFrom('drop', 'change', 'insert'),
        (word, place, slip) => {
          const at = place % word.length;
          const middle = { drop: '', change: '#', insert: `${word[at]}#` }[slip];
          expect(nearest(word.slice(0, at) + middle + word.slice(at + 1), commands)).toBe(word);
        },
      ),
    );
  });
});

describe('arguments', () => {
  it('take a volume by name, or by number where it is digits only', () => {
    expect(['db', '12', '12a', '0'].map(volumeArgument)).toEqual(['db', 12, '12a', 0]);
  });

  it('take paces, rates, ranges and flags, and refuse what is none', () => {
    expect(['1', '15', 'slow', 'Medium', 'fast'].map(paceArgument)).toEqual([1, 15, 3, 8, 15]);
    expect(['0', '1', '0.25', '25%'].map(rateArgument)).toEqual([0, 1, 0.25, 0.25]);
    expect(rangeArgument('1M-2M')).toEqual({ offset: MiB, length: MiB });
    expect(rangeArgument('1M-')).toEqual({ offset: MiB });
    expect(['on', 'no', 'TRUE'].map(flagArgument)).toEqual([true, false, true]);
    const wrong = [
      () => paceArgument('0'),
      () => paceArgument('1.5'),
      () => paceArgument(''),
      () => rateArgument(''),
      () => rateArgument('-0.1'),
      () => rateArgument('101%'),
      () => rangeArgument('-1M'),
      () => rangeArgument('2M-1M'),
      () => rangeArgument('1-2-3'),
      () => flagArgument('perhaps'),
      () => choiceArgument('colour', ['red'])('rde'),
    ];
    for (const parse of wrong) expect(parse).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});
