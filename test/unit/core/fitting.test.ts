/** Region fitting: what moves, and that it can be undone. */
import { expect, it } from 'vitest';
import { fittingFor, movesOf, refit, regionsFor } from '../../../src/core/fitting.ts';
import type { VolumeRow } from '../../../src/core/rows.ts';
import { MiB } from '../../../src/core/units.ts';

const row: VolumeRow = {
  number: 4,
  name: 'copy',
  capacityBytes: 6 * MiB,
  attribute: 'secondary',
  runs: [
    { pv: 1, start: 0, count: 4 },
    { pv: 2, start: 8, count: 2 },
  ],
  isProtected: false,
  uuid: 'u',
  createdAtMs: 0,
};

it('counts a region that is used in part as a whole one', () => {
  expect([regionsFor(MiB, MiB), regionsFor(MiB + 512, MiB), regionsFor(2 * MiB - 512, MiB)]).toEqual([1, 2, 2]);
});

it('needs nothing when the capacity is right', () => {
  expect(fittingFor(row, 6 * MiB, MiB)).toBeNull();
});

it('shrinks, remembers the former capacity, and forgets it when the volume is back there', () => {
  const shrink = fittingFor(row, 3 * MiB + 512, MiB);
  expect(shrink).toEqual({ capacityBytes: 3 * MiB + 512, surplusRegions: 2, missingRegions: 0 });
  const shrunk = refit(row, shrink ?? { capacityBytes: 0, surplusRegions: 0, missingRegions: 0 }, []);
  expect(shrunk.row).toMatchObject({ capacityBytes: 3 * MiB + 512, formerCapacityBytes: 6 * MiB, runs: [{ pv: 1, start: 0, count: 4 }] });
  expect(shrunk.surplus).toEqual([{ pv: 2, start: 8, count: 2 }]);

  const back = fittingFor(shrunk.row, 6 * MiB, MiB);
  expect(back).toEqual({ capacityBytes: 6 * MiB, surplusRegions: 0, missingRegions: 2 });
  const restored = refit(shrunk.row, back ?? { capacityBytes: 0, surplusRegions: 0, missingRegions: 0 }, [{ pv: 5, start: 0, count: 2 }]);
  expect(restored.row.capacityBytes).toBe(6 * MiB);
  expect(restored.row).not.toHaveProperty('formerCapacityBytes');
});

it('does not accept another number of regions than it asked for', () => {
  const grow = fittingFor(row, 8 * MiB, MiB);
  expect(grow?.missingRegions).toBe(2);
  if (grow !== null) expect(() => refit(row, grow, [{ pv: 1, start: 30, count: 1 }])).toThrow('fitting needs 2 regions, got 1');
});

it('says which regions would move, and where', () => {
  const moves = (capacityBytes: number, granted: VolumeRow['runs'] | null): unknown => {
    const fitting = fittingFor(row, capacityBytes, MiB);
    return fitting === null ? null : movesOf(row, fitting, granted);
  };
  expect(moves(3 * MiB, [])).toEqual([
    {
      from: 'copy',
      to: null,
      firstRegion: 3,
      regions: 3,
      runs: [
        { pv: 1, start: 3, count: 1 },
        { pv: 2, start: 8, count: 2 },
      ],
    },
  ]);
  const granted = [{ pv: 2, start: 10, count: 2 }];
  expect(moves(8 * MiB, granted)).toEqual([{ from: null, to: 'copy', firstRegion: 6, regions: 2, runs: granted }]);
  expect(moves(8 * MiB, null)).toMatchObject([{ regions: 2, runs: [] }]);
  expect(moves(6 * MiB - 512, [])).toEqual([]);
});
