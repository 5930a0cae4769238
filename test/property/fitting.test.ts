/** Fitting against a region map written out region by region. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { fittingFor, refit, regionsFor } from '../../src/core/fitting.ts';
import type { RegionRun, VolumeRow } from '../../src/core/rows.ts';
import { countRegions } from '../../src/core/runs.ts';
import { MiB } from '../../src/core/units.ts';

const flat = (runs: readonly RegionRun[]): string[] =>
  runs.flatMap((run) => Array.from({ length: run.count }, (_, index) => `${run.pv}:${run.start + index}`));
it('a volume fitted to any capacity and back has its capacity again, and every region is kept, given or granted', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 30 * 2048 }), (regions, sectors) => {
      const row: VolumeRow = {
        number: 1,
        name: 'v',
        capacityBytes: regions * MiB,
        attribute: 'secondary',
        runs: [{ pv: 1, start: 0, count: regions }],
        isProtected: false,
        uuid: 'u',
        createdAtMs: 0,
      };
      const there = fittingFor(row, sectors * 512, MiB);
      if (there === null) return;
      const granted = there.missingRegions === 0 ? [] : [{ pv: 2, start: 0, count: there.missingRegions }];
      const fitted = refit(row, there, granted);
      expect(countRegions(fitted.row.runs)).toBe(regionsFor(sectors * 512, MiB));
      expect([...flat(fitted.row.runs), ...flat(fitted.surplus)].sort()).toEqual([...flat(row.runs), ...flat(granted)].sort());
      const back = fittingFor(fitted.row, row.capacityBytes, MiB);
      if (back === null) throw new Error('the capacity differs, so there is something to fit');
      const undone = refit(fitted.row, back, back.missingRegions === 0 ? [] : [{ pv: 3, start: 0, count: back.missingRegions }]);
      expect(undone.row.capacityBytes).toBe(row.capacityBytes);
      expect(undone.row.formerCapacityBytes).toBeUndefined();
    }),
  );
});
