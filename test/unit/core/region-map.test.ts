import { describe, expect, test } from 'vitest';
import { RegionMap } from '../../../src/core/region-map.ts';
import type { RegionRun } from '../../../src/core/rows.ts';
import { CAPACITY_BYTES_MAX, REGION_BYTES_MIN } from '../../../src/core/units.ts';

const REGION = 65_536;
const found = (map: RegionMap, offset: number): readonly [number, number, number] | null =>
  map.locate(offset) ? [map.pv, map.offset, map.length] : null;

describe('a region map', () => {
  test('of one run finds every byte, and none outside', () => {
    const map = RegionMap.fromRuns([{ pv: 3, start: 5, count: 2 }], REGION, 2 * REGION - 512);
    expect(found(map, 0)).toEqual([3, 5 * REGION, 2 * REGION - 512]);
    expect(found(map, 2 * REGION - 513)).toEqual([3, 7 * REGION - 513, 1]);
    for (const outside of [2 * REGION - 512, -1, Number.NaN, 2 ** 53]) expect(found(map, outside)).toBeNull();
  });

  test('merges runs that follow each other on the medium, and no others', () => {
    const runs: RegionRun[] = [
      { pv: 1, start: 0, count: 2 },
      { pv: 1, start: 2, count: 1 },
      { pv: 2, start: 3, count: 1 },
      { pv: 2, start: 0, count: 1 },
    ];
    const map = RegionMap.fromRuns(runs, REGION, 5 * REGION);
    expect(map.runCount).toBe(3);
    expect(found(map, REGION)).toEqual([1, REGION, 2 * REGION]);
    expect(found(map, 3 * REGION + 7)).toEqual([2, 3 * REGION + 7, REGION - 7]);
    expect(found(map, 4 * REGION)).toEqual([2, 0, REGION]);
  });

  test('gives the same answers in whatever order it is asked', () => {
    const runs = Array.from({ length: 40 }, (_, index) => ({ pv: (index % 3) + 1, start: 100 - index * 2, count: 1 }));
    const map = RegionMap.fromRuns(runs, REGION, 40 * REGION);
    for (let step = 0; step < 400; step += 1) {
      const region = (step * 17) % 40;
      expect(found(map, region * REGION + 9)).toEqual([(region % 3) + 1, (100 - region * 2) * REGION + 9, REGION - 9]);
    }
  });

  test('can be laid over shared memory', () => {
    const map = RegionMap.fromRuns(
      [
        { pv: 1, start: 1, count: 1 },
        { pv: 2, start: 9, count: 1 },
      ],
      REGION,
      2 * REGION,
    );
    const shared = new Float64Array(new SharedArrayBuffer(map.table.byteLength));
    shared.set(map.table);
    expect(found(new RegionMap(shared), REGION + 1)).toEqual([2, 9 * REGION + 1, REGION - 1]);
  });

  test('of the largest volume in the smallest regions is exact to the byte', () => {
    const count = CAPACITY_BYTES_MAX / REGION_BYTES_MIN;
    const map = RegionMap.fromRuns(
      [
        { pv: 1, start: 0, count: count - 1 },
        { pv: 2, start: 2 ** 27 - 1, count: 1 },
      ],
      REGION_BYTES_MIN,
      CAPACITY_BYTES_MAX,
    );
    expect(found(map, CAPACITY_BYTES_MAX - 1)).toEqual([2, 2 ** 43 - 1, 1]);
  });

  test('refuses runs that do not make the capacity', () => {
    const runs = [{ pv: 1, start: 0, count: 2 }];
    expect(() => RegionMap.fromRuns(runs, REGION, 2 * REGION + 512)).toThrow('do not make a capacity');
    expect(() => RegionMap.fromRuns(runs, REGION, REGION)).toThrow('do not make a capacity');
    expect(() => new RegionMap(new Float64Array(2))).toThrow('three words');
  });
});
