/** Fault rules: the same seed strikes the same requests, a count is kept across threads' counters, a rate is about met. */
import { describe, expect, it } from 'vitest';
import type { FaultRule } from '../../../src/engine/api.ts';
import { type ActiveFault, countersOf, FAULT_COUNTER_WORDS, faultError, faultLatencyMs } from '../../../src/data/fault-rules.ts';

const rule = (changes: Partial<FaultRule> = {}): FaultRule => ({
  id: 1,
  volume: 1,
  error: 'write',
  errno: 'EIO',
  offset: 0,
  length: 1_000_000,
  rate: 1,
  latencyMs: 0,
  count: null,
  seed: 7,
  hits: 0,
  expired: false,
  ...changes,
});

const active = (changes: Partial<FaultRule> = {}, counters = new SharedArrayBuffer(FAULT_COUNTER_WORDS * 4)): ActiveFault => {
  const made = rule(changes);
  const words = new Int32Array(counters);
  if (words[0] === 0) words[2] = made.count ?? -1;
  return { rule: made, counters: words };
};

const pattern = (fault: ActiveFault, requests: number): string =>
  Array.from({ length: requests }, () => (faultError([fault], 'write', 0, 512) === '' ? '.' : 'x')).join('');

describe('a fault rule', () => {
  it('strikes its kind of request, in its range, and nothing else', () => {
    const faults = [active({ offset: 4096, length: 4096 })];
    const struck = (operation: 'read' | 'write' | 'flush', offset: number, length: number): string =>
      faultError(faults, operation, offset, length);
    expect(struck('write', 4096, 512)).toBe('EIO');
    expect(struck('write', 0, 4097)).toBe('EIO');
    expect(struck('write', 8191, 1)).toBe('EIO');
    expect(struck('write', 0, 4096)).toBe('');
    expect(struck('write', 8192, 512)).toBe('');
    expect(struck('read', 4096, 512)).toBe('');
    expect(struck('flush', 0, 0)).toBe('');
    expect(faultError([active({ error: 'any', errno: 'ENOSPC', offset: 4096 })], 'flush', 0, 0)).toBe('ENOSPC');
    expect(faultError([active({ error: 'any' })], 'read', 0, 512)).toBe('EIO');
  });

  it('strikes the same requests again for the same seed, others for another, and about as many as its rate says', () => {
    const [one, again, other] = [
      pattern(active({ rate: 0.3 }), 2000),
      pattern(active({ rate: 0.3 }), 2000),
      pattern(active({ rate: 0.3, seed: 8 }), 2000),
    ];
    expect(again).toBe(one);
    expect(other).not.toBe(one);
    for (const text of [one, other]) {
      const share = text.split('x').length / 2000;
      expect(share).toBeGreaterThan(0.26);
      expect(share).toBeLessThan(0.34);
    }
    expect(pattern(active({ rate: 0 }), 200)).not.toContain('x');
  });

  it('shares its count between all that hold its counters, and then is over', () => {
    const counters = new SharedArrayBuffer(FAULT_COUNTER_WORDS * 4);
    const one = active({ count: 5 }, counters);
    const other = active({ count: 5 }, counters);
    const texts = [pattern(one, 3), pattern(other, 4), pattern(one, 10)];
    expect(texts).toEqual(['xxx', 'xx..', '..........']);
    expect(countersOf(one.counters)).toEqual({ hits: 5, left: 0 });
  });

  it('delays without an error, or with one, for as long as it is not over; the longest delay counts', () => {
    const slow = active({ errno: 'none', latencyMs: 20, count: 2 });
    const slower = active({ id: 2, errno: 'none', latencyMs: 50, error: 'flush' });
    expect(faultError([slow], 'write', 0, 512)).toBe('');
    expect([1, 2, 3].map(() => faultLatencyMs([slow, slower], 'write', 0, 512))).toEqual([20, 20, 0]);
    expect(faultLatencyMs([slow, slower], 'flush', 0, 0)).toBe(50);
    const failing = active({ latencyMs: 5, count: 1 });
    expect(faultLatencyMs([failing], 'write', 0, 512)).toBe(5);
    expect(faultError([failing], 'write', 0, 512)).toBe('EIO');
    expect(faultLatencyMs([failing], 'write', 0, 512)).toBe(0);
  });

  it('has no end without a count', () => {
    const fault = active();
    expect(pattern(fault, 100)).toBe('x'.repeat(100));
    expect(countersOf(fault.counters)).toEqual({ hits: 100, left: null });
  });
});
