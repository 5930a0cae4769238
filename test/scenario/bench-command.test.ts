/** A user measures with `twinvol bench`: a volume of a real engine, before it is written over and after. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { Comparison } from '../../src/bench/comparison.ts';
import type { RunResult } from '../../src/bench/measurement.ts';
import { run } from '../support/clients.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../support/temporary.ts';
import { initialised, MAIN, serving, type Serving } from './cli-process.ts';

type Rig = AsyncDisposable & { readonly engine: Serving; readonly store: string; readonly uri: string };

const QUICK = '--runtime 300ms --warmup 50ms';

const rig = async (): Promise<Rig> => {
  const temporary: TemporaryDirectory = await temporaryDirectory();
  const store = temporary.path('store');
  await initialised(store);
  const engine = await serving(store);
  await engine.json('volume create db --size 16M');
  await engine.json('volume create copy --size 16M --attribute secondary');
  const uri = (await engine.line('uri db')).stdout.trim();
  return {
    engine,
    store,
    uri,
    [Symbol.asyncDispose]: async () => {
      await engine[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
    },
  };
};

describe('twinvol bench', () => {
  it('reads without asking, names the volume by URI or name, and says when it read holes', async () => {
    await using device = await rig();
    const byUri = await device.engine.line(`bench ${device.uri} ${QUICK}`);
    expect(byUri).toMatchObject({ status: 0, stdout: expect.stringMatching(/^read +\d+ +\d/m) });
    expect(byUri.stdout).toContain('note: only 0 % of the range held data');
    const byName = (await device.engine.json(`bench db --depth 4 --connections 2 ${QUICK}`)) as RunResult & { dataShare: number };
    expect(byName).toMatchObject({ uri: device.uri, sizeBytes: 16 * 2 ** 20, dataShare: 0, interrupted: false, broken: null, errors: {} });
    expect(byName.read.operations).toBeGreaterThan(100);
    expect(byName.write.operations).toBe(0);
  });

  it('writes only when it may, and says first what the engine knows about the volume', async () => {
    await using device = await rig();
    await device.engine.json('pair create db copy --wait');
    const refused = await device.engine.line(`bench db --preset oltp ${QUICK}`);
    expect(refused).toMatchObject({ status: 10, stdout: '', stderr: expect.stringContaining('[NOT_CONFIRMED]') });
    expect(refused.stderr).toContain('WARNING: db is the primary of the pair db -> copy, which is duplex');
    expect(refused.stderr).toContain('give --yes');
    const done = (await device.engine.json(`bench db --preset oltp --yes ${QUICK}`)) as RunResult;
    expect(done.write.operations).toBeGreaterThan(50);
    expect(done.flush.operations).toBeGreaterThan(0);
    const report = (await device.engine.json('pair verify db')) as { differingBytes: number };
    expect(report.differingBytes).toBe(0);
  });

  it('verifies what it wrote through a pair that is split and resynced under it', async () => {
    await using device = await rig();
    await device.engine.json('pair create db copy --wait');
    const running = device.engine.json('bench db --verify --yes --runtime 2s --connections 2 --flush-every 100');
    for (let turn = 0; turn < 3; turn += 1) {
      await device.engine.json('pair split db');
      await device.engine.json('pair resync db');
      await device.engine.line('pair wait db --state duplex --timeout 30s');
    }
    const { verification, total } = (await running) as RunResult;
    expect(verification).toMatchObject({ mismatches: 0, complete: true });
    expect(verification?.checkedBlocks).toBeGreaterThan(1000);
    expect(total.errors).toBe(0);
  });

  it('exits 2 when requests fail', async () => {
    await using device = await rig();
    await device.engine.json('fault add db --error read --rate 10%');
    const failed = await device.engine.line(`bench db ${QUICK}`);
    expect(failed).toMatchObject({ status: 2, stdout: expect.stringMatching(/note: \d+ requests failed with NBD_EIO/) });
  });

  it('compares two volumes in turns', async () => {
    await using device = await rig();
    await device.engine.json('volume create other --size 16M');
    const compared = (await device.engine.json(`bench db --compare other --rounds 2 ${QUICK}`)) as Comparison;
    expect([compared.first.runs.length, compared.second.runs.length]).toEqual([2, 2]);
    expect(compared.ratio?.iops).toBeCloseTo((compared.first.iops ?? 0) / (compared.second.iops ?? 1), 6);
    expect((await device.engine.line(`bench db --compare other --rounds 1 ${QUICK}`)).stdout).toMatch(/^A \/ B +\d+\.\d\dx/m);
  });

  it('prints what it has when it is interrupted', async () => {
    await using device = await rig();
    const child = spawn(process.execPath, [MAIN, 'bench', device.uri, '--runtime', '60s', '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    setTimeout(() => child.kill('SIGINT'), 2000);
    const [status] = (await once(child, 'close')) as [number | null];
    expect(status).toBe(0);
    const result = JSON.parse(out) as RunResult;
    expect(result).toMatchObject({ interrupted: true, unanswered: 0 });
    expect(result.elapsedMs).toBeLessThan(10_000);
    expect((await device.engine.json('client list')) as unknown[]).toEqual([]);
  });

  it('asks a person, and "no" leaves the volume alone', async () => {
    await using device = await rig();
    const line = `'${process.execPath}' '${MAIN}' --store '${device.store}' bench db --rw randwrite ${QUICK}; echo "status $?"`;

    const no = (await run('script', ['-qec', line, '/dev/null'], { input: '\n', timeoutMs: 30_000 })).stdout.replaceAll('\r', '');
    expect(no).toMatch(/write over the data in 16 MiB at 0 of nbd\+unix:\S+\? \[y\/N\]/);
    expect(no).toMatch(/nothing was written to[^]*status 10/);
    expect(((await device.engine.json(`bench db ${QUICK}`)) as { dataShare: number }).dataShare).toBe(0);
  });
});
