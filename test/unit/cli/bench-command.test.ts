/** `twinvol bench` on servers that differ, go away, or are given up: what is printed then, and the exit status. */
import { symlink } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { Comparison } from '../../../src/bench/comparison.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import { NbdTestServer, type TestServerOptions } from '../../support/nbd-test-server.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { clientView, statusView, volumeView } from '../control/scripted-engine.ts';
import { device, runLine } from './command-line.ts';

const QUICK = '--depth 4 --runtime 100ms --warmup 0ms';

type Options = Partial<TestServerOptions>;
const withServers = async (
  options: readonly [Options, Options],
  action: (first: NbdTestServer, second: NbdTestServer) => Promise<void>,
): Promise<void> => {
  await using directory = await temporaryDirectory();
  await using first = await new NbdTestServer({ path: directory.path('a'), ...options[0] }).listen();
  await using second = await new NbdTestServer({ path: directory.path('b'), ...options[1] }).listen();
  await action(first, second);
};

describe('bench --compare', () => {
  it('prints the rounds that were measured when a server is gone in a later one, and which', async () => {
    // The second server leaves when its first run has disconnected.
    for (const json of ['', ' --json']) {
      await withServers([{}, {}], async (first, second) => {
        const stop = setInterval(() => {
          if (first.seen.length > 0 && second.seen.length > 0 && second.disconnects === second.connectionsMade) void second.stop();
        }, 5);
        const { exit, out } = await runLine(`bench ${first.uri} --compare ${second.uri} --rounds 3 ${QUICK}${json}`);
        clearInterval(stop);
        expect(exit).toBe(2);
        if (json === '') {
          expect(out).toMatch(/^A \/ B +\d+\.\d\dx/m);
          expect(out).toMatch(/note: B ended the comparison in round 2: .*cannot connect/);
          expect(out).toContain('2 of A, 1 of B, in turns; medians');
        } else {
          const { stopped, first: a, second: b, ratio } = JSON.parse(out) as Comparison;
          expect(stopped).toMatchObject({ target: 'B', round: 2, reason: expect.stringContaining('cannot connect') });
          expect([a.completeRuns, b.completeRuns, typeof ratio?.iops]).toEqual([2, 1, 'number']);
        }
      });
    }
  });

  it('fails as before when a server is gone in the first round', async () => {
    await withServers([{}, {}], async (first, second) => {
      await second.stop();
      const { exit, out, err } = await runLine(`bench ${first.uri} --compare ${second.uri} ${QUICK}`);
      expect([exit, out]).toEqual([2, '']);
      expect(err).toContain(second.uri);
    });
  });

  it('leaves a run out of the medians whose connection was lost', async () => {
    const rule: TestServerOptions['rule'] = ({ index }) => (index === 50 ? 'drop' : 'execute');
    await withServers([{}, { rule }], async (first, second) => {
      const { exit, out } = await runLine(`bench ${first.uri} --compare ${second.uri} --json ${QUICK}`);
      expect(exit).toBe(2);
      expect(JSON.parse(out)).toMatchObject({ stopped: { target: 'B', round: 1 }, ratio: null, second: { completeRuns: 0, iops: null } });
    });
  });

  it('runs on the part that both have where they differ in size, and says so', async () => {
    await withServers([{ sizeBytes: 2 * MiB }, { sizeBytes: 1 * MiB }], async (first, second) => {
      const { exit, out } = await runLine(`bench ${first.uri} --compare ${second.uri} --rounds 1 ${QUICK}`);
      expect(exit).toBe(0);
      expect(out).toContain('0 B to 1 MiB of 2 MiB (A) and 1 MiB (B)');
      expect(out).toContain('note: A and B differ in size: both ran on the part that both have');
      expect(Math.max(...first.seen.map(({ offset, length }) => offset + length))).toBeLessThanOrEqual(1 * MiB);
    });
  });

  it('says of each note whose it is, also of holes', async () => {
    const extents = { 'base:allocation': [[1 * MiB, 3] as [number, number]] };
    const rule: TestServerOptions['rule'] = ({ type, index }) =>
      type === nbd.NBD_CMD_READ && index === 9 ? { errno: nbd.NBD_EIO } : 'execute';
    await withServers([{ extents }, { rule }], async (first, second) => {
      const { exit, out } = await runLine(`bench ${first.uri} --compare ${second.uri} --rounds 1 ${QUICK}`);
      expect(exit).toBe(2);
      expect(out).toContain('note: A: only 0 % of the range held data');
      expect(out).toContain('note: B: 1 request failed with NBD_EIO');
      expect(out).not.toMatch(/note: (B: only|A: 1 req)/);
    });
  });

  it('names both and gives no ratio when the user ends it in the first round', async () => {
    await withServers([{}, {}], async (first, second) => {
      const line = `bench ${first.uri} --compare ${second.uri} --depth 4 --runtime 60s --warmup 0ms`;
      const { exit, out } = await runLine(line, { interrupted: AbortSignal.timeout(1000) });
      expect(exit).toBe(0);
      expect(out).toContain(second.uri);
      expect(out).not.toContain('A / B');
      expect(out).toContain('note: ended early by the user');
      const json = await runLine(`${line} --json`, { interrupted: AbortSignal.timeout(1000) });
      expect(JSON.parse(json.out)).toMatchObject({ ratio: null, interrupted: true, second: { uri: second.uri, runs: [], iops: null } });
    });
  });
});

