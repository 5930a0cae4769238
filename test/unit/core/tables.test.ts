import { describe, expect, test } from 'vitest';
import type { RegionRun, TableOp } from '../../../src/core/rows.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { pairDeleteOps, requireRegions, volumeDeleteOps, volumeResizeOps } from '../../../src/core/table-changes.ts';
import { Tables } from '../../../src/core/tables.ts';
import { MiB } from '../../../src/core/units.ts';
import { hostPut, pairPut, pvPut, REGION_BYTES, volumePut, volumeRow } from '../../support/table-rows.ts';

const run = (start: number, count: number, pv = 1): RegionRun => ({ pv, start, count });

/** One physical volume of 100 regions; volume 1 is a primary, 2 its secondary, 3 free standing, 4 in the pool. */
const device = (): Tables => {
  const tables = new Tables({ regionBytes: REGION_BYTES });
  tables.apply([pvPut(1, 100)]);
  tables.apply([
    volumePut(1, [run(0, 4)]),
    volumePut(2, [run(4, 4)], { attribute: 'secondary' }),
    volumePut(3, [run(8, 2)]),
    volumePut(4, [run(10, 6)], { attribute: 'secondary' }),
  ]);
  tables.apply([pairPut(1, 1, 2), { op: 'group-put', row: { name: 'g', pairs: [1] } }, hostPut('h', { 2: 'rw' })]);
  expect(tables.check()).toEqual([]);
  return tables;
};

describe('lookups', () => {
  test('find a volume by number, by a number as text, by name', () => {
    const tables = device();
    expect([tables.volume(3).number, tables.volume('3').number, tables.volume('v3').number]).toEqual([3, 3, 3]);
    expect(tables.findVolume('nobody')).toBeUndefined();
    expect(() => tables.volume('nobody')).toThrow(expect.objectContaining({ code: 'VOLUME_NOT_FOUND' }));
    expect(() => tables.volume(99)).toThrow(expect.objectContaining({ code: 'VOLUME_NOT_FOUND' }));
  });

  test('find pairs by either volume, and the group', () => {
    const tables = device();
    expect(tables.pairsOfPrimary(1).map(({ id }) => id)).toEqual([1]);
    expect(tables.pairOfSecondary(2)?.id).toBe(1);
    expect(tables.groupOfPair(1)?.name).toBe('g');
    expect([tables.isPaired(1), tables.isPaired(2), tables.isPaired(3)]).toEqual([true, true, false]);
    expect([tables.pairsOfPrimary(2), tables.pairOfSecondary(1)]).toEqual([[], undefined]);
  });

  test('lists are in the order of numbers and names', () => {
    const tables = device();
    tables.apply([volumePut(9, [run(50, 1)]), hostPut('a')]);
    tables.apply([volumePut(7, [run(60, 1)])]);
    expect(tables.volumes().map(({ number }) => number)).toEqual([1, 2, 3, 4, 7, 9]);
    expect(tables.hosts().map(({ name }) => name)).toEqual(['a', 'h']);
  });

  test('the next volume number is the lowest that is free', () => {
    const tables = device();
    expect(tables.nextVolumeNumber).toBe(5);
    tables.apply(volumeDeleteOps(tables, tables.volume(3)));
    expect(tables.nextVolumeNumber).toBe(3);
  });

  test('a pair id is never given again, not even after a snapshot', () => {
    const tables = device();
    tables.apply(pairDeleteOps(tables, tables.pair(1) as never));
    expect(tables.nextPairId).toBe(2);
    const again = new Tables({ regionBytes: REGION_BYTES });
    again.apply(tables.snapshot());
    expect(again.nextPairId).toBe(2);
    expect(() => again.apply([pairPut(1, 1, 2)])).toThrow('used before');
  });

  test('a setting that is missing in an old record has its default', () => {
    const tables = device();
    tables.apply([{ op: 'settings-put', settings: { fit: 'regions' } as never }]);
    expect(tables.settings).toEqual({ ...SETTINGS_DEFAULT, fit: 'regions' });
  });
});

