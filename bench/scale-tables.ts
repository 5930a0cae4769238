/**
 * The device at its promised scale: 10,000 volumes, 2,000 pairs, 1,000,000 physical regions (shape: scale-store.ts).
 *
 *     tsx bench/scale-tables.ts [DIR]      makes the store in DIR, or in a temporary directory
 *
 * Prints how long opening takes, what an operator's commands take in the engine (the least of 20 rounds), comparing and
 * applying a declaration of everything, and the memory. What the numbers do not mean: a first call, with cold caches and
 * code not yet compiled, takes some times as long; over the control socket a list of 10,000 volumes takes as long again
 * for its 5 MB of JSON at either end; `pair create` and `restore-size` contain flushes, whose time is the medium's.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Declaration } from '../src/core/declaration.ts';
import { formatSize } from '../src/core/units.ts';
import type { Engine } from '../src/engine/api.ts';
import { openDevice } from '../src/index.ts';
import { leastMs, measureCommands, type Time } from '../test/support/scale-measures.ts';
import { makeScaleStore, SCALE_PROMISED } from '../test/support/scale-store.ts';

const ROUNDS = 20;

/** A declaration of the device as it is. */
const declarationOf = (engine: Engine): Declaration => ({
  volumes: engine
    .volumeList()
    .map(({ name, capacityBytes, attribute, ...volume }) => ({ name, size: capacityBytes, attribute, protected: volume.protected })),
  pairs: engine.pairStatus().map(({ primary, secondary, pace }) => ({ primary: primary.name, secondary: secondary.name, pace })),
});

const print = ({ what, ms }: Time): void => console.log(`${what.padEnd(40)} ${ms.toFixed(1).padStart(9)} ms`);

const directory = process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'tv-scale-')));
const store = join(directory, 'store');
console.log(`${SCALE_PROMISED.volumes} volumes, ${SCALE_PROMISED.pairs} pairs, ${SCALE_PROMISED.regions} regions; node ${process.version}`);
await makeScaleStore(store);
const open = (): ReturnType<typeof openDevice> => openDevice({ store, lanes: 2 });
print({
  what: 'open (recovery, lanes, sockets)',
  ms: await leastMs(3, async () => {
    const device = await open();
    return () => device.close();
  }),
});
const device = await open();
const { engine } = device;
for (const time of await measureCommands(engine, ROUNDS)) print(time);
const declaration = declarationOf(engine);
const differing: Declaration = { ...declaration, volumes: [...(declaration.volumes ?? []), { name: 'one-more', size: '10M' }] };
const applying = async (input: Parameters<Engine['apply']>[0]): Promise<() => Promise<void>> => {
  await engine.apply(input);
  return async () => undefined;
};
print({ what: 'apply --plan, all of it, nothing differs', ms: await leastMs(3, () => applying({ declaration, plan: true })) });
print({ what: 'apply, one volume differs', ms: await leastMs(1, () => applying({ declaration: differing })) });
globalThis.gc?.();
console.log(
  `memory of this process: ${formatSize(device.status().memory.rssBytes)}, of it heap ${formatSize(process.memoryUsage().heapUsed)}`,
);
await device.close();
if (process.argv[2] === undefined) await rm(directory, { recursive: true });
