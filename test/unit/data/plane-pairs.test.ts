/** The data plane as a whole: pairs under real NBD connections, through every mode. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import type { NbdClient } from '../../../src/nbd-client/index.ts';
import { PlaneBench, until } from '../../support/plane-bench.ts';
import { randomFrom } from '../../support/plane-thread.ts';

// Each test starts threads of its own, which takes its time where other tests do the same.
vi.setConfig({ testTimeout: 60_000 });

const sum = (content: Buffer): string => createHash('sha256').update(content).digest('hex');

/** Writes from several connections, in pieces that overlap, until it is told to stop. */
const load = (clients: readonly NbdClient[], capacityBytes: number): { stop: () => Promise<number> } => {
  let isOver = false;
  let writes = 0;
  const random = randomFrom(11);
  const workers = clients.flatMap((client, index) =>
    [0, 1].map(async (lane) => {
      while (!isOver) {
        const length = 512 * (1 + Math.floor(random() * 400));
        const near = random() < 0.5 ? Math.floor(random() * 4) * MiB : random() * capacityBytes;
        const offset = Math.floor(Math.min(near, capacityBytes - length) / 512) * 512;
        const dice = random();
        if (dice < 0.1) await client.writeZeroes(offset, length);
        else if (dice < 0.15) await client.trim(offset, length);
        else await client.write(offset, Buffer.alloc(length, (index * 64 + lane * 32 + (writes % 32)) & 0xff));
        writes += 1;
      }
    }),
  );
  return {
    stop: async () => {
      isOver = true;
      await Promise.all(workers);
      return writes;
    },
  };
};

