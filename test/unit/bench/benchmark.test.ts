/** Whole runs against a small server that can be slow, wrong, or gone. */
import { describe, expect, it } from 'vitest';
import { runBenchmark } from '../../../src/bench/benchmark.ts';
import { type ComparedTarget, compareRuns, medianOf } from '../../../src/bench/comparison.ts';
import { dataShare } from '../../../src/bench/data-share.ts';
import { leave, openExport } from '../../../src/bench/export-connection.ts';
import type { RunResult } from '../../../src/bench/measurement.ts';
import { type Placement, type StreamFlags, workloadOf } from '../../../src/bench/workload.ts';
import { MiB } from '../../../src/core/units.ts';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import { writeDone } from '../../../src/wire/nbd-transmission.ts';
import { ALL_FLAGS, NbdTestServer, type TestServerOptions, type Verdict } from '../../support/nbd-test-server.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

type Rig = {
  readonly server: NbdTestServer;
  readonly run: (
    flags: StreamFlags,
    more?: { verify?: boolean; signal?: AbortSignal; answerMsMax?: number; placement?: Partial<Placement> },
  ) => Promise<RunResult>;
};

const withServer = async (options: Partial<TestServerOptions>, action: (rig: Rig) => Promise<void>): Promise<void> => {
  await using directory = await temporaryDirectory();
  await using server = await new NbdTestServer({ path: directory.path('s'), ...options }).listen();
  await action({
    server,
    run: (flags, { verify = false, signal, answerMsMax, placement = {} } = {}) => {
      const where = { offset: 0, length: 1 * MiB, runtimeMs: 200, warmupMs: 20, seed: 1, ...placement };
      return runBenchmark(
        { uri: server.uri, workload: workloadOf(undefined, flags), placement: where, verify },
        { ...(signal === undefined ? {} : { signal }), ...(answerMsMax === undefined ? {} : { answerMsMax }) },
      );
    },
  });
};

/** What happens to the reads of a run that writes only: they are the reading back. */
const whenReadBack = (verdict: Verdict, after = 20): NonNullable<TestServerOptions['rule']> => {
  let reads = 0;
  return ({ type }) => {
    if (type !== nbd.NBD_CMD_READ) return 'execute';
    reads += 1;
    return reads > after ? verdict : 'execute';
  };
};