describe('one record', () => {
  test('takes effect whole, whatever the order within it', () => {
    const tables = device();
    tables.apply([
      { op: 'scrub-put', id: 1, runs: [run(8, 2)] },
      { op: 'volume-delete', number: 3 },
    ]);
    tables.apply([
      { op: 'volume-put', row: { ...tables.volume(1), name: 'v2' } },
      { op: 'volume-put', row: { ...tables.volume(2), name: 'v1' } },
    ]);
    expect([tables.volume('v1').number, tables.volume('v2').number]).toEqual([2, 1]);
    expect(tables.check()).toEqual([]);
  });

  test('can be taken back', () => {
    const tables = device();
    const before = JSON.stringify(tables.snapshot());
    const undo = tables.apply([
      pvPut(2, 10),
      ...volumeDeleteOps(tables, tables.volume(3)),
      ...pairDeleteOps(tables, tables.pair(1) as never),
    ]);
    expect(JSON.stringify(tables.snapshot())).not.toBe(before);
    undo();
    expect(JSON.stringify(tables.snapshot())).toBe(before);
    expect(tables.check()).toEqual([]);
    expect(tables.nextVolumeNumber).toBe(5);
  });

  test('marks a clean shutdown until the next one', () => {
    const tables = device();
    tables.apply([{ op: 'clean-shutdown' }]);
    expect(tables.isCleanShutdown).toBe(true);
    tables.apply([]);
    expect(tables.isCleanShutdown).toBe(false);
  });

  test('counts as a revision', () => {
    const tables = device();
    const before = tables.revision;
    tables.apply([hostPut('x')])();
    expect(tables.revision).toBe(before);
    tables.apply([hostPut('x')]);
    expect(tables.revision).toBe(before + 1);
  });
});

