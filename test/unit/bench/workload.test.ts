/** Workloads: what flags and presets make, what an export can refuse, which requests come, and that they come again. */
import { describe, expect, it } from 'vitest';
import { RandomNumbers } from '../../../src/bench/random-numbers.ts';
import { RequestSource } from '../../../src/bench/request-source.ts';
import {
  describeStream,
  type ExportLimits,
  placeWorkload,
  PRESET_NAMES,
  type Stream,
  workloadOf,
  writes,
} from '../../../src/bench/workload.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { GiB, KiB, MiB } from '../../../src/core/units.ts';

const LIMITS: ExportLimits = { sizeBytes: 1 * GiB, minimumBlockBytes: 1, readOnly: false, canFlush: true, canFua: true };
const only = (streams: readonly Stream[]): Stream => {
  const [first] = streams;
  if (first === undefined || streams.length !== 1) throw new Error('expected one stream');
  return first;
};
const codeOf = (action: () => unknown): string => {
  try {
    action();
    return 'none';
  } catch (error) {
    expect(error).toBeInstanceOf(TwinvolError);
    return (error as TwinvolError).code;
  }
};

describe('a workload from flags', () => {
  it('reads at random where nothing is said', () => {
    const workload = workloadOf(undefined, {});
    expect(describeStream(only(workload.streams))).toBe('4 KiB random reads, depth 16, 1 connection');
    expect(writes(workload)).toBe(false);
  });

  it.each([
    ['randwrite', 'random', 0],
    ['randrw', 'random', 70],
    ['read', 'sequential', 100],
    ['write', 'sequential', 0],
    ['rw', 'sequential', 70],
  ] as const)('%s is %s with %i %% reads', (rw, pattern, readPercent) => {
    expect(only(workloadOf(undefined, { rw }).streams)).toMatchObject({ pattern, readPercent });
  });

  it('changes a preset of one stream, and refuses to change one of several', () => {
    const oltp = only(workloadOf('oltp', { depth: 4, mixPercent: 20, fua: true }).streams);
    expect(describeStream(oltp)).toBe('8 KiB random reads and writes 20/80, depth 4, 1 connection, a flush every 32 writes, FUA');
    expect(only(workloadOf('oltp', { rw: 'randread' }).streams).readPercent).toBe(100);
    expect(workloadOf('mixed', {}).streams).toHaveLength(3);
    expect(codeOf(() => workloadOf('mixed', { depth: 4 }))).toBe('USAGE');
    expect(codeOf(() => workloadOf(undefined, { rw: 'randread', mixPercent: 50 }))).toBe('USAGE');
    expect(codeOf(() => workloadOf(undefined, { fua: true }))).toBe('USAGE');
    expect(codeOf(() => workloadOf('backup', { flushEvery: 8 }))).toBe('USAGE');
    expect(codeOf(() => workloadOf(undefined, { rw: 'randrw', mixPercent: 100, fua: true }))).toBe('USAGE');
    expect(codeOf(() => workloadOf(undefined, { rw: 'read', flushEvery: 0 }))).toBe('none');
  });

  it('has presets of which boot and backup only read', () => {
    expect(PRESET_NAMES.filter((name) => writes(workloadOf(name, {})))).toEqual(['oltp', 'mixed']);
  });
});

