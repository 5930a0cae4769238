import { describe, expect, test } from 'vitest';
import { UnassignedRegions } from '../../../src/core/allocator.ts';
import type { RegionRun } from '../../../src/core/rows.ts';

const run = (pv: number, start: number, count: number): RegionRun => ({ pv, start, count });

/** Physical volumes 1 and 2 of 100 regions, in which only these runs are free. */
const withFree = (...free: readonly RegionRun[]): UnassignedRegions => {
  const regions = new UnassignedRegions();
  for (const pv of [1, 2]) regions.addPv(pv, 100);
  regions.take([run(1, 0, 100), run(2, 0, 100)]);
  regions.give(free);
  return regions;
};

describe('the choice of regions', () => {
  test('is the shortest free run that is long enough', () => {
    expect(withFree(run(1, 0, 50), run(1, 60, 10), run(2, 0, 12)).plan(10)).toEqual([run(1, 60, 10)]);
    expect(withFree(run(1, 0, 50), run(1, 60, 10), run(2, 0, 12)).plan(11)).toEqual([run(2, 0, 11)]);
  });

  test('among equals is the lowest numbers', () => {
    expect(withFree(run(2, 0, 10), run(1, 40, 10), run(1, 20, 10)).plan(4)).toEqual([run(1, 20, 4)]);
  });

  test('is as few runs as possible, in the order of their numbers, when none is long enough', () => {
    const regions = withFree(run(1, 0, 5), run(1, 10, 20), run(1, 50, 5), run(2, 0, 30));
    expect(regions.plan(55)).toEqual([run(1, 0, 5), run(1, 10, 20), run(2, 0, 30)]);
    expect(regions.plan(33)).toEqual([run(1, 0, 3), run(2, 0, 30)]);
  });

  test('for a volume that grows begins right behind it', () => {
    const regions = withFree(run(1, 10, 4), run(1, 50, 6), run(2, 0, 30));
    expect(regions.plan(4, run(1, 0, 10))).toEqual([run(1, 10, 4)]);
    expect(regions.plan(3, run(1, 0, 10))).toEqual([run(1, 10, 3)]);
    expect(regions.plan(9, run(1, 0, 10))).toEqual([run(1, 10, 4), run(1, 50, 5)]);
    expect(regions.plan(4, run(1, 0, 9))).toEqual([run(1, 10, 4)]);
  });

  test('is null, and nothing is taken, when there are too few', () => {
    const regions = withFree(run(1, 0, 5));
    expect(regions.plan(6)).toBeNull();
    expect(regions.allocate(6)).toBeNull();
    expect(regions.freeRegions).toBe(5);
  });

  test('of no region is no run, and of an impossible number a bug', () => {
    expect(withFree(run(1, 0, 5)).plan(0)).toEqual([]);
    expect(() => withFree().plan(-1)).toThrow('no number of regions');
    expect(() => withFree().plan(1.5)).toThrow('no number of regions');
  });
});

describe('taking and giving', () => {
  test('joins neighbours, and never across physical volumes', () => {
    const regions = withFree(run(1, 90, 5), run(2, 0, 5));
    regions.give([run(1, 95, 5)]);
    expect([...regions.runs()]).toEqual([run(1, 90, 10), run(2, 0, 5)]);
    expect(regions.longestRun).toBe(10);
  });

  test('counts by physical volume and in all', () => {
    const regions = withFree(run(1, 0, 7), run(2, 5, 3));
    expect([
      regions.freeRegions,
      regions.totalRegions,
      regions.freeRegionsOf(1),
      regions.freeRegionsOf(2),
      regions.freeRegionsOf(3),
    ]).toEqual([10, 200, 7, 3, 0]);
    regions.take([run(1, 2, 2)]);
    expect([...regions.runs()]).toEqual([run(1, 0, 2), run(1, 4, 3), run(2, 5, 3)]);
  });

  test.each([
    ['what is not free', [run(1, 3, 5)], 'not all unassigned'],
    ['the same twice', [run(1, 0, 2), run(1, 1, 2)], 'asked for twice'],
    ['an unknown physical volume', [run(3, 0, 1)], 'not all unassigned'],
    ['an impossible run', [run(1, 0, 0)], 'no run of regions'],
  ])('refuses to take %s, with no effect', (_what, runs, message) => {
    const regions = withFree(run(1, 0, 5), run(2, 0, 5));
    expect(() => regions.take([run(2, 0, 1), ...runs])).toThrow(message);
    expect([...regions.runs()]).toEqual([run(1, 0, 5), run(2, 0, 5)]);
  });

  test.each([
    ['what is free', [run(1, 4, 5)], 'unassigned already'],
    ['the same twice', [run(1, 50, 2), run(1, 51, 2)], 'given back twice'],
    ['what does not exist', [run(1, 95, 6)], 'do not exist'],
  ])('refuses to give %s, with no effect', (_what, runs, message) => {
    const regions = withFree(run(1, 0, 5));
    expect(() => regions.give([run(2, 0, 1), ...runs])).toThrow(message);
    expect([...regions.runs()]).toEqual([run(1, 0, 5)]);
  });

  test('removes a physical volume only when all of it is free', () => {
    const regions = withFree(run(2, 0, 100));
    expect(() => regions.removePv(1)).toThrow();
    regions.removePv(2);
    expect([regions.totalRegions, regions.freeRegions]).toEqual([100, 0]);
  });
});

describe('a million regions', () => {
  test('in half a million free runs: a choice takes far less than a millisecond', () => {
    const regions = new UnassignedRegions();
    for (let pv = 1; pv <= 16; pv += 1) regions.addPv(pv, 65_536);
    for (let pv = 1; pv <= 16; pv += 1) regions.take(Array.from({ length: 32_768 }, (_, index) => run(pv, index * 2, 1)));
    expect(regions.freeRunCount).toBe(524_288);
    const startedMs = performance.now();
    const taken: RegionRun[][] = [];
    for (let index = 0; index < 2000; index += 1) taken.push(regions.allocate(3) as RegionRun[]);
    for (const runs of taken) regions.give(runs);
    const eachMs = (performance.now() - startedMs) / 4000;
    expect(taken[0]).toEqual([run(1, 1, 1), run(1, 3, 1), run(1, 5, 1)]);
    expect(regions.freeRegions).toBe(524_288);
    expect(eachMs).toBeLessThan(0.5);
  });
});
