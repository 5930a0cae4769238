/** A declaration compared with tables: what differs, in which order, and all that cannot be met. Regions are 1 MiB. */
import { describe, expect, it } from 'vitest';
import type { Declaration } from '../../../src/core/declaration.ts';
import { planDeclaration } from '../../../src/core/declaration-plan.ts';
import type { TableOp } from '../../../src/core/rows.ts';
import { Tables } from '../../../src/core/tables.ts';
import { MiB, PV_COUNT_MAX } from '../../../src/core/units.ts';
import { pairPut, pvPut, REGION_BYTES, volumePut } from '../../support/table-rows.ts';

const REGIONS_PER_PV = 100;

/** One physical volume of 100 regions; volumes are laid one behind the other. */
class Device {
  readonly tables = new Tables({ regionBytes: REGION_BYTES });
  #next = 0;
  constructor() {
    this.tables.apply([pvPut(1, REGIONS_PER_PV)]);
  }
  volume(number: number, name: string, megabytes: number, fields: Parameters<typeof volumePut>[2] = {}): this {
    this.tables.apply([volumePut(number, [{ pv: 1, start: this.#next, count: megabytes }], { name, ...fields })]);
    this.#next += megabytes;
    return this;
  }
  spare(number: number, name: string, megabytes: number, fields: Parameters<typeof volumePut>[2] = {}): this {
    return this.volume(number, name, megabytes, { attribute: 'secondary', ...fields });
  }
  with(...ops: readonly TableOp[]): this {
    this.tables.apply(ops);
    return this;
  }
  plan(declaration: Declaration) {
    const before = JSON.stringify(this.tables.snapshot());
    const plan = planDeclaration(declaration, this.tables, { regionsPerPv: REGIONS_PER_PV });
    expect(JSON.stringify(this.tables.snapshot())).toBe(before);
    return plan;
  }
  steps(declaration: Declaration): unknown[] {
    const { changes, unmet } = this.plan(declaration);
    expect(unmet).toEqual([]);
    return changes.map(({ step }) => step);
  }
  unmet(declaration: Declaration): string[] {
    return this.plan(declaration).unmet.map(({ at, code }) => `${at} ${code}`);
  }
}

describe('what differs', () => {
  it('is nothing where the device is as declared', () => {
    const device = new Device()
      .volume(1, 'db', 10, { isProtected: true })
      .spare(2, 'copy', 10)
      .with(pairPut(1, 1, 2), { op: 'group-put', row: { name: 'g', pairs: [1] } });
    const declaration: Declaration = {
      settings: { condition: 'any' },
      volumes: [{ name: 'db', size: '10M', attribute: 'normal', protected: true }, { name: 'copy' }],
      pool: [{ size: 10 * MiB, count: 1 }],
      pairs: [{ primary: 'db', secondary: 'copy', pace: 8, fence: 'never', dirtyRegionSize: '64K', condition: 'same', fit: 'regions' }],
      groups: [{ name: 'g', pairs: [{ primary: 'db', secondary: 'copy' }] }],
    };
    expect(device.plan(declaration)).toEqual({ changes: [], unmet: [], met: 6 });
  });

  it('of volumes: made, grown, given another attribute, protected', () => {
    const device = new Device().volume(1, 'db', 10).spare(2, 'spare', 5);
    expect(
      device.steps({
        volumes: [
          { name: 'new', size: '3M', attribute: 'secondary', protected: true },
          { name: 'db', size: '12M', protected: true },
          { name: 'spare', attribute: 'normal' },
        ],
      }),
    ).toEqual([
      { do: 'volume-create', name: 'new', sizeBytes: 3 * MiB, attribute: 'secondary', isProtected: true },
      { do: 'volume-grow', volume: 'db', sizeBytes: 12 * MiB },
      { do: 'volume-set', volume: 'db', isProtected: true },
      { do: 'volume-set', volume: 'spare', attribute: 'normal' },
    ]);
  });

  it('of a fitted volume: its former size holds while it is in the pair, and is restored afterwards', () => {
    const declaration: Declaration = { volumes: [{ name: 'fitted', size: '20M' }], pool: [{ size: '20M', count: 1 }] };
    const fitted = (): Device => new Device().volume(1, 'db', 10).spare(2, 'fitted', 10, { formerCapacityBytes: 20 * MiB });
    expect(
      fitted()
        .with(pairPut(1, 1, 2))
        .steps(declaration),
    ).toEqual([]);
    expect(fitted().steps(declaration)).toEqual([{ do: 'restore-size', volume: 'fitted' }]);
    expect(fitted().plan(declaration).changes[0]).toMatchObject({ overwrites: 2, regions: 10 });
  });

  it('of the pool: as many volumes as are short of the count, under names that are free', () => {
    const device = new Device().spare(1, 'pool-1', 4).spare(2, 'x', 4, { isProtected: true }).volume(3, 'pool-3', 4);
    const made = device.steps({
      pool: [
        { size: '4M', count: 3 },
        { size: '1M', count: 1, name: 'small' },
      ],
    }) as { readonly name: string }[];
    expect(made.map(({ name }) => name)).toEqual(['pool-2', 'pool-4', 'small-1']);
  });

  it('of pairs: named secondaries first, then the choices of the device, as it would make them one after the other', () => {
    const device = new Device().volume(1, 'a', 4).volume(2, 'b', 4).spare(3, 's1', 4).spare(4, 's2', 4).spare(5, 's3', 9);
    const declaration: Declaration = {
      pairs: [
        { primary: 'a', pace: 3 },
        { primary: 'b', secondary: 's1', fence: 'data' },
        { primary: 'b', fit: 'regions' },
      ],
    };
    expect(device.steps(declaration)).toEqual([
      { do: 'pair-create', primary: 'b', secondary: 's1', fit: 'off', fence: 'data' },
      { do: 'pair-create', primary: 'a', secondary: 's2', fit: 'off', pace: 3 },
      { do: 'pair-create', primary: 'b', secondary: 's3', fit: 'regions' },
    ]);
    expect(device.plan(declaration).changes.map(({ overwrites, regions }) => [overwrites, regions])).toEqual([
      [3, 0],
      [4, 0],
      [5, 5],
    ]);
  });

  it('of pairs that are there: pace and fence; each entry means a pair of its own', () => {
    const device = new Device()
      .volume(1, 'a', 4)
      .spare(2, 's1', 4)
      .spare(3, 's2', 4)
      .spare(4, 's3', 4)
      .with(pairPut(1, 1, 2), pairPut(2, 1, 3, { state: 'split' }));
    expect(device.steps({ pairs: [{ primary: 'a' }, { primary: 'a', secondary: 's1', pace: 15, fence: 'data' }] })).toEqual([
      { do: 'pair-set', primary: 'a', secondary: 's1', pace: 15, fence: 'data' },
    ]);
    expect(device.steps({ pairs: [{ primary: 'a' }, { primary: 'a' }, { primary: 'a' }] })).toEqual([
      { do: 'pair-create', primary: 'a', secondary: 's3', fit: 'off' },
    ]);
  });

  it('regions that one fitting gives away serve the next one', () => {
    const device = new Device().volume(1, 'a', 5).volume(2, 'b', 40).spare(3, 'large', 30).spare(4, 'small', 20);
    expect(device.tables.unassigned.freeRegions).toBe(5);
    expect(device.unmet({ pairs: [{ primary: 'b', secondary: 'small', fit: 'regions' }] })).toEqual(['/pairs/0 REGIONS_MISSING']);
    const both: Declaration = {
      pairs: [
        { primary: 'a', secondary: 'large', fit: 'regions' },
        { primary: 'b', secondary: 'small', fit: 'regions' },
      ],
    };
    expect(device.steps(both)).toHaveLength(2);
  });

  it('of groups: members leave and join, also from one group to another', () => {
    const device = new Device()
      .volume(1, 'a', 4)
      .volume(2, 'b', 4)
      .spare(3, 's1', 4)
      .spare(4, 's2', 4)
      .with(pairPut(1, 1, 3), pairPut(2, 2, 4), { op: 'group-put', row: { name: 'x', pairs: [1, 2] } });
    expect(
      device.steps({
        groups: [
          { name: 'y', pairs: ['a'] },
          { name: 'x', pairs: ['b'] },
        ],
      }),
    ).toEqual([
      { do: 'group-create', name: 'y' },
      { do: 'group-remove', name: 'x', primary: 'a', secondary: 's1' },
      { do: 'group-add', name: 'y', primary: 'a', secondary: 's1' },
    ]);
    expect(device.steps({ groups: [{ name: 'x', pairs: ['b', 'a'] }] })).toEqual([]);
  });

  it('of the whole: later parts build on what earlier ones make', () => {
    const steps = new Device().steps({
      settings: { fit: 'regions' },
      volumes: [{ name: 'db', size: '8M' }],
      pool: [{ size: '6M', count: 1 }],
      pairs: [{ primary: 'db' }],
      groups: [{ name: 'g', pairs: ['db'] }],
    }) as { readonly do: string }[];
    expect(steps.map((step) => step.do)).toEqual([
      'settings',
      'volume-create',
      'volume-create',
      'pair-create',
      'group-create',
      'group-add',
    ]);
    expect(steps[3]).toEqual({ do: 'pair-create', primary: 'db', secondary: 'pool-1', fit: 'regions' });
  });
});

describe('what cannot be met', () => {
  const device = (): Device =>
    new Device()
      .volume(1, 'a', 4)
      .volume(2, 'b', 4)
      .spare(3, 's1', 4)
      .spare(4, 's2', 2)
      .with(pairPut(1, 1, 3), { op: 'group-put', row: { name: 'other', pairs: [1] } });

  it.each<readonly [string, Declaration, readonly string[]]>([
    ['a volume that is missing and has no size', { volumes: [{ name: 'x' }] }, ['/volumes/0 VOLUME_NOT_FOUND']],
    ['a size that is none', { volumes: [{ name: 'x', size: '1.3B' }] }, ['/volumes/0 SIZE_INVALID']],
    ['a size that no volume can have', { volumes: [{ name: 'x', size: 1000 }] }, ['/volumes/0 CAPACITY_INVALID']],
    ['a smaller size', { volumes: [{ name: 'b', size: '3M' }] }, ['/volumes/0/size CAPACITY_INVALID']],
    ['another size of a paired volume', { volumes: [{ name: 'a', size: '6M' }] }, ['/volumes/0/size VOLUME_PAIRED']],
    ['another attribute of a paired volume', { volumes: [{ name: 's1', attribute: 'normal' }] }, ['/volumes/0/attribute VOLUME_PAIRED']],
    ['a volume twice', { volumes: [{ name: 'b' }, { name: 'b', protected: true }] }, ['/volumes/1 USAGE']],
    [
      'more physical volumes than there can be',
      { volumes: [{ name: 'x', size: (PV_COUNT_MAX + 1) * REGIONS_PER_PV * MiB }] },
      ['/volumes/0 LIMIT'],
    ],
    [
      'a pool size twice',
      {
        pool: [
          { size: '2M', count: 1 },
          { size: 2 * MiB, count: 1 },
        ],
      },
      ['/pool/1 USAGE'],
    ],
    ['a pair of a volume that is not there', { pairs: [{ primary: 'x' }] }, ['/pairs/0 VOLUME_NOT_FOUND']],
    [
      'a pair of a volume that cannot be made',
      { volumes: [{ name: 'x', size: 5 }], pairs: [{ primary: 'x' }] },
      ['/volumes/0 CAPACITY_INVALID', '/pairs/0 VOLUME_NOT_FOUND'],
    ],
    ['a pair without a candidate', { pairs: [{ primary: 'b', condition: 'same' }] }, ['/pairs/0 NO_CANDIDATE']],
    ['a secondary that is in use', { pairs: [{ primary: 'b', secondary: 's1' }] }, ['/pairs/0 VOLUME_PAIRED']],
    ['a secondary that is too small', { pairs: [{ primary: 'b', secondary: 's2' }] }, ['/pairs/0 NOT_A_SECONDARY']],
    ['a primary that is a secondary', { pairs: [{ primary: 's1', secondary: 's2' }] }, ['/pairs/0 NOT_A_PRIMARY']],
    [
      'a pair twice',
      {
        pairs: [
          { primary: 'a', secondary: 's1' },
          { primary: 'a', secondary: 's1' },
        ],
      },
      ['/pairs/1 USAGE'],
    ],
    ['another dirty-region size of a pair that is there', { pairs: [{ primary: 'a', dirtyRegionSize: '4K' }] }, ['/pairs/0 PAIR_STATE']],
    ['a dirty-region size that is none', { pairs: [{ primary: 'a', dirtyRegionSize: '5K' }] }, ['/pairs/0 USAGE']],
    [
      'a group of no such pair',
      { groups: [{ name: 'g', pairs: ['b', 'x'] }] },
      ['/groups/0/pairs/0 PAIR_NOT_FOUND', '/groups/0/pairs/1 VOLUME_NOT_FOUND'],
    ],
    ['a pair that is in a group that is not declared', { groups: [{ name: 'g', pairs: ['a'] }] }, ['/groups/0/pairs PAIR_GROUPED']],
    [
      'a pair in two groups',
      {
        groups: [
          { name: 'other', pairs: ['a'] },
          { name: 'g', pairs: ['a'] },
        ],
      },
      ['/groups/1/pairs PAIR_GROUPED'],
    ],
    [
      'a group twice',
      {
        groups: [
          { name: 'g', pairs: [] },
          { name: 'g', pairs: [] },
        ],
      },
      ['/groups/1 USAGE'],
    ],
  ])('%s', (_what, declaration, expected) => {
    expect(device().unmet(declaration)).toEqual(expected);
  });

  it('is named all at once, beside what could be changed', () => {
    const plan = device().plan({
      settings: { fit: 'regions' },
      volumes: [
        { name: 'b', size: '1M' },
        { name: 'new', size: '5M' },
      ],
      pairs: [{ primary: 'nobody' }],
    });
    expect(plan.unmet.map(({ requirement, reason }) => `${requirement}: ${reason}`)).toEqual([
      'volume b: size 1M: it has 4 MiB, and a volume cannot be made smaller',
      'pair nobody -> (the device chooses): there is no volume nobody, and none is declared',
    ]);
    expect(plan.changes.map(({ text }) => text)).toEqual(['setting fit: off -> regions', 'volume new: 5 MiB, normal']);
  });
});
