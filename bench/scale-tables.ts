/**
 * The device at its promised scale: 10,000 volumes, 2,000 pairs, 1,000,000 physical regions (shape: scale-store.ts).
 *
 *     tsx bench/scale-tables.ts [DIR]      makes the store in DIR, or in a temporary directory
 *
 * Prints what an operator's commands take in the engine, by the clock: the first time in a process, with code not compiled
 * yet, the median and the least of 20 rounds; comparing and applying a declaration of everything; and then `twinvol serve`
 * on that store as a process of its own: how long it takes to be ready, its memory, and the same commands over the control
 * socket, JSON at either end included. `pair create` and `restore-size` contain flushes, whose time is the medium's.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Declaration } from '../src/core/declaration.ts';
import { formatSize } from '../src/core/units.ts';
import type { Engine } from '../src/engine/api.ts';
import { openDevice } from '../src/index.ts';
import { EngineProcess, requireBuild } from '../test/harness/engine-process.ts';
import { measureCommands, roundsOf, type Time } from '../test/support/scale-measures.ts';
import { makeScaleStore, SCALE_PROMISED } from '../test/support/scale-store.ts';

const ROUNDS = 20;

/** A declaration of the device as it is. */
const declarationOf = (engine: Engine): Declaration => ({
  volumes: engine
    .volumeList()
    .map(({ name, capacityBytes, attribute, ...volume }) => ({ name, size: capacityBytes, attribute, protected: volume.protected })),
  pairs: engine.pairStatus().map(({ primary, secondary, pace }) => ({ primary: primary.name, secondary: secondary.name, pace })),
});

const print = ({ what, firstMs, medianMs, leastMs }: Omit<Time, 'ms'>): void => {
  const cells = [firstMs, medianMs, leastMs].map((time) => `${time.toFixed(1).padStart(8)} ms`);
  console.log(`${what.padEnd(40)} ${cells.join('')}`);
};

requireBuild();
const directory = process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'tv-scale-')));
const store = join(directory, 'store');
console.log(`${SCALE_PROMISED.volumes} volumes, ${SCALE_PROMISED.pairs} pairs, ${SCALE_PROMISED.regions} regions; node ${process.version}`);
await makeScaleStore(store);
console.log(`${'in the engine'.padEnd(40)} ${['first', 'median', 'least'].map((word) => word.padStart(11)).join('')}`);
const open = (): ReturnType<typeof openDevice> => openDevice({ store, lanes: 2 });
const opened = await roundsOf(3, async () => {
  const device = await open();
  return () => device.close();
});
print({ what: 'open (recovery, lanes, sockets)', ...opened });
{
  await using device = await open();
  const { engine } = device;
  for (const time of await measureCommands(engine, ROUNDS)) print(time);
  const declaration = declarationOf(engine);
  const differing: Declaration = { ...declaration, volumes: [...(declaration.volumes ?? []), { name: 'one-more', size: '10M' }] };
  const applying = async (input: Parameters<Engine['apply']>[0]): Promise<() => Promise<void>> => {
    await engine.apply(input);
    return async () => undefined;
  };
  print({ what: 'apply --plan, all of it, nothing differs', ...(await roundsOf(3, () => applying({ declaration, plan: true }))) });
  print({ what: 'apply, one volume differs', ...(await roundsOf(1, () => applying({ declaration: differing }))) });
}

const serving = await EngineProcess.start(store);
try {
  const memory = async (): Promise<string> => formatSize((await serving.call('device.status', {})).memory.rssBytes);
  console.log(`\ntwinvol serve: ready after ${Math.round(serving.startMs)} ms, memory ${await memory()}`);
  const over = async (what: string, call: () => Promise<unknown>): Promise<void> => {
    const work = async (): Promise<() => Promise<undefined>> => {
      await call();
      return async () => undefined;
    };
    print({ what: `${what}, over the socket`, ...(await roundsOf(ROUNDS, work)) });
  };
  await over('pool candidates', () => serving.call('pool.candidates', { primary: 'lonely' }));
  await over('pair create --plan', () => serving.call('pair.create', { primary: 'lonely', fit: 'regions', plan: true }));
  await over('pair status', () => serving.call('pair.status', {}));
  await over('volume list', () => serving.call('volume.list', {}));
  console.log(`memory after these: ${await memory()}`);
} finally {
  await serving.kill();
}
if (process.argv[2] === undefined) await rm(directory, { recursive: true });
