/**
 * Any sequence of commands and crashes: regions are never lost and never in two volumes, and the device chooses the
 * secondary that a slow, obvious oracle chooses. The engine and its store are real; the data plane moves no data, so a
 * copy is done when the test says so. A crash is a copy of the store's directory, taken between two commands or in the
 * midst of one, on which the next engine goes on.
 */
import { cp } from 'node:fs/promises';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { TwinvolError } from '../../src/core/faults.ts';
import { MiB } from '../../src/core/units.ts';
import type { PairView, VolumeView } from '../../src/core/views.ts';
import type { DeviceEngine } from '../../src/engine/device.ts';
import { openEngine } from '../../src/engine/open-engine.ts';
import { checkStore } from '../../src/store/check.ts';
import { initStore } from '../../src/store/init.ts';
import { ScriptedPlane } from '../support/scripted-plane.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/temporary.ts';

/** More: TWINVOL_PROPERTY_RUNS=500 npx vitest run test/property/fitting-commands.test.ts --testTimeout 1e6 */
const RUNS = Number(process.env['TWINVOL_PROPERTY_RUNS'] ?? 10);
const REGION_BYTES = 64 * 1024;
const PV_BYTES = 4 * MiB;
/** At the beginning the first three are normal, the others in the pool. */
const NAMES = ['a', 'b', 'c', 'p', 'q', 'r', 's'] as const;

const name = fc.constantFrom(...NAMES);
const pooled = fc.constantFrom('p' as const, 'q' as const, 'r' as const, 's' as const);
const primary = fc.constantFrom('a' as const, 'a' as const, 'b' as const, 'c' as const, 'p' as const);
const sizeBytes = fc.integer({ min: 17, max: 96 }).map((regions) => regions * REGION_BYTES - (regions % 3) * 512);
const attribute = fc.constantFrom('normal' as const, 'secondary' as const, 'secondary' as const);
const command = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('create' as const), name, sizeBytes, attribute }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'protect' as const, 'restore-size' as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('grow' as const), name, sizeBytes }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('set' as const), name, attribute }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('pair' as const),
      name: primary,
      fit: fc.constantFrom('off' as const, 'regions' as const, 'regions' as const),
      condition: fc.constantFrom('same' as const, 'any' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('release' as const), name: primary, then: attribute }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('restore-size' as const), name: pooled }) },
);
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;
/** `crash`: none; after the command; or so many turns of the event loop into it. */
const step = fc.record({
  command,
  crash: fc.oneof(
    { weight: 5, arbitrary: fc.constant('none' as const) },
    { weight: 1, arbitrary: fc.constant('after' as const) },
    { weight: 2, arbitrary: fc.integer({ min: 0, max: 6 }) },
  ),
});

/** So that everything happens in every run of the test. */
const EXAMPLE: [number[], { command: Command; crash: 'none' }[]] = [
  [20, 90, 30, 30, 40, 50, 60].map((regions) => regions * REGION_BYTES),
  (
    [
      { do: 'pair', name: 'a', fit: 'regions', condition: 'same' },
      { do: 'release', name: 'a', then: 'secondary' },
      { do: 'restore-size', name: 'p' },
      { do: 'delete', name: 's' },
      { do: 'grow', name: 'c', sizeBytes: 40 * REGION_BYTES },
      { do: 'pair', name: 'b', fit: 'off', condition: 'any' },
    ] as const
  ).map((one) => ({ command: one, crash: 'none' })),
];

class Device {
  readonly temporary: TemporaryDirectory;
  engine!: DeviceEngine;
  #life = 0;
  constructor(temporary: TemporaryDirectory) {
    this.temporary = temporary;
  }

  get directory(): string {
    return this.temporary.path(`life-${this.#life}`);
  }

  async open(): Promise<void> {
    const plane = new ScriptedPlane();
    this.engine = await openEngine({ store: this.directory, openPlane: plane.open });
  }

  /** The next life begins with what is on the medium now. The owner named in a copied lock file is this process, whose engine lives on. */
  async crash(): Promise<void> {
    const before = this.directory;
    this.#life += 1;
    await cp(before, this.directory, { recursive: true, filter: (path) => !/\.sock$|\/lock(?:\.[^/]*)?$/.test(path) });
    const dead = this.engine;
    await this.open();
    await dead.close();
  }

