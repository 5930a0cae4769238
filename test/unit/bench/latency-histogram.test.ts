/** The histogram against the obvious way: all latencies in a sorted list. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../../../src/bench/latency-histogram.ts';

const TICK_MS = 0.0001;
const PERCENTS = [0, 1, 50, 90, 99, 99.9, 100];

/** The smallest of the values that `percent` of all do not exceed. */
const exact = (values: readonly number[], percent: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil((sorted.length * percent) / 100)) - 1] ?? 0;
};

const histogramOf = (values: readonly number[]): LatencyHistogram => {
  const histogram = new LatencyHistogram();
  for (const value of values) histogram.record(value);
  return histogram;
};

const latencies = fc.array(fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 60_000, noNaN: true })), {
  minLength: 1,
  maxLength: 300,
});

describe('LatencyHistogram', () => {
  it('is never below the true percentile, and at most 1 % and a tick above it', () => {
    fc.assert(
      fc.property(latencies, (values) => {
        const histogram = histogramOf(values);
        for (const percent of PERCENTS) {
          const truth = exact(values, percent);
          const told = histogram.percentileMs(percent);
          expect(told).toBeGreaterThanOrEqual(truth - 1e-9);
          expect(told).toBeLessThanOrEqual(truth * 1.01 + 2 * TICK_MS);
        }
        expect(histogram.minMs).toBe(Math.min(...values));
        expect(histogram.maxMs).toBe(Math.max(...values));
        expect(histogram.count).toBe(values.length);
        expect(histogram.meanMs).toBeCloseTo(values.reduce((sum, value) => sum + value, 0) / values.length, 6);
      }),
    );
  });

  it('merged is the same as recorded in one', () => {
    fc.assert(
      fc.property(latencies, latencies, (left, right) => {
        const merged = histogramOf(left);
        merged.merge(histogramOf(right));
        const whole = histogramOf([...left, ...right]);
        for (const percent of PERCENTS) expect(merged.percentileMs(percent)).toBe(whole.percentileMs(percent));
        expect(merged).toMatchObject({ count: whole.count, minMs: whole.minMs, maxMs: whole.maxMs });
      }),
    );
  });

  it('takes what no request should have: nothing, less than nothing, more than it can tell apart', () => {
    const histogram = new LatencyHistogram();
    expect([histogram.count, histogram.minMs, histogram.maxMs, histogram.meanMs, histogram.percentileMs(99)]).toEqual([0, 0, 0, 0, 0]);
    histogram.record(-5);
    histogram.record(Number.NaN);
    histogram.record(10_000_000);
    expect([histogram.count, histogram.minMs, histogram.maxMs]).toEqual([3, 0, 10_000_000]);
    expect(histogram.percentileMs(50)).toBeLessThan(2 * TICK_MS);
    expect(histogram.percentileMs(100)).toBeGreaterThan(400_000);
    histogram.reset();
    expect([histogram.count, histogram.maxMs, histogram.percentileMs(50)]).toEqual([0, 0, 0]);
  });
});