describe('a run', () => {
  it('measures reads, writes and flushes, and leaves no connection behind', async () => {
    await withServer({}, async ({ server, run }) => {
      const result = await run({ rw: 'randrw', mixPercent: 50, depth: 4, connections: 3, flushEvery: 5 });
      expect(result).toMatchObject({ broken: null, unanswered: 0, interrupted: false, errors: {}, verification: null });
      expect(result.elapsedMs).toBeGreaterThanOrEqual(190);
      for (const operation of ['read', 'write', 'flush'] as const) {
        expect(result[operation].operations).toBeGreaterThan(10);
        expect(result[operation].latencyMs.p50).toBeGreaterThan(0);
        expect(result[operation].latencyMs.max).toBeGreaterThanOrEqual(result[operation].latencyMs.p99);
      }
      expect(result.total.operations).toBe(result.read.operations + result.write.operations + result.flush.operations);
      expect(result.total.iops).toBeCloseTo(result.total.operations / (result.elapsedMs / 1000), 3);
      expect(result.read.bytes).toBe(result.read.operations * 4096);
      const [stream] = result.streams;
      expect(stream?.fairness).toBeGreaterThan(0.5);
      expect([server.connectionsMade, server.disconnects]).toEqual([3, 3]);
      const writes = server.seen.filter(({ type }) => type === nbd.NBD_CMD_WRITE).length;
      const flushes = server.seen.filter(({ type }) => type === nbd.NBD_CMD_FLUSH).length;
      expect(writes / flushes).toBeGreaterThan(4);
      expect(writes / flushes).toBeLessThan(7);
    });
  });

  it('keeps `depth` requests in flight, and sends no other offsets than its own', async () => {
    await withServer({ rule: () => ({ delayMs: 5 }) }, async ({ server, run }) => {
      const result = await run({ depth: 8 }, { placement: { offset: 512 * 1024, length: 256 * 1024, warmupMs: 0 } });
      expect(result.total.iops).toBeGreaterThan(500);
      expect(result.total.latencyMs.p50).toBeGreaterThanOrEqual(4.5);
      expect(server.seen.every(({ offset, length }) => offset >= 512 * 1024 && offset + length <= 768 * 1024)).toBe(true);
    });
  });

  it('counts errors by their code, and goes on', async () => {
    await withServer({ rule: ({ index }) => (index % 10 === 9 ? { errno: nbd.NBD_EIO } : 'execute') }, async ({ run }) => {
      const result = await run({});
      expect(result.errors['NBD_EIO']).toBe(result.total.errors);
      expect(result.total.errors).toBeGreaterThan(0);
      expect(result.total.operations).toBeGreaterThan(5 * result.total.errors);
      expect(result.broken).toBeNull();
    });
  });

  it('ends when the server is gone, and says so', async () => {
    await withServer({ rule: ({ index }) => (index === 200 ? 'drop' : 'execute') }, async ({ run }) => {
      const result = await run({}, { placement: { warmupMs: 0, runtimeMs: 20_000 } });
      expect(result.broken).toEqual(expect.any(String));
      expect(result.elapsedMs).toBeLessThan(5000);
    });
  });

  it('gives what it has when the user gives up, without waiting for a server that does not answer', async () => {
    await withServer({ rule: ({ index }) => (index > 50 ? 'silence' : 'execute') }, async ({ run }) => {
      const startedAtMs = performance.now();
      const result = await run({ depth: 4 }, { signal: AbortSignal.timeout(200), placement: { warmupMs: 0, runtimeMs: 20_000 } });
      expect(performance.now() - startedAtMs).toBeLessThan(8000);
      expect(result).toMatchObject({ interrupted: true, unanswered: 4 });
      expect(result.total.operations).toBeGreaterThan(10);
    });
  });

  it('pauses between bursts', async () => {
    await withServer({}, async ({ server }) => {
      const [one] = workloadOf(undefined, { depth: 4 }).streams;
      if (one === undefined) throw new Error('no stream');
      const workload = { name: 'custom', streams: [{ ...one, burst: { requests: 8, pauseMs: 40 } }] };
      const placement = { offset: 0, length: 1 * MiB, runtimeMs: 300, warmupMs: 0, seed: 1 };
      const result = await runBenchmark({ uri: server.uri, workload, placement, verify: false });
      expect(result.total.operations).toBeGreaterThan(16);
      expect(result.total.operations).toBeLessThan(120);
    });
  });

  it('fails with a code where there is no export', async () => {
    await withServer({}, async ({ server }) => {
      const workload = workloadOf(undefined, {});
      const placement = { offset: 0, length: 1 * MiB, runtimeMs: 100, warmupMs: 0, seed: 1 };
      const run = (uri: string) => runBenchmark({ uri, workload, placement, verify: false });
      await expect(run('http://x')).rejects.toMatchObject({ code: 'URI_INVALID' });
      await expect(run(`${server.uri}-nowhere`)).rejects.toMatchObject({ code: 'NBD_UNREACHABLE' });
    });
  });
});

