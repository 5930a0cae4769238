/**
 * The choice against a slow, obvious oracle: sort everything the way the specification words it, and take the first.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { TwinvolError } from '../../src/core/faults.ts';
import type { VolumeRow } from '../../src/core/rows.ts';
import { chooseSecondary, nameSecondary, reportCandidates } from '../../src/core/selection.ts';
import type { Involvement, Pool, Wish } from '../../src/core/selection.ts';
import { MiB } from '../../src/core/units.ts';

type Drawn = {
  readonly megabytes: number;
  readonly extraSectors: number;
  readonly isNormal: boolean;
  readonly isProtected: boolean;
  readonly isPaired: boolean;
};
const drawn: fc.Arbitrary<Drawn> = fc.record({
  megabytes: fc.integer({ min: 1, max: 6 }),
  extraSectors: fc.constantFrom(0, 0, 1, 2047),
  isNormal: fc.boolean(),
  isProtected: fc.boolean(),
  isPaired: fc.boolean(),
});
const wishes: fc.Arbitrary<Wish> = fc.record({ condition: fc.constantFrom('same', 'any'), fit: fc.constantFrom('off', 'regions') });

const build = (list: readonly Drawn[], unassignedRegions: number): { primary: VolumeRow; pool: Pool } => {
  const rows = list.map(
    (one, index): VolumeRow => ({
      number: index + 1,
      name: `v${index + 1}`,
      capacityBytes: one.megabytes * MiB + one.extraSectors * 512,
      attribute: one.isNormal || index === 0 ? 'normal' : 'secondary',
      runs: [],
      isProtected: one.isProtected,
      uuid: String(index),
      createdAtMs: 0,
    }),
  );
  const paired = new Map<number, Involvement>();
  for (const [index, one] of list.entries()) {
    if (one.isPaired && index > 0) paired.set(index + 1, { role: one.isNormal ? 'primary' : 'secondary', partner: 'p', state: 'split' });
  }
  const [primary] = rows;
  if (primary === undefined) throw new Error('at least one volume is drawn');
  // The table's order must not matter.
  return {
    primary,
    pool: {
      volumes: [...rows].reverse(),
      involvementOf: (number) => paired.get(number),
      regionBytes: MiB,
      unassignedRegions,
      scrubbingRegions: 0,
    },
  };
};

/** Number of the volume that the specification names, or the code of the refusal. */
const oracle = (primary: VolumeRow, pool: Pool, wish: Wish): number | string => {
  const regions = (bytes: number): number => Math.ceil(bytes / MiB);
  const unused = [...pool.volumes].filter(
    (row) =>
      row.number !== primary.number && row.attribute === 'secondary' && !row.isProtected && pool.involvementOf(row.number) === undefined,
  );
  const same = unused.filter((row) => row.capacityBytes === primary.capacityBytes).sort((a, b) => a.number - b.number);
  if (same[0] !== undefined) return same[0].number;
  if (wish.condition === 'same' && wish.fit === 'off') return 'NO_CANDIDATE';
  const larger = unused
    .filter((row) => row.capacityBytes > primary.capacityBytes)
    .sort((a, b) => a.capacityBytes - b.capacityBytes || a.number - b.number);
  if (larger[0] !== undefined) return larger[0].number;
  if (wish.fit === 'off') return 'NO_CANDIDATE';
  const smaller = unused
    .filter((row) => row.capacityBytes < primary.capacityBytes)
    .sort((a, b) => b.capacityBytes - a.capacityBytes || a.number - b.number);
  if (smaller[0] === undefined) return 'NO_CANDIDATE';
  const missing = regions(primary.capacityBytes) - regions(smaller[0].capacityBytes);
  return missing > pool.unassignedRegions ? 'REGIONS_MISSING' : smaller[0].number;
};

const outcome = (work: () => number): number | string => {
  try {
    return work();
  } catch (error) {
    if (error instanceof TwinvolError) return error.code;
    throw error;
  }
};

it('the choice is the one that the oracle makes', () => {
  fc.assert(
    fc.property(fc.array(drawn, { minLength: 1, maxLength: 12 }), fc.integer({ min: 0, max: 5 }), wishes, (list, unassigned, wish) => {
      const { primary, pool } = build(list, unassigned);
      expect(outcome(() => chooseSecondary(primary, pool, wish).volume.number)).toBe(oracle(primary, pool, wish));
    }),
    { numRuns: 2000 },
  );
});

it("a fitted choice ends with the primary's regions, and an unfitted one keeps its own", () => {
  fc.assert(
    fc.property(fc.array(drawn, { minLength: 1, maxLength: 12 }), fc.integer({ min: 0, max: 5 }), wishes, (list, unassigned, wish) => {
      const { primary, pool } = build(list, unassigned);
      let choice: ReturnType<typeof chooseSecondary>;
      try {
        choice = chooseSecondary(primary, pool, wish);
      } catch {
        return;
      }
      const regions = Math.ceil(choice.volume.capacityBytes / MiB);
      if (wish.fit === 'off') {
        expect(choice.fitting).toBeNull();
        expect(choice.volume.capacityBytes).toBeGreaterThanOrEqual(primary.capacityBytes);
      } else if (choice.fitting !== null) {
        expect(choice.fitting.capacityBytes).toBe(primary.capacityBytes);
        expect(regions - choice.fitting.surplusRegions + choice.fitting.missingRegions).toBe(Math.ceil(primary.capacityBytes / MiB));
        expect(choice.fitting.missingRegions).toBeLessThanOrEqual(unassigned);
      }
    }),
    { numRuns: 1000 },
  );
});

it('what the report calls a candidate can be named, and what it does not cannot, protection aside', () => {
  fc.assert(
    fc.property(fc.array(drawn, { minLength: 1, maxLength: 10 }), fc.integer({ min: 0, max: 5 }), wishes, (list, unassigned, wish) => {
      const { primary, pool } = build(list, unassigned);
      const report = reportCandidates(primary, pool, { ...wish, explain: true });
      expect(report).toHaveLength(list.length);
      for (const row of pool.volumes) {
        const view = report.find((one) => one.number === row.number);
        const named = outcome(() => nameSecondary(primary, row, pool, wish).volume.number);
        if (view?.candidate === true) expect(named).toBe(row.number);
        else if (!row.isProtected) expect(typeof named).toBe('string');
        expect(view?.candidate).toBe(view?.reason === null);
      }
    }),
    { numRuns: 1000 },
  );
});