/** [what is wrong, operations, part of the message] */
const REFUSED: ReadonlyArray<readonly [string, (tables: Tables) => readonly TableOp[], string]> = [
  ['a region of another volume', () => [volumePut(5, [run(9, 2)])], 'not all unassigned'],
  ['a region twice', () => [volumePut(5, [run(20, 2), run(21, 2)])], 'asked for twice'],
  ['a region twice in a volume that grows', (tables) => [volumePut(3, [...tables.volume(3).runs, run(9, 1)])], 'a region twice'],
  ['a region beyond the physical volume', () => [volumePut(5, [run(99, 2)])], 'not all unassigned'],
  ['a region of no physical volume', () => [volumePut(5, [run(0, 1, 7)])], 'not all unassigned'],
  ['regions that do not make the capacity', () => [volumePut(5, [run(20, 2)], { capacityBytes: MiB })], '2 regions of'],
  ['a capacity that is no multiple of a sector', () => [volumePut(5, [run(20, 2)], { capacityBytes: 2 * MiB - 1 })], 'impossible capacity'],
  ['a name of digits', () => [volumePut(5, [run(20, 2)], { name: '12' })], 'impossible name'],
  ['a name that is taken', () => [volumePut(5, [run(20, 2)], { name: 'v3' })], 'same name'],
  ['a name twice in one record', () => [volumePut(5, [run(20, 1)], { name: 'x' }), volumePut(6, [run(30, 1)], { name: 'x' })], 'same name'],
  ['number 0', () => [volumePut(0, [run(20, 1)])], 'impossible number'],
  ['a volume deleted whose regions go nowhere', () => [{ op: 'volume-delete', number: 3 }], 'in no scrub list'],
  ['a volume cut short whose regions go nowhere', () => [volumePut(3, [run(8, 1)])], 'in no scrub list'],
  [
    'a region that goes from one volume to another at once',
    (tables) => [...volumeDeleteOps(tables, tables.volume(3)), volumePut(5, [run(8, 2)])],
    'not all unassigned',
  ],
  ['a scrub list of assigned regions', () => [{ op: 'scrub-put', id: 1, runs: [run(0, 1)] }], 'not all unassigned'],
  ['a scrub list that is not there', () => [{ op: 'scrub-delete', id: 9 }], 'no scrub list 9'],
  [
    'a volume that becomes another one',
    (tables) => [{ op: 'volume-put', row: { ...tables.volume(3), uuid: 'other' } }],
    'becomes another volume',
  ],
  ['a volume deleted that is in a pair', (tables) => volumeDeleteOps(tables, tables.volume(1)), 'no primary'],
  [
    'a volume deleted that is granted',
    () => [
      { op: 'volume-delete', number: 2 },
      { op: 'pair-delete', id: 1 },
      { op: 'group-put', row: { name: 'g', pairs: [] } },
    ],
    'still granted',
  ],
  ['a volume that is not there', () => [{ op: 'volume-delete', number: 99 }], 'no volume 99'],
  ['a pair of a volume with itself', () => [pairPut(2, 3, 3)], 'with itself'],
  ['a pair with no such volume', () => [pairPut(2, 3, 77)], 'no secondary'],
  ['a second pair for a secondary', () => [pairPut(2, 3, 2)], 'secondary of two pairs'],
  ['a cascade', () => [pairPut(2, 2, 4)], 'not of attribute normal'],
  ['a normal volume as a secondary', () => [pairPut(2, 1, 3)], 'not of attribute secondary'],
  [
    'a secondary that is too small',
    (tables) => [...volumeResizeOps(tables, tables.volume(3), 20 * MiB), pairPut(2, 3, 4)],
    'smaller than its primary',
  ],
  ['a primary that outgrows its secondary', (tables) => volumeResizeOps(tables, tables.volume(1), 5 * MiB), 'smaller than its primary'],
  [
    'a paired volume that changes its attribute',
    (tables) => [{ op: 'volume-put', row: { ...tables.volume(2), attribute: 'normal' } }],
    'not of attribute secondary',
  ],
  ['a pair that changes its volumes', () => [pairPut(1, 1, 4)], 'changes its volumes'],
  ['a copy while duplex', () => [pairPut(1, 1, 2, { copy: 'resync' })], 'duplex with the copy resync'],
  ['no copy while duplex-pending', () => [pairPut(1, 1, 2, { state: 'duplex-pending' })], 'duplex-pending with the copy none'],
  ['a pair that is simplex', () => [pairPut(1, 1, 2, { state: 'simplex' as never })], 'unknown state'],
  ['dirty regions above the region size', () => [pairPut(1, 1, 2, { dirtyRegionBytes: 2 * MiB })], 'dirty regions of'],
  ['pace 16', () => [pairPut(1, 1, 2, { pace: 16 })], 'impossible pace'],
  ['a pair deleted that is in a group', () => [{ op: 'pair-delete', id: 1 }], 'still in the group'],
  ['a group of no such pair', () => [{ op: 'group-put', row: { name: 'x', pairs: [5] } }], 'is no pair'],
  ['a pair in two groups', () => [{ op: 'group-put', row: { name: 'x', pairs: [1] } }], 'in the groups g and x'],
  ['a member twice', () => [{ op: 'group-put', row: { name: 'g', pairs: [1, 1] } }], 'a member twice'],
  ['a grant of no such volume', () => [hostPut('x', { 99: 'ro' })], 'does not exist'],
  ['a grant written oddly', () => [hostPut('x', { '02': 'ro' })], 'does not exist'],
  ['a host without a token', () => [{ op: 'host-put', row: { name: 'x', tokenSha256: '', grants: {}, createdAtMs: 1 } }], 'no SHA-256'],
  [
    'a setting that is wrong',
    () => [{ op: 'settings-put', settings: { ...SETTINGS_DEFAULT, fit: 'maybe' as never } }],
    'fit is off or regions',
  ],
  ['a physical volume that changes its size', () => [pvPut(1, 101)], 'changes its size'],
  ['a counter that goes back', () => [{ op: 'counters-put', nextPairId: 1, nextScrubId: 1 }], 'goes back'],
  ['an operation of a later version', () => [{ op: 'teleport' } as never], 'unknown operation "teleport"'],
];