describe('a verifying run', () => {
  const flags: StreamFlags = { rw: 'randrw', mixPercent: 50, depth: 8, connections: 2 };

  it('finds a sound server sound', async () => {
    await withServer({}, async ({ run }) => {
      const result = await run(flags, { verify: true });
      expect(result.verification).toMatchObject({ mismatches: 0, details: [], complete: true });
      expect(result.verification?.checkedBlocks).toBeGreaterThan(200);
    });
  });

  it('keeps connections apart on a server that does not promise that they see the same', async () => {
    await withServer({ transmissionFlags: ALL_FLAGS & ~nbd.NBD_FLAG_CAN_MULTI_CONN }, async ({ server, run }) => {
      const result = await run({ ...flags, connections: 4 }, { verify: true });
      expect(result.verification).toMatchObject({ mismatches: 0, complete: true });
      for (const { offset, connection } of server.seen) expect((offset / 4096) % 4).toBe(connection);
    });
  });

  it('ends when the server says nothing any more while it is read back, with the figures and without calling it verified', async () => {
    await withServer({ rule: whenReadBack('silence') }, async ({ run }) => {
      const startedAtMs = performance.now();
      const result = await run({ rw: 'write', depth: 4 }, { verify: true, answerMsMax: 500 });
      expect(performance.now() - startedAtMs).toBeLessThan(5000);
      expect(result).toMatchObject({
        interrupted: false,
        unanswered: 4,
        verification: { checkedBlocks: 20, mismatches: 0, complete: false },
      });
      expect(result.write.operations).toBeGreaterThan(20);
      expect(result.verification?.unreadBlocks).toBeGreaterThan(0);
    });
  });

  it('ends two seconds after its user gave it up while it is read back', async () => {
    await withServer({ rule: whenReadBack('silence') }, async ({ run }) => {
      const startedAtMs = performance.now();
      const result = await run({ rw: 'write', depth: 4 }, { verify: true, signal: AbortSignal.timeout(600) });
      expect(performance.now() - startedAtMs).toBeLessThan(8000);
      expect(result).toMatchObject({ interrupted: true, verification: { complete: false } });
      expect(result.write.operations).toBeGreaterThan(20);
    });
  });

  it('is not complete when the connection is lost, or a read fails, while it is read back', async () => {
    await withServer({ rule: whenReadBack('drop') }, async ({ run }) => {
      const result = await run({ rw: 'write', depth: 4 }, { verify: true });
      expect(result).toMatchObject({ broken: expect.any(String), verification: { complete: false } });
    });
    await withServer({ rule: whenReadBack({ errno: nbd.NBD_EIO }) }, async ({ run }) => {
      const { errors, verification } = await run({ rw: 'write', depth: 4 }, { verify: true });
      expect(verification).toMatchObject({ checkedBlocks: 20, complete: false });
      expect(errors['NBD_EIO']).toBe(verification?.unreadBlocks);
    });
  });

  it('refuses a range with fewer blocks than requests in flight', async () => {
    await withServer({}, async ({ run }) => {
      const small = run({ ...flags, depth: 64 }, { verify: true, placement: { length: 64 * 1024 } });
      await expect(small).rejects.toMatchObject({ code: 'USAGE' });
    });
  });

  it('finds acknowledged writes that were lost', async () => {
    const rule: TestServerOptions['rule'] = ({ type, index }) => {
      if (type !== nbd.NBD_CMD_WRITE || index < 400 || index % 50 !== 0) return 'execute';
      return {
        raw: (request, mode) => {
          const reply = Buffer.alloc(64);
          return reply.subarray(0, writeDone(reply, 0, mode, request));
        },
      };
    };
    await withServer({ rule }, async ({ run }) => {
      const { verification } = await run(flags, { verify: true });
      expect(verification?.mismatches).toBeGreaterThan(0);
      // Foreign: the block's first write was the lost one.
      for (const { kind } of verification?.details ?? []) expect(['stale', 'foreign']).toContain(kind);
    });
  });

  it('finds data that changed on its own', async () => {
    await withServer({}, async ({ server, run }) => {
      server.options.rule = ({ type }) => {
        if (type === nbd.NBD_CMD_READ) server.data[100_000] = (server.data[100_000] ?? 0) ^ 0xff;
        return 'execute';
      };
      const { verification } = await run(flags, { verify: true });
      expect(verification?.details.some(({ kind }) => kind === 'damaged')).toBe(true);
    });
  });
});

