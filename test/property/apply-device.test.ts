/**
 * Any declaration on any device: either all that cannot be met is named and nothing has changed, or what was planned is
 * what happens, and nothing is left to change. The engine and its store are real; the data plane moves no data.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Declaration } from '../../src/core/declaration.ts';
import { TwinvolError } from '../../src/core/faults.ts';
import { MiB } from '../../src/core/units.ts';
import type { DeviceEngine } from '../../src/engine/device.ts';
import { openEngine } from '../../src/engine/open-engine.ts';
import { initStore } from '../../src/store/init.ts';
import { ScriptedPlane } from '../support/scripted-plane.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const RUNS = Number(process.env['TWINVOL_PROPERTY_RUNS'] ?? 25);

const primary = fc.constantFrom('a', 'b', 'c');
const secondary = fc.constantFrom('s', 't', 'u');
const name = fc.oneof(primary, secondary);
const size = fc.integer({ min: 1, max: 6 }).map((megabytes) => megabytes * MiB);
const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined });
/** Without the keys that were drawn as absent. */
const record = <T extends object>(shape: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(shape).map((drawn) => Object.fromEntries(Object.entries(drawn).filter(([, value]) => value !== undefined)) as T);

const attribute = fc.constantFrom('normal' as const, 'secondary' as const);
const fit = fc.constantFrom('off' as const, 'regions' as const);
const condition = fc.constantFrom('same' as const, 'any' as const);
const pair = record({
  primary,
  secondary: optional(secondary),
  condition: optional(condition),
  fit: optional(fit),
  pace: optional(fc.integer({ min: 1, max: 15 })),
  fence: optional(fc.constantFrom('never' as const, 'data' as const)),
});
const declaration = record({
  settings: optional(record({ condition: optional(condition), fit: optional(fit) })),
  volumes: optional(
    fc.array(record({ name, size: optional(size), attribute: optional(attribute), protected: optional(fc.boolean()) }), { maxLength: 4 }),
  ),
  pool: optional(fc.array(record({ size, count: fc.integer({ min: 0, max: 3 }), name: optional(fc.constant('spare')) }), { maxLength: 2 })),
  pairs: optional(fc.array(pair, { maxLength: 3 })),
  groups: optional(fc.array(record({ name: fc.constantFrom('g', 'h'), pairs: fc.array(primary, { maxLength: 2 }) }), { maxLength: 2 })),
}) as fc.Arbitrary<Declaration>;

const everything = (engine: DeviceEngine): string =>
  JSON.stringify([engine.volumeList(), engine.pairStatus(), engine.groupList(), engine.settings(), engine.status().store.regions]);

it(
  'a declaration is met as planned and then holds, or nothing has changed',
  async () => {
    let [met, unmet] = [0, 0];
    await fc.assert(
      fc.asyncProperty(fc.array(declaration, { minLength: 4, maxLength: 8 }), async (declarations) => {
        await using temporary = await temporaryDirectory();
        await initStore(temporary.path('store'), { pvBytes: 16 * MiB });
        const engine = await openEngine({ store: temporary.path('store'), openPlane: new ScriptedPlane().open });
        // A device on which something can be declared: three primaries, and a pool.
        await engine.apply({
          declaration: {
            volumes: ['a', 'b', 'c'].map((one, index) => ({ name: one, size: (index + 2) * MiB })),
            pool: [{ size: 3 * MiB, count: 1, name: 's' }],
          },
        });
        for (const one of declarations) {
          const before = everything(engine);
          let planned: Awaited<ReturnType<typeof engine.apply>>;
          try {
            planned = await engine.apply({ declaration: one, plan: true });
          } catch (error) {
            expect((error as TwinvolError).code).toBe('UNMET');
            await expect(engine.apply({ declaration: one })).rejects.toMatchObject({ code: 'UNMET' });
            expect(everything(engine)).toBe(before);
            unmet += 1;
            continue;
          }
          expect(everything(engine)).toBe(before);
          const done = await engine.apply({ declaration: one });
          expect(done.changes).toEqual(planned.changes);
          const again = await engine.apply({ declaration: one, plan: true });
          expect(again.changes).toEqual([]);
          met += 1;
        }
        await engine.close();
      }),
      { numRuns: RUNS },
    );
    expect(Math.min(met, unmet)).toBeGreaterThan(RUNS / 2);
  },
  Math.max(60_000, RUNS * 5000),
);