test.each(REFUSED)('%s is refused, with no effect', (_what, make, message) => {
  const tables = device();
  const before = JSON.stringify(tables.snapshot());
  // A valid operation beside the wrong one must vanish with it.
  const ops = [hostPut('new'), ...make(tables)];
  expect(() => tables.apply(ops)).toThrow(expect.objectContaining({ code: 'INTERNAL', message: expect.stringContaining(message) }));
  expect(JSON.stringify(tables.snapshot())).toBe(before);
  expect(tables.check()).toEqual([]);
});

test('a ninth pair of a primary is refused', () => {
  const tables = new Tables({ regionBytes: REGION_BYTES });
  const numbers = Array.from({ length: 9 }, (_, index) => index + 2);
  tables.apply([
    pvPut(1, 100),
    volumePut(1, [run(0, 1)]),
    ...numbers.map((number) => volumePut(number, [run(number, 1)], { attribute: 'secondary' })),
  ]);
  tables.apply(numbers.slice(0, 8).map((number, index) => pairPut(index + 1, 1, number)));
  expect(() => tables.apply([pairPut(9, 1, 10)])).toThrow('more than 8 pairs');
});

describe('changes of common kinds', () => {
  test('deleting a volume gives its regions to a scrub list and takes its grants away', () => {
    const tables = device();
    tables.apply(pairDeleteOps(tables, tables.pair(1) as never));
    tables.apply(volumeDeleteOps(tables, tables.volume(2)));
    expect(tables.scrubs()).toEqual([{ id: 1, runs: [run(4, 4)] }]);
    expect(tables.host('h')?.grants).toEqual({});
    const free = tables.unassigned.freeRegions;
    tables.apply([{ op: 'scrub-delete', id: 1 }]);
    expect(tables.unassigned.freeRegions).toBe(free + 4);
    expect(tables.check()).toEqual([]);
  });

  test('growing takes the regions right behind, shrinking gives the last ones to a scrub list', () => {
    const tables = device();
    tables.apply(volumeResizeOps(tables, tables.volume(4), 9 * MiB));
    expect(tables.volume(4).runs).toEqual([run(10, 9)]);
    tables.apply(volumeResizeOps(tables, tables.volume(4), 2 * MiB + 512));
    expect(tables.volume(4)).toMatchObject({ runs: [run(10, 3)], capacityBytes: 2 * MiB + 512 });
    expect(tables.scrubs()).toEqual([{ id: 1, runs: [run(13, 6)] }]);
    tables.apply(volumeResizeOps(tables, tables.volume(4), 3 * MiB));
    expect(tables.volume(4).runs).toEqual([run(10, 3)]);
  });

  test('too few regions are refused with how many are missing', () => {
    const tables = device();
    expect(() => requireRegions(tables, 90)).toThrow(
      expect.objectContaining({ code: 'REGIONS_MISSING', details: { needed: 90, unassigned: 84, missing: 6 } }),
    );
  });
});

test('the check finds what apply would never let in', () => {
  const tables = device();
  const volumes = tables.volumes() as unknown as Array<{ runs: RegionRun[]; name: string }>;
  const third = volumes[2] as { runs: RegionRun[]; name: string };
  third.runs = [run(3, 2)];
  expect(tables.check().join('; ')).toContain('region 3 of physical volume 1 belongs to volume 1 and to volume 3');
  third.runs = [run(99, 2)];
  expect(tables.check().join('; ')).toContain('which do not exist');
  third.runs = [run(20, 2)];
  expect(tables.check().join('; ')).toContain('unassigned-region table is not what the owners leave over');
  third.runs = volumeRow(3, [run(8, 2)]).runs as RegionRun[];
  third.name = 'v1';
  expect(tables.check().join('; ')).toContain('same name v1');
});
