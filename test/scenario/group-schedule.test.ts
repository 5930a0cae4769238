/** A scheduled split on a real engine that is killed in between: it happens all the same, once, with the image of its moment. */
import { expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import type { PairView } from '../../src/core/views.ts';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import { EngineProcess } from '../harness/engine-process.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { initialised } from './cli-process.ts';

const status = async (engine: EngineProcess): Promise<PairView> => (await engine.call('pair.status', { primary: 'db' }))[0] as PairView;

it('a split that was scheduled survives a kill, and takes the image of its moment', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await initialised(store, ['--pv-size', '64M']);
  let engine = await EngineProcess.start(store);
  try {
    for (const [name, attribute] of [
      ['db', 'normal'],
      ['copy', 'secondary'],
    ] as const)
      await engine.call('volume.create', { name, sizeBytes: 4 * MiB, attribute });
    await engine.call('pair.create', { primary: 'db' });
    await engine.call('pair.wait', { primary: 'db', state: 'duplex', timeoutMs: 60_000 });
    await engine.call('group.create', { name: 'g' });
    await engine.call('group.add', { name: 'g', primary: 'db' });
    const atMs = Date.now() + 6000;
    await engine.call('group.split', { name: 'g', atMs });
    await engine.kill();

    engine = await EngineProcess.start(store);
    expect(await status(engine)).toMatchObject({ scheduledSplit: { atMs, failure: null, group: 'g' } });
    await engine.call('pair.wait', { primary: 'db', state: 'duplex', timeoutMs: 60_000 });
    const { uri } = await engine.call('volume.show', { volume: 'db' });
    await using client = await connect(uri);
    // The host counts up until the split has been seen; what the secondary has is what was acknowledged around the moment.
    const moments: number[] = [];
    for (let count = 1; (await status(engine)).state !== 'split'; count += 1) {
      const block = Buffer.alloc(4096);
      block.writeUInt32LE(count);
      await client.write(0, block);
      moments[count] = Date.now();
    }
    const split = await status(engine);
    expect(split.scheduledSplit).toBeNull();
    expect(split.stateSinceMs).toBeGreaterThanOrEqual(atMs);
    await using image = await connect((await engine.call('volume.show', { volume: 'copy' })).uri);
    const last = (await image.read(0, 4096)).readUInt32LE(0);
    expect(moments[last + 1] ?? Number.POSITIVE_INFINITY).toBeGreaterThanOrEqual(split.stateSinceMs);
    expect(await engine.call('group.list', {})).toEqual([{ name: 'g', pairs: [split.id] }]);
  } finally {
    await engine.kill();
  }
});
