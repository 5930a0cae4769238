/** The unassigned-region table against a model that looks at every region (test/support/store-oracles.ts). */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UnassignedRegions } from '../../src/core/allocator.ts';
import type { RegionRun } from '../../src/core/rows.ts';
import { SortedMap } from '../../src/core/sorted-map.ts';
import { SlowRegions } from '../support/store-oracles.ts';

const REGIONS = 24;
const runOf = fc.record({
  pv: fc.integer({ min: 1, max: 3 }),
  start: fc.integer({ min: 0, max: REGIONS }),
  count: fc.integer({ min: 1, max: 9 }),
});
const step = fc.oneof(
  fc.record({ do: fc.constant('allocate' as const), count: fc.integer({ min: 0, max: 30 }) }),
  fc.record({ do: fc.constant('extend' as const), count: fc.integer({ min: 0, max: 30 }), after: runOf }),
  fc.record({ do: fc.constant('take' as const), runs: fc.array(runOf, { minLength: 1, maxLength: 3 }) }),
  fc.record({ do: fc.constant('give' as const), runs: fc.array(runOf, { minLength: 1, maxLength: 3 }) }),
);

const overlap = (runs: readonly RegionRun[]): boolean =>
  runs.some((a, index) =>
    runs.some((b, other) => other > index && a.pv === b.pv && a.start < b.start + b.count && b.start < a.start + a.count),
  );

test('any sequence of calls chooses, takes, gives and refuses as the model does', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const regions = new UnassignedRegions();
      const model = new SlowRegions();
      for (const pv of [1, 2]) {
        regions.addPv(pv, REGIONS);
        model.addPv(pv, REGIONS);
      }
      for (const one of steps) {
        if (one.do === 'allocate' || one.do === 'extend') {
          const after = one.do === 'extend' ? one.after : undefined;
          const chosen = regions.plan(one.count, after);
          expect(chosen).toEqual(model.plan(one.count, after));
          if (chosen === null) continue;
          regions.take(chosen);
          model.set(chosen, false);
        } else {
          const wasFree = one.do === 'take';
          const isRight = !overlap(one.runs) && model.areAll(one.runs, wasFree);
          if (isRight) model.set(one.runs, !wasFree);
          const call = (): void => regions[one.do](one.runs);
          if (isRight) call();
          else expect(call).toThrow();
        }
        const free = model.runs();
        expect([...regions.runs()]).toEqual(free);
        expect(regions.freeRegions).toBe(free.reduce((sum, { count }) => sum + count, 0));
        expect(regions.longestRun).toBe(Math.max(0, ...free.map(({ count }) => count)));
        for (const run of free) expect(regions.isFree(run)).toBe(true);
      }
    }),
    { numRuns: 300 },
  );
});

test('a sorted map is a sorted array, also when its chunks split and vanish', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 3000 })), { minLength: 1, maxLength: 200 }),
      fc.integer({ min: 1, max: 40 }),
      (steps, stride) => {
        const map = new SortedMap();
        const model = new Map<number, number>();
        for (const [isSet, base] of steps) {
          // Many keys for each step, so that chunks fill.
          for (let key = base; key < base + 30 * stride; key += stride) {
            if (isSet) {
              map.set(key, key * 2);
              model.set(key, key * 2);
            } else {
              expect(map.delete(key)).toBe(model.delete(key));
            }
          }
        }
        const keys = [...model.keys()].sort((a, b) => a - b);
        expect([...map.keys()]).toEqual(keys);
        expect([...map.entries()]).toEqual(keys.map((key) => [key, key * 2]));
        expect(map.size).toBe(keys.length);
        for (const [, probe] of steps) {
          const floor = keys.findLast((key) => key <= probe);
          const ceiling = keys.find((key) => key >= probe);
          expect(map.floor(probe) ? map.key : undefined).toBe(floor);
          expect(map.ceiling(probe) ? map.key : undefined).toBe(ceiling);
          expect(map.get(probe)).toBe(model.get(probe));
        }
        expect(map.first() ? map.key : undefined).toBe(keys[0]);
      },
    ),
    { numRuns: 60 },
  );
});
