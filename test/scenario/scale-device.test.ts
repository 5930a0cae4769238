/**
 * The scale that is promised, on the real engine: 10,000 volumes, 2,000 pairs, 1,000,000 regions. Opening takes less than
 * two seconds, choosing, listing and fitting less than 50 ms each. `tsx bench/scale-tables.ts` prints the figures.
 *
 * Times are the least of several rounds, and of the processor's time where the machine is busy with other things.
 */
import { expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { measureCommands, roundsOf } from '../support/scale-measures.ts';
import { makeScaleStore, SCALE_PROMISED } from '../support/scale-store.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const OPEN_MS_MAX = 2000;
const COMMAND_MS_MAX = 50;
/** The whole process, with the tests in it; the engine alone takes about 160 MiB. */
const MEMORY_BYTES_MAX = 640 * MiB;

it('a device of the promised size opens in two seconds, and chooses, lists and fits in 50 ms', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await makeScaleStore(store);
  // The first one also loads the code of the workers.
  const { ms: openMs } = await roundsOf(2, async () => {
    const device = await openDevice({ store, lanes: 2 });
    return () => device.close();
  });
  expect(openMs).toBeLessThan(OPEN_MS_MAX);
  await using device = await openDevice({ store, lanes: 2 });
  const status = device.status();
  expect({ volumes: status.volumes, pairs: status.pairs.split, regions: status.store.regions.total }).toEqual(SCALE_PROMISED);
  const times = await measureCommands(device.engine, 4);
  for (const { what, ms } of times) expect([what, ms < COMMAND_MS_MAX ? 'fast' : ms]).toEqual([what, 'fast']);
  expect(device.status().memory.rssBytes).toBeLessThan(MEMORY_BYTES_MAX);
}, 120_000);