describe('a pair', () => {
  it('is copied under the load of several connections, mirrors from then on, and both legs are equal', async () => {
    await using bench = await PlaneBench.open({ regions: 24 });
    const [spec] = bench.specs;
    const clients = await Promise.all([0, 1, 2].map(() => bench.connect(1)));
    await clients[0]?.write(0, Buffer.alloc(20 * MiB, 5));
    const writers = load(clients, spec?.capacityBytes ?? 0);
    await bench.duplex({ pace: 8 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await writers.stop()).toBeGreaterThan(20);
    await Promise.all(clients.map((client) => client.disconnect()));
    expect(sum(bench.content(2))).toBe(sum(bench.content(1)));
    expect(bench.plane.pairProgress(1)).toMatchObject({ pointer: { percent: 100 }, dirtyBytes: { primary: 0, secondary: 0, union: 0 } });
  });

  it("keeps the image of the split, takes both sides' changes back on a resync, and only those", async () => {
    await using bench = await PlaneBench.open({ regions: 8 });
    await using primary = await bench.connect(1);
    await primary.write(0, Buffer.alloc(8 * MiB, 1));
    await bench.duplex();
    const image = sum(bench.content(1));
    expect(await bench.switch(1, 'tracking', 'clear', true)).toBe(true);
    await primary.write(3 * MiB, Buffer.alloc(4096, 2));
    expect(sum(bench.content(2))).toBe(image);
    await using secondary = await bench.connect(2);
    await secondary.write(5 * MiB, Buffer.alloc(4096, 3));
    expect(bench.plane.pairProgress(1).dirtyBytes).toEqual({ primary: 64 * KiB, secondary: 64 * KiB, union: 128 * KiB });
    await bench.switch(1, 'copying', 'merge');
    await expect(secondary.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'NBD_EPERM' });
    bench.copy(1);
    await bench.mirroring(1);
    expect(bench.plane.pairProgress(1).copiedBytes).toBe(128 * KiB);
    expect(sum(bench.content(2))).toBe(sum(bench.content(1)));
    expect((await primary.read(3 * MiB, 4096)).equals(Buffer.alloc(4096, 2))).toBe(true);
  });

  it('is restored: hosts read the image of the split from the first moment, and may write meanwhile', async () => {
    await using bench = await PlaneBench.open({ regions: 16 });
    await using primary = await bench.connect(1);
    await primary.write(0, Buffer.alloc(16 * MiB, 1));
    await bench.duplex();
    await bench.switch(1, 'tracking', 'clear', true);
    await primary.write(0, Buffer.alloc(12 * MiB, 2));
    await bench.switch(1, 'restoring', 'merge');
    // No copy has run yet.
    expect((await primary.read(6 * MiB, 4096)).equals(Buffer.alloc(4096, 1))).toBe(true);
    await primary.write(7 * MiB + 512, Buffer.alloc(1024, 9));
    await primary.write(15 * MiB, Buffer.alloc(1024, 9));
    bench.copy(1);
    await bench.mirroring(1);
    const wanted = Buffer.alloc(16 * MiB, 1);
    wanted.fill(9, 7 * MiB + 512, 7 * MiB + 1536);
    wanted.fill(9, 15 * MiB, 15 * MiB + 1024);
    expect(sum(bench.content(1))).toBe(sum(wanted));
    expect(sum(bench.content(2))).toBe(sum(wanted));
  });

  it('has two siblings: each has its own mode, and a restore of one marks what changes for the others', async () => {
    await using bench = await PlaneBench.open({ volumes: 4, regions: 4 });
    await using primary = await bench.connect(1);
    await primary.write(0, Buffer.alloc(4 * MiB, 1));
    for (const id of [1, 2, 3]) await bench.duplex({ id, secondary: id + 1, dirtyRegionBytes: id === 2 ? 256 * KiB : 64 * KiB });
    await bench.switch(1, 'tracking', 'clear', true);
    await primary.write(0, Buffer.alloc(512, 2));
    await bench.switch(2, 'tracking', 'clear', true);
    await primary.write(MiB, Buffer.alloc(512, 3));
    expect([1, 2, 3].map((id) => bench.plane.pairProgress(id).dirtyBytes.primary)).toEqual([128 * KiB, 256 * KiB, 0]);
    expect([0, MiB].map((at) => bench.content(4)[at])).toEqual([2, 3]);
    await bench.switch(3, 'tracking', 'clear', true);
    await bench.switch(1, 'restoring', 'merge');
    for (const id of [2, 3]) await bench.plane.pairMarkFrom(id, 1);
    bench.copy(1);
    await bench.mirroring(1);
    expect([0, MiB].map((at) => bench.content(1)[at])).toEqual([1, 1]);
    expect([2, 3].map((id) => bench.plane.pairProgress(id).dirtyBytes.primary)).toEqual([512 * KiB, 128 * KiB]);
    for (const id of [2, 3]) {
      await bench.switch(id, 'copying', 'merge');
      bench.copy(id);
      await bench.mirroring(id);
    }
    expect(new Set([1, 2, 3, 4].map((volume) => sum(bench.content(volume)))).size).toBe(1);
  });

  it('is given up while it waits for its turn behind other copies, and one that is released leaves no file', async () => {
    await using bench = await PlaneBench.open({ volumes: 8, regions: 64 });
    await using primary = await bench.connect(1);
    for (let at = 0; at < 64; at += 8) await primary.write(at * MiB, Buffer.alloc(8 * MiB, 1));
    // Four at most run at once, and each is slow while a host is at work.
    const writers = load([primary], 512 * 1024);
    for (const id of [1, 2, 3, 4, 5, 6, 7]) await bench.pair({ id, secondary: id + 1, pace: 1 });
    await bench.plane.copyStop(7);
    await bench.plane.pairDetach(6);
    expect(fs.readdirSync(`${bench.store.directory}/bitmaps`).filter((name) => name.startsWith('pair-6'))).toEqual([]);
    expect(fs.existsSync(`${bench.store.directory}/intents/volume-7.map`)).toBe(false);
    const done = bench.events('copyDone').map(({ pair }) => pair);
    expect([done.includes(6), done.includes(7)]).toEqual([false, false]);
    await writers.stop();
    bench.copy(7);
    for (const id of [1, 2, 3, 4, 5, 7]) await bench.mirroring(id);
    expect(sum(bench.content(8))).toBe(sum(bench.content(1)));
    expect(() => bench.plane.pairProgress(6)).toThrow(expect.objectContaining({ code: 'PAIR_NOT_FOUND' }));
  });

  it('can be released in the middle of its copy and of a verify, while hosts write', async () => {
    await using bench = await PlaneBench.open({ regions: 32 });
    const clients = await Promise.all([0, 1].map(() => bench.connect(1)));
    await clients[0]?.write(0, Buffer.alloc(32 * MiB, 4));
    const writers = load(clients, 32 * MiB);
    for (const id of [1, 2, 3]) {
      await bench.pair({ id, pace: 15 });
      if (id === 2) await bench.mirroring(id);
      const verifying = id === 2 ? bench.plane.verify(id, { repair: false }) : null;
      const verified = verifying?.then(
        () => 'done',
        (error: { code: string }) => error.code,
      );
      await bench.plane.pairDetach(id);
      if (verified !== undefined) expect(['done', 'TIMEOUT']).toContain(await verified);
    }
    await bench.duplex({ id: 9 });
    await writers.stop();
    expect(sum(bench.content(2))).toBe(sum(bench.content(1)));
    await Promise.all(clients.map((client) => client.disconnect()));
  });

  it('verifies under load without a false alarm, and finds and repairs what was changed behind its back', async () => {
    await using bench = await PlaneBench.open({ regions: 8 });
    const clients = await Promise.all([0, 1].map(() => bench.connect(1)));
    await clients[0]?.write(0, Buffer.alloc(8 * MiB, 4));
    await bench.duplex();
    const writers = load(clients, 4 * MiB);
    for (let round = 0; round < 3; round += 1) expect(await bench.plane.verify(1, { repair: true })).toMatchObject({ differingBytes: 0 });
    await bench.switch(1, 'tracking', 'clear', true);
    for (let round = 0; round < 3; round += 1) expect(await bench.plane.verify(1, { repair: true })).toMatchObject({ differingBytes: 0 });
    await writers.stop();
    await bench.switch(1, 'copying', 'merge');
    bench.copy(1);
    await bench.mirroring(1);
    const [, other] = bench.specs;
    const run = other?.runs.at(-1) as { pv: number; start: number };
    fs.writeSync(bench.store.pvFd(run.pv), Buffer.alloc(512, 0xee), 0, 512, run.start * MiB + 70_000);
    const found = await bench.plane.verify(1, { repair: true });
    expect(found).toMatchObject({ differingBytes: 64 * KiB, differing: [{ offset: 7 * MiB + 64 * KiB, length: 64 * KiB }] });
    await bench.switch(1, 'copying', 'keep');
    bench.copy(1);
    await bench.mirroring(1);
    expect(await bench.plane.verify(1, { repair: false })).toMatchObject({ differingBytes: 0 });
    const given = new AbortController();
    given.abort();
    await expect(bench.plane.verify(1, { repair: false, signal: given.signal })).rejects.toMatchObject({ code: 'TIMEOUT' });
    await Promise.all(clients.map((client) => client.disconnect()));
  });

  it('that was asked to stop and start again at once copies to the end', async () => {
    await using bench = await PlaneBench.open({ regions: 32 });
    await using primary = await bench.connect(1);
    await primary.write(0, Buffer.alloc(32 * MiB, 4));
    await bench.pair({ pace: 15 });
    for (let round = 0; round < 5; round += 1) {
      const stopped = bench.plane.copyStop(1);
      bench.copy(1);
      await stopped;
    }
    bench.copy(1);
    await bench.mirroring(1);
    expect(sum(bench.content(2))).toBe(sum(bench.content(1)));
    await until('nothing is dirty', () => bench.plane.pairProgress(1).dirtyBytes.union === 0);
  });
});
