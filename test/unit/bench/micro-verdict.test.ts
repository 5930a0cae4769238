/** When a benchmark counts as slower than its baseline: made-up rounds, with the noise that real machines have. */
import { describe, expect, it } from 'vitest';
import { isLost, lossOf, matchCases, type Round } from '../../../bench/micro/verdict.ts';

const rounds = (...ratios: number[]): Round[] => ratios.map((ratio) => ({ baselineNs: 100, currentNs: 100 * ratio }));

describe('the verdict on a benchmark', () => {
  it('is the median of the ratios, whatever single rounds say', () => {
    expect(lossOf(rounds(1, 1.1, 9))).toBeCloseTo(0.1);
    expect(lossOf(rounds(0.5, 0.8, 1))).toBeCloseTo(-0.2);
    expect(lossOf([])).toBe(0);
    // The machine was slow in one round, for both.
    expect(lossOf([...rounds(1, 1), { baselineNs: 5000, currentNs: 5100 }])).toBeCloseTo(0);
  });

  it('is a loss only when every attempt shows it', () => {
    expect(isLost([rounds(1.5, 1.4, 1.3)], 0.25)).toBe(true);
    expect(isLost([rounds(1.5, 1.4, 1.3), rounds(1.3, 1.3, 1.2)], 0.25)).toBe(true);
    expect(isLost([rounds(1.5, 1.4, 1.3), rounds(1.1, 1.3, 1.2)], 0.25)).toBe(false);
    expect(isLost([rounds(1.25)], 0.25)).toBe(false);
    expect(isLost([], 0.25)).toBe(false);
  });

  it('compares what both trees measure in the same way, and names the rest', () => {
    const before = [
      { name: 'a', version: 1 },
      { name: 'b', version: 1 },
      { name: 'c', version: 1 },
    ];
    const now = [
      { name: 'a', version: 1 },
      { name: 'b', version: 2 },
      { name: 'd', version: 1 },
    ];
    expect(matchCases(before, now)).toEqual({ compared: ['a'], left: ['measures something else since version 2: b', 'new: d', 'gone: c'] });
  });
});