  async cleared(): Promise<void> {
    while (this.engine.status().store.regions.scrubbing > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const carryOut = (engine: DeviceEngine, one: Command): Promise<unknown> => {
  switch (one.do) {
    case 'create':
      return engine.volumeCreate(one);
    case 'delete':
      return engine.volumeDelete({ volume: one.name });
    case 'protect':
      return engine.volumeSet({ volume: one.name, protected: true });
    case 'restore-size':
      return engine.poolRestoreSize({ volume: one.name });
    case 'grow':
      return engine.volumeGrow({ volume: one.name, sizeBytes: one.sizeBytes });
    case 'set':
      return engine.volumeSet({ volume: one.name, attribute: one.attribute });
    case 'pair':
      return engine.pairCreate({ primary: one.name, fit: one.fit, condition: one.condition });
    case 'release':
      return engine.pairRelease({ primary: one.name, then: one.then });
  }
};

/** Refusals are part of the game; anything else is not. */
const refused = (error: unknown): string => {
  if (error instanceof TwinvolError && error.code !== 'INTERNAL') return error.code;
  throw error;
};

const checkRegions = (engine: DeviceEngine): void => {
  const { regions } = engine.status().store;
  const owners = new Map<string, string>();
  let inVolumes = 0;
  for (const volume of engine.volumeList()) {
    expect(volume.regions).toBe(Math.ceil(volume.capacityBytes / REGION_BYTES));
    for (const { pv, start, count } of volume.runs) {
      for (let region = start; region < start + count; region += 1) {
        expect(owners.get(`${pv}:${region}`)).toBeUndefined();
        owners.set(`${pv}:${region}`, volume.name);
        inVolumes += 1;
      }
    }
  }
  expect(inVolumes + regions.unassigned + regions.scrubbing).toBe(regions.total);
};

const bySize = (list: readonly VolumeView[], sign: 1 | -1): VolumeView | undefined =>
  [...list].sort((one, other) => sign * (one.capacityBytes - other.capacityBytes) || one.number - other.number)[0];

/** The volume that the specification names, or the code of the refusal. */
const oracle = (
  volumes: readonly VolumeView[],
  unassigned: number,
  { name: primaryName, fit, condition }: Extract<Command, { do: 'pair' }>,
): string => {
  const source = volumes.find((volume) => volume.name === primaryName);
  if (source === undefined) return 'VOLUME_NOT_FOUND';
  if (source.attribute === 'secondary') return 'NOT_A_PRIMARY';
  const pool = volumes.filter((volume) => volume.inUse === 'unused' && !volume.protected);
  const same = bySize(
    pool.filter((volume) => volume.capacityBytes === source.capacityBytes),
    1,
  );
  if (same !== undefined) return same.name;
  const larger = bySize(
    pool.filter((volume) => volume.capacityBytes > source.capacityBytes),
    1,
  );
  if (larger !== undefined && (fit === 'regions' || condition === 'any')) return larger.name;
  const smaller = bySize(
    pool.filter((volume) => volume.capacityBytes < source.capacityBytes),
    -1,
  );
  if (fit === 'off' || smaller === undefined) return 'NO_CANDIDATE';
  return source.regions - smaller.regions > unassigned ? 'REGIONS_MISSING' : smaller.name;
};

it(
  "regions have one owner, and choices are the oracle's, under any sequence of commands and crashes",
  async () => {
    const seen = new Map<string, number>();
    const count = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1);
    await fc.assert(
      fc.asyncProperty(
        fc.array(sizeBytes, { minLength: NAMES.length, maxLength: NAMES.length }),
        fc.array(step, { minLength: 15, maxLength: 30 }),
        async (sizes, steps) => {
          await using temporary = await temporaryDirectory();
          const device = new Device(temporary);
          await initStore(device.directory, { regionBytes: REGION_BYTES, pvBytes: PV_BYTES });
          await device.open();
          for (const [index, size] of sizes.entries()) {
            await device.engine.volumeCreate({ name: NAMES[index] ?? '', sizeBytes: size, attribute: index < 3 ? 'normal' : 'secondary' });
          }
          for (const { command: one, crash } of steps) {
            if (one.do === 'pair') await device.cleared();
            const { engine } = device;
            const expected = one.do === 'pair' ? oracle(engine.volumeList(), engine.status().store.regions.unassigned, one) : null;
            const outcome = carryOut(engine, one).then(
              (result) => (one.do === 'pair' ? (result as PairView).secondary.name : 'done'),
              refused,
            );
            if (typeof crash === 'number') {
              for (let turn = 0; turn < crash; turn += 1) await new Promise((resolve) => setImmediate(resolve));
              await device.crash();
            }
            const got = await outcome;
            count(`${one.do} ${expected === null || expected.length > 1 ? got : 'chosen'}`);
            if (expected !== null && typeof crash !== 'number') expect(got).toBe(expected);
            if (crash === 'after') await device.crash();
            checkRegions(device.engine);
          }
          await device.cleared();
          checkRegions(device.engine);
          await device.engine.close();
          // The data plane of this test makes no bitmaps.
          const { findings } = await checkStore(device.directory);
          expect(findings.filter(({ file }) => !/\/(?:bitmaps|intents)\//.test(file))).toEqual([]);
        },
      ),
      { numRuns: RUNS, examples: [EXAMPLE] },
    );
    // What never happens shows nothing.
    for (const what of ['pair chosen', 'pair NO_CANDIDATE', 'release done', 'restore-size done', 'delete done', 'grow done'])
      expect([what, (seen.get(what) ?? 0) > 0]).toEqual([what, true]);
  },
  Math.max(60_000, RUNS * 10_000),
);