describe('around a run', () => {
  it('says how much of a range holds data, where the server does', async () => {
    const extents = {
      'base:allocation': [
        [256 * 1024, 0],
        [768 * 1024, 3],
      ] as Array<[number, number]>,
    };
    const reads = workloadOf(undefined, {});
    await withServer({ extents }, async ({ server }) => {
      const client = await openExport(server.uri, reads);
      expect(await dataShare(client, 0, 1 * MiB)).toBe(0.25);
      expect(await dataShare(client, 512 * 1024, 512 * 1024)).toBe(0);
      await leave([client]);
    });
    await withServer({}, async ({ server }) => {
      const client = await openExport(server.uri, reads);
      expect(await dataShare(client, 0, 1 * MiB)).toBeNull();
      await leave([client]);
    });
  });

  it('is not kept by a server that does not say how much of it holds data', async () => {
    const extents = { 'base:allocation': [[1 * MiB, 0] as [number, number]] };
    const rule: TestServerOptions['rule'] = ({ type }) => (type === nbd.NBD_CMD_BLOCK_STATUS ? 'silence' : 'execute');
    await withServer({ extents, rule }, async ({ server }) => {
      const workload = workloadOf(undefined, { depth: 2 });
      const first = await openExport(server.uri, workload);
      expect(await dataShare(first, 0, 1 * MiB)).toBeNull();
      const placement = { offset: 0, length: 1 * MiB, runtimeMs: 100, warmupMs: 0, seed: 1 };
      const startedAtMs = performance.now();
      const result = await runBenchmark({ uri: server.uri, workload, placement, verify: false, first });
      expect(performance.now() - startedAtMs).toBeLessThan(6000);
      expect(result).toMatchObject({ errors: {}, broken: null, unanswered: 0 });
      expect(server.connectionsMade).toBe(1);
    });
  });

  it('says how many connections the server took where it does not take all', async () => {
    await withServer({}, async ({ server, run }) => {
      server.options.connectionsMax = 3;
      await expect(run({ connections: 4 })).rejects.toMatchObject({
        code: 'NBD_UNREACHABLE',
        message: expect.stringContaining('the server took 3 of 4 connections'),
        remedy: expect.stringMatching(/-e 4.*--connections 3/),
        details: { connectionsMade: 3, connectionsWanted: 4 },
      });
    });
  });

  const ended = { stopped: null, interrupted: false, isCommonPart: false };
  const target = (runs: readonly RunResult[]): ComparedTarget => ({ uri: 'nbd://x', sizeBytes: MiB, dataShare: null, runs });

  it('compares medians', async () => {
    expect([medianOf([]), medianOf([3]), medianOf([9, 1, 5]), medianOf([4, 1, 2, 9])]).toEqual([0, 3, 5, 3]);
    await withServer({ rule: () => ({ delayMs: 1 }) }, async ({ run }) => {
      const [slow, fast] = [await run({ depth: 1 }), await run({ depth: 8 })];
      const { ratio, first, second } = compareRuns(target([fast, fast, slow]), target([slow]), ended);
      expect(first.iops).toBe(fast.total.iops);
      expect(ratio?.iops).toBeCloseTo(fast.total.iops / slow.total.iops, 6);
      expect(second.runs).toHaveLength(1);
    });
  });

  it('compares nothing where a side has no run that was not cut short', async () => {
    await withServer({}, async ({ run }) => {
      const whole = await run({});
      const cut = { ...whole, interrupted: true };
      const one = compareRuns(target([whole, cut]), target([cut]), ended);
      expect(one).toMatchObject({
        ratio: null,
        first: { completeRuns: 1, iops: whole.total.iops },
        second: { completeRuns: 0, iops: null },
      });
      expect(one.second.runs).toHaveLength(1);
      expect(compareRuns(target([]), target([]), ended)).toMatchObject({ ratio: null, first: { uri: 'nbd://x', p50Ms: null } });
    });
  });
});
