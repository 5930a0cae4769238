/** What an operator sees around an end of the engine that was not in order: the bound before, the check, the start, `status`. */
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import type { StatusView } from '../../src/core/views.ts';
import { connect } from '../../src/nbd-client/index.ts';
import { EngineProcess } from '../harness/engine-process.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { initialised, serving, twinvol } from './cli-process.ts';

const EXTENT_BYTES = 4 * MiB;

describe('an operator, after kill -9', () => {
  it('is told by the start how much is copied again: not more than status had said', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await initialised(store, ['--pv-size', '1G']);
    let boundBytes = 0;
    {
      await using engine = await serving(store);
      expect(engine.banner).not.toContain('recovered');
      await engine.json('volume create db --size 64M');
      await engine.json('volume create copy --size 64M --attribute secondary');
      await engine.json('pair create db --wait');
      await using host = await connect(((await engine.json('volume show db')) as { readonly uri: string }).uri);
      await host.write(0, Buffer.alloc(MiB, 1));
      await host.write(40 * MiB, Buffer.alloc(MiB, 1));
      boundBytes = ((await engine.json('status')) as StatusView).durability.resyncBoundBytes;
      expect(boundBytes).toBeGreaterThanOrEqual(2 * EXTENT_BYTES);
      expect((await engine.line('status')).stdout).toContain(`a crash now would resync at most ${boundBytes / MiB} MiB`);
      await engine.end('SIGKILL');
    }
    expect((await twinvol(['store', 'check', store])).stdout).toContain('not shut down cleanly: the next start recovers');
    {
      await using engine = await serving(store);
      const [, said] =
        /^recovered: the last run did not end in order; (\d+) MiB may differ and are copied again$/m.exec(engine.banner) ?? [];
      expect(Number(said) * MiB).toBeGreaterThanOrEqual(2 * EXTENT_BYTES);
      expect(Number(said) * MiB).toBeLessThanOrEqual(boundBytes);
      expect((await engine.line('status')).stdout).toContain(`the last start resynced ${said} MiB`);
      expect(await engine.json('status')).toMatchObject({ durability: { lastRecoveryBytes: Number(said) * MiB, wasCleanShutdown: false } });
      await engine.json('pair wait db --state duplex --timeout 30s');
      await engine.end('SIGTERM');
    }
    {
      await using engine = await serving(store);
      expect(engine.banner).not.toContain('recovered');
      expect(await engine.json('status')).toMatchObject({ durability: { lastRecoveryBytes: 0, wasCleanShutdown: true } });
      await engine.end('SIGTERM');
    }
    await truncate(join(store, 'bitmaps', 'pair-1-primary.map'), 600);
    await using engine = await serving(store);
    expect(engine.banner).toContain('recovered: a bitmap or file of intents was damaged; 64 MiB may differ and are copied again\n');
  });

  it('finds what was torn named in the log, at the level that the log has when nobody sets one', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await initialised(store, ['--pv-size', '1G']);
    {
      await using engine = await serving(store);
      await engine.json('volume create db --size 16M');
      await engine.end('SIGKILL');
    }
    const journal = join(store, (await readdir(store)).find((name) => name.startsWith('journal')) ?? '');
    const bytes = await readFile(journal);
    const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
    // The last record reached the medium but for its end.
    await writeFile(journal, Buffer.concat([bytes.subarray(0, end - 40), Buffer.alloc(bytes.length - end + 40)]));
    const superblock = await readFile(join(store, 'superblock'));
    superblock.fill(0xff, 4096, 4196);
    await writeFile(join(store, 'superblock'), superblock);
    const engine = await EngineProcess.start(store, ['--log-level', 'warn']);
    try {
      expect(engine.log).toMatch(/journal\.\d+: record \d+ at byte \d+ was not whole/);
      expect(engine.log).toContain('superblock: copy 2 was bad or old and is written anew');
      expect(engine.log).toContain('the last run did not end in order');
    } finally {
      await engine.kill();
    }
  });

  it('reads at level process that only a kill has that bound', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('s');
    await initialised(store, ['--pv-size', '1G']);
    await using engine = await serving(store);
    await engine.json('settings set durability=process');
    expect((await engine.line('status')).stdout).toContain('process; a kill -9 now would resync at most 0 B, a power loss everything');
  });
});
