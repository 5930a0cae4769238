/**
 * The tables under any sequence of records, right and wrong ones: a record that is refused changes nothing, one that is
 * taken leaves every invariant in force (regions never lost, never with two owners), can be taken back exactly, and a
 * snapshot makes the same tables again.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { TableOp } from '../../src/core/rows.ts';
import { pairDeleteOps, volumeDeleteOps, volumeResizeOps } from '../../src/core/table-changes.ts';
import { Tables } from '../../src/core/tables.ts';
import { MiB } from '../../src/core/units.ts';
import { hostPut, pairPut, pvPut, REGION_BYTES, volumePut } from '../support/table-rows.ts';

const number = fc.integer({ min: 1, max: 5 });
const runs = fc.array(
  fc.record({ pv: fc.integer({ min: 1, max: 3 }), start: fc.integer({ min: 0, max: 20 }), count: fc.integer({ min: 1, max: 6 }) }),
  {
    minLength: 1,
    maxLength: 3,
  },
);
const attribute = fc.constantFrom('normal' as const, 'secondary' as const);

/** A part of a record, made from the tables as they are; often impossible, on purpose. */
type Part = (tables: Tables) => readonly TableOp[];

const part: fc.Arbitrary<Part> = fc.oneof(
  fc.tuple(number, fc.integer({ min: 1, max: 9 }), attribute).map(
    ([volume, count, kind]): Part =>
      (tables) => {
        const planned = tables.unassigned.plan(count);
        return planned === null || tables.findVolume(volume) !== undefined ? [] : [volumePut(volume, planned, { attribute: kind })];
      },
  ),
  fc.tuple(number, runs, attribute).map(
    ([volume, given, kind]): Part =>
      () => [volumePut(volume, given, { attribute: kind })],
  ),
  number.map(
    (volume): Part =>
      (tables) =>
        tables.findVolume(volume) === undefined
          ? [{ op: 'volume-delete', number: volume }]
          : volumeDeleteOps(tables, tables.volume(volume)),
  ),
  fc.tuple(number, fc.integer({ min: 1, max: 12 })).map(
    ([volume, count]): Part =>
      (tables) => {
        const row = tables.findVolume(volume);
        if (row === undefined || count > tables.unassigned.freeRegions) return [];
        return volumeResizeOps(tables, row, count * MiB);
      },
  ),
  fc.tuple(number, number).map(
    ([primary, secondary]): Part =>
      (tables) => [pairPut(tables.nextPairId, primary, secondary)],
  ),
  fc.integer({ min: 1, max: 6 }).map(
    (id): Part =>
      (tables) => {
        const row = tables.pair(id);
        return row === undefined ? [{ op: 'pair-delete', id }] : pairDeleteOps(tables, row);
      },
  ),
  fc.integer({ min: 1, max: 6 }).map(
    (id): Part =>
      (tables) => [{ op: 'scrub-delete', id: tables.scrubs()[0]?.id ?? id }],
  ),
  fc.tuple(fc.integer({ min: 1, max: 6 }), runs).map(
    ([id, given]): Part =>
      () => [{ op: 'scrub-put', id, runs: given }],
  ),
  fc.tuple(fc.constantFrom('a', 'b'), fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { maxLength: 3 })).map(
    ([name, pairs]): Part =>
      () => [{ op: 'group-put', row: { name, pairs } }],
  ),
  fc.tuple(fc.constantFrom('x', 'y'), fc.uniqueArray(number, { maxLength: 2 })).map(
    ([name, volumes]): Part =>
      () => [hostPut(name, Object.fromEntries(volumes.map((volume) => [volume, 'rw' as const])))],
  ),
  fc.integer({ min: 1, max: 3 }).map(
    (pv): Part =>
      () => [pvPut(pv, 20)],
  ),
);

const image = (tables: Tables): string =>
  JSON.stringify([tables.snapshot(), [...tables.unassigned.runs()], tables.nextVolumeNumber, tables.revision]);

test('any records, right and wrong ones, leave sound tables', () => {
  let taken = 0;
  let refused = 0;
  fc.assert(
    fc.property(fc.array(fc.array(part, { minLength: 1, maxLength: 2 }), { minLength: 10, maxLength: 40 }), (records) => {
      const tables = new Tables({ regionBytes: REGION_BYTES });
      tables.apply([pvPut(1, 20)]);
      for (const parts of records) {
        const ops = parts.flatMap((make) => make(tables));
        const before = image(tables);
        try {
          tables.apply(ops)();
        } catch {
          refused += 1;
          expect(image(tables)).toBe(before);
          expect(tables.check()).toEqual([]);
          continue;
        }
        taken += 1;
        expect(image(tables)).toBe(before);
        expect(tables.check()).toEqual([]);
        tables.apply(ops);
        expect(tables.check()).toEqual([]);
      }
      const again = new Tables({ regionBytes: REGION_BYTES });
      again.apply(JSON.parse(JSON.stringify(tables.snapshot())) as TableOp[]);
      expect(again.snapshot()).toEqual(tables.snapshot());
      expect([...again.unassigned.runs()]).toEqual([...tables.unassigned.runs()]);
    }),
    { numRuns: 300 },
  );
  // Both kinds must occur often, or the test shows nothing.
  expect(Math.min(taken, refused)).toBeGreaterThan(500);
});

test('changes taken back in the reverse order leave no trace', () => {
  fc.assert(
    fc.property(fc.array(part, { maxLength: 30 }), (parts) => {
      const tables = new Tables({ regionBytes: REGION_BYTES });
      tables.apply([pvPut(1, 20), pvPut(2, 20)]);
      const before = image(tables);
      const undos: Array<() => void> = [];
      for (const make of parts) {
        try {
          undos.push(tables.apply(make(tables)));
        } catch {
          // A refused record has no effect, as the test above shows.
        }
      }
      for (const undo of undos.reverse()) undo();
      expect(image(tables)).toBe(before);
      expect(tables.check()).toEqual([]);
    }),
    { numRuns: 200 },
  );
});