describe('a workload on an export', () => {
  const mixed = workloadOf('mixed', {});

  it('uses whole blocks of the largest kind', () => {
    expect(placeWorkload(mixed, { ...LIMITS, sizeBytes: 10 * MiB + 5 }, { offset: 0 })).toEqual({ offset: 0, length: 10 * MiB });
    expect(placeWorkload(workloadOf(undefined, {}), LIMITS, { offset: 1 * MiB, length: 10 * KiB })).toEqual({
      offset: 1 * MiB,
      length: 8 * KiB,
    });
  });

  it.each<readonly [string, Partial<ExportLimits>, { offset: number; length?: number }]>([
    ['USAGE', {}, { offset: 0, length: 2 * GiB }],
    ['USAGE', {}, { offset: 2 * GiB }],
    ['USAGE', {}, { offset: 0, length: 64 * KiB }],
    ['USAGE', { minimumBlockBytes: 16 * KiB }, { offset: 0 }],
    ['USAGE', { minimumBlockBytes: 4 * KiB }, { offset: 512 }],
    ['READ_ONLY', { readOnly: true }, { offset: 0 }],
    ['NOT_SUPPORTED', { canFlush: false }, { offset: 0 }],
  ])('refuses with %s: %j %j', (code, limits, range) => {
    expect(codeOf(() => placeWorkload(mixed, { ...LIMITS, ...limits }, range))).toBe(code);
  });

  it('says that an export or a range is empty', () => {
    const reads = workloadOf(undefined, {});
    expect(() => placeWorkload(reads, { ...LIMITS, sizeBytes: 0 }, { offset: 0 })).toThrow('the export is empty');
    expect(() => placeWorkload(reads, LIMITS, { offset: 0, length: 0 })).toThrow('the range is empty');
    expect(() => placeWorkload(reads, LIMITS, { offset: 1 * GiB })).toThrow('the range is empty');
  });

  it('refuses what needs too much memory, and FUA where nothing makes durable', () => {
    const huge = workloadOf(undefined, { blockBytes: 32 * MiB, depth: 1024, connections: 16 });
    expect(codeOf(() => placeWorkload(huge, LIMITS, { offset: 0 }))).toBe('USAGE');
    const durable = workloadOf(undefined, { rw: 'write', fua: true });
    expect(codeOf(() => placeWorkload(durable, { ...LIMITS, canFua: false, canFlush: false }, { offset: 0 }))).toBe('NOT_SUPPORTED');
    expect(codeOf(() => placeWorkload(durable, { ...LIMITS, canFua: false }, { offset: 0 }))).toBe('none');
  });
});

describe('requests', () => {
  const take = (stream: Stream, seed: number, index = 0, count = 2000): Array<readonly [boolean, number]> => {
    const source = new RequestSource(stream, 1 * MiB, seed, index, 0);
    return Array.from({ length: count }, () => {
      source.next();
      return [source.isWrite, source.block] as const;
    });
  };
  const mix = only(workloadOf(undefined, { rw: 'randrw', mixPercent: 70, connections: 4 }).streams);

  it('are the same for the same seed, and others for another seed or connection', () => {
    expect(take(mix, 7)).toEqual(take(mix, 7));
    expect(take(mix, 7)).not.toEqual(take(mix, 8));
    expect(take(mix, 7, 0)).not.toEqual(take(mix, 7, 1));
  });

  it('keep the mix and reach every block', () => {
    const requests = take(mix, 1, 0, 20_000);
    const reads = requests.filter(([isWrite]) => !isWrite).length;
    expect(reads / requests.length).toBeCloseTo(0.7, 1);
    expect(new Set(requests.map(([, block]) => block)).size).toBe(256);
    expect(requests.every(([, block]) => block >= 0 && block < 256)).toBe(true);
  });

  it('follow each other in a sequential stream, from a place of its own for each connection, and start over', () => {
    const sequential = only(workloadOf(undefined, { rw: 'write', connections: 4 }).streams);
    expect(take(sequential, 1, 1, 3).map(([, block]) => block)).toEqual([64, 65, 66]);
    expect(
      take(sequential, 1, 3, 66)
        .map(([, block]) => block)
        .slice(62),
    ).toEqual([254, 255, 0, 1]);
  });
});

describe('random numbers', () => {
  it('spread evenly below any limit, also far above 2^32', () => {
    const numbers = new RandomNumbers(42);
    const limit = 2 ** 50;
    const tenths = Array.from({ length: 10 }, () => 0);
    for (let turn = 0; turn < 20_000; turn += 1) {
      const value = numbers.below(limit);
      expect(Number.isSafeInteger(value) && value >= 0 && value < limit).toBe(true);
      const tenth = Math.floor((value / limit) * 10);
      tenths[tenth] = (tenths[tenth] ?? 0) + 1;
    }
    for (const count of tenths) expect(count).toBeGreaterThan(1700);
  });
});