describe('bench', () => {
  it('says that it ended in the warm-up, without figures', async () => {
    await withServers([{}, {}], async ({ uri }) => {
      const line = `bench ${uri} --warmup 60s`;
      const { exit, out } = await runLine(line, { interrupted: AbortSignal.timeout(400) });
      expect(exit).toBe(0);
      expect(out).toContain('nothing: the run ended in the warm-up');
      expect(out).not.toMatch(/^read /m);
      expect(out).not.toContain('this client took');
      const json = await runLine(`${line} --json`, { interrupted: AbortSignal.timeout(400) });
      expect(JSON.parse(json.out)).toMatchObject({ isMeasured: false, elapsedMs: 0, interrupted: true, total: { operations: 0, iops: 0 } });
    });
  });

  it('says that requests above the largest of the server were sent in parts', async () => {
    const info = { blockSizes: { minimumBytes: 1, preferredBytes: 4096, maximumBytes: 64 * KiB } };
    await withServers([{ info }, {}], async ({ uri }) => {
      const { exit, out } = await runLine(`bench ${uri} --bs 256K --rw read ${QUICK}`);
      expect(exit).toBe(0);
      expect(out).toContain('note: read: the server takes at most 64 KiB in one request: each of 256 KiB was sent in parts');
    });
  });

  it('says that an export is empty', async () => {
    await withServers([{ sizeBytes: 0 }, {}], async ({ uri }) => {
      const { exit, err } = await runLine(`bench ${uri} ${QUICK}`);
      expect([exit, err]).toEqual([64, expect.stringContaining('the export is empty')]);
    });
  });

  it('gives a verification up with a status of its own', async () => {
    const rule: TestServerOptions['rule'] = ({ type }) => (type === nbd.NBD_CMD_READ ? 'silence' : 'execute');
    await withServers([{ rule }, {}], async ({ uri }) => {
      const { exit, out } = await runLine(`bench ${uri} --verify --rw write --yes ${QUICK}`, { interrupted: AbortSignal.timeout(800) });
      expect(exit).toBe(10);
      expect(out).toMatch(/^NOT VERIFIED: no block was written and read back/m);
      expect(out).toMatch(/^write +\d+/m);
    });
  });

  it('knows its own volume also where the socket is reached through a link', async () => {
    await withServers([{}, {}], async (first) => {
      const link = `${first.options.path}-link`;
      await symlink(first.options.path, link);
      const rig = await device({
        status: () => statusView({ sockets: { ...statusView().sockets, nbd: [`nbd+unix:///?socket=${link}`] } }),
        volumeList: () => [volumeView(1, 'vol')],
        pairStatus: () => [],
        clientList: async () => [clientView(7)],
      });
      const { exit, err } = await rig.line(`bench ${first.uri} --rw write --yes ${QUICK}`);
      expect(exit).toBe(0);
      expect(err).toContain('WARNING: NBD connection 7');
    });
  });
});
