/** The data plane when something fails or is taken away: legs, lanes, clients, the process itself. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import type { NbdClient } from '../../../src/nbd-client/index.ts';
import { faultRule, PlaneBench, until } from '../../support/plane-bench.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: { code: string }) => error.code,
  );

/** Without addons the lane listens itself: for a moment after its death nobody does. */
const connectAgain = async (bench: PlaneBench, volume: number): Promise<NbdClient> => {
  for (const deadline = performance.now() + 10_000; ; await later(20)) {
    try {
      return await bench.connect(volume);
    } catch (error) {
      if ((error as { code: string }).code !== 'NBD_CONNECT' || performance.now() > deadline) throw error;
    }
  }
};

/** A rule that no request can be matched with: whoever tries dies of it, as of any fault of the program. */
const fatal = (volume: number) => faultRule({ id: 66, volume, offset: 1n as unknown as number });

describe('a secondary that fails', () => {
  it('with fence never costs the host nothing: the pair tracks, and its resync is the difference', async () => {
    await using bench = await PlaneBench.open({ regions: 4 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4 * MiB, 1));
    await bench.duplex();
    await bench.plane.faultsSet(2, [faultRule({ count: 1 })]);
    await later(30);
    await client.write(MiB, Buffer.alloc(512, 2));
    await client.write(2 * MiB, Buffer.alloc(512, 3));
    await bench.until('legFailed');
    expect(bench.events('legFailed')).toMatchObject([{ pair: 1, leg: 'secondary', code: 'EIO' }]);
    expect(bench.plane.faultCounters(1)).toEqual({ hits: 1, left: 0 });
    expect(bench.plane.pairProgress(1).dirtyBytes.union).toBe(128 * KiB);
    expect(bench.content(2)[2 * MiB]).toBe(1);
    await bench.switch(1, 'copying', 'merge');
    bench.copy(1);
    await bench.mirroring(1);
    expect(bench.content(2).equals(bench.content(1))).toBe(true);
  });

  it('with fence data fails the host until the mode is switched or the fence is lowered', async () => {
    await using bench = await PlaneBench.open({ regions: 2 });
    await using client = await bench.connect(1);
    await bench.duplex({ fenceData: true });
    await bench.plane.faultsSet(2, [faultRule({ count: 1, errno: 'ENOSPC' })]);
    await later(30);
    expect(await codeOf(client.write(0, Buffer.alloc(512, 2)))).toBe('NBD_ENOSPC');
    expect(await codeOf(client.write(MiB, Buffer.alloc(512, 2)))).toBe('NBD_EIO');
    expect(bench.plane.pairProgress(1).dirtyBytes.union).toBe(64 * KiB);
    bench.plane.pairConfigure(1, { fenceData: false });
    expect(await codeOf(client.write(MiB, Buffer.alloc(512, 2)))).toBe('done');
    expect(bench.plane.pairProgress(1).dirtyBytes.union).toBe(128 * KiB);
  });

  it('in a flush makes dirty what may have been lost, and the flush succeeds', async () => {
    await using bench = await PlaneBench.open({ regions: 8 });
    await using client = await bench.connect(1);
    await bench.duplex();
    await client.write(5 * MiB, Buffer.alloc(512, 2));
    await bench.plane.faultsSet(2, [faultRule({ error: 'flush', count: 1 })]);
    await later(30);
    expect(await codeOf(client.flush())).toBe('done');
    await bench.until('legFailed');
    // The whole extent of 4 MiB is marked.
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBe(4 * MiB);
  });
});

describe('a primary that fails', () => {
  it("in a write or a flush is the host's error, and what may differ is dirty", async () => {
    await using bench = await PlaneBench.open({ regions: 8 });
    await using client = await bench.connect(1);
    await bench.duplex();
    await bench.plane.faultsSet(1, [faultRule({ volume: 1, count: 1 }), faultRule({ id: 2, volume: 1, error: 'flush', count: 1 })]);
    await later(30);
    expect(await codeOf(client.write(MiB, Buffer.alloc(512, 2)))).toBe('NBD_EIO');
    await bench.until('legFailed');
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBe(64 * KiB);
    await client.write(4 * MiB, Buffer.alloc(512, 2));
    expect(await codeOf(client.flush())).toBe('NBD_EIO');
    await bench.until('legFailed', 2);
    expect(bench.events('legFailed')).toMatchObject([{ leg: 'primary' }, { leg: 'primary' }]);
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBe(8 * MiB);
  });

  it('stops a copy, which says which leg it was, and goes on when it is started again', async () => {
    await using bench = await PlaneBench.open({ regions: 4 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4 * MiB, 1));
    await bench.plane.faultsSet(1, [faultRule({ volume: 1, error: 'read', offset: 2 * MiB, length: 512, count: 1 })]);
    await bench.pair();
    await bench.until('copyFailed');
    expect(bench.events('copyFailed')).toMatchObject([{ pair: 1, leg: 'source', code: 'EIO' }]);
    expect(bench.plane.pairProgress(1).dirtyBytes.union).toBe(2 * MiB);
    bench.copy(1);
    await bench.mirroring(1);
    expect(bench.content(2).equals(bench.content(1))).toBe(true);
  });
});

describe('faults that are set during a copy', () => {
  it('reach the copy that runs', async () => {
    await using bench = await PlaneBench.open({ regions: 24 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(24 * MiB, 1));
    let isOver = false;
    const writing = (async () => {
      while (!isOver) await client.write(0, Buffer.alloc(512, 1));
    })();
    await bench.pair({ pace: 2 });
    await until('it copies', () => bench.plane.pairProgress(1).copiedBytes > 0);
    await bench.plane.faultsSet(2, [faultRule({ offset: 8 * MiB })]);
    await bench.until('copyFailed');
    expect(bench.events('copyFailed')).toMatchObject([{ leg: 'target', code: 'EIO' }]);
    isOver = true;
    await writing;
  });
});

describe('a held volume', () => {
  it('parks writes and new connections, serves reads, and lets all of them go on afterwards', async () => {
    await using bench = await PlaneBench.open({ regions: 2 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4096, 7));
    await bench.plane.volumeHold(1);
    await expect(bench.plane.volumeHold(1)).rejects.toMatchObject({ code: 'VOLUME_HELD' });
    await using reader = await Promise.race([bench.connect(2), later(3000).then(() => Promise.reject(new Error('another volume waits')))]);
    await reader.write(0, Buffer.alloc(512, 1));
    let state = '';
    const parked = client.write(0, Buffer.alloc(512, 9)).then(() => (state += 'written '));
    const arriving = bench.connect(1).then((other) => {
      state += 'connected ';
      return other;
    });
    await later(100);
    expect(state).toBe('');
    expect(bench.content(1)[0]).toBe(7);
    await bench.plane.volumeUnhold(1);
    await parked;
    await using other = await arriving;
    expect((await other.read(0, 512))[0]).toBe(9);
  });

  it('is held only when the long zeros that were under way have ended', async () => {
    await using bench = await PlaneBench.open({ regions: 16 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(16 * MiB, 7));
    const zeroing = client.writeZeroes(0, 16 * MiB, { noHole: true });
    await later(5);
    await bench.plane.volumeHold(1);
    expect(bench.content(1).every((byte) => byte === 0)).toBe(true);
    await zeroing;
    await bench.plane.volumeUnhold(1);
  });

  it('gives its parked writes the shutdown error when its clients are ended', async () => {
    await using bench = await PlaneBench.open({ regions: 2 });
    const [mine, other] = await Promise.all([bench.connect(1), bench.connect(2)]);
    await bench.plane.volumeHold(1);
    const parked = codeOf(mine.write(0, Buffer.alloc(512, 9)));
    await later(30);
    expect(await bench.plane.clientsEnd({ volume: 1 })).toBe(1);
    expect(await parked).toBe('NBD_ESHUTDOWN');
    expect(bench.plane.clientCount(1)).toBe(0);
    await bench.plane.volumeUnhold(1);
    expect(bench.content(1)[0]).toBe(0);
    await other?.write(0, Buffer.alloc(512, 1));
    await other?.disconnect();
  });
});

describe('a lane that dies', () => {
  it('between two writes leaves its clients cut off and everything else serving, with new connections on it', async () => {
    await using bench = await PlaneBench.open({ regions: 4, lanes: 1 });
    await bench.duplex();
    const client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4096, 7));
    await bench.plane.volumeHold(2);
    // A region map that cannot be: the lane that takes it in dies.
    const [spec] = bench.specs;
    await bench.plane.volumeReplace({ ...(spec as NonNullable<typeof spec>), runs: [{ pv: 2, start: 0, count: 1 }] });
    await bench.until('workerLost');
    await bench.plane.volumeReplace(spec as NonNullable<typeof spec>);
    expect(await codeOf(client.write(0, Buffer.alloc(512)))).toBe('NBD_DISCONNECTED');
    expect(bench.events('clientClosed')).toMatchObject([{ volume: 1, reason: 'lane 0 died' }]);
    expect(bench.plane.clientCount()).toBe(0);
    await using again = await connectAgain(bench, 1);
    expect((await again.read(0, 1))[0]).toBe(7);
    await again.write(0, Buffer.alloc(512, 8));
    expect([bench.content(1)[0], bench.content(2)[0]]).toEqual([8, 8]);
    // The hold of before is still one.
    let isConnected = false;
    const held = connectAgain(bench, 2).then((other) => {
      isConnected = true;
      return other;
    });
    await later(80);
    expect(isConnected).toBe(false);
    await bench.plane.volumeUnhold(2);
    await (await held).disconnect();
  });

  it('between its two legs leaves the region dirty, frees its locks, and tells the pair', async () => {
    await using bench = await PlaneBench.open({ regions: 4, lanes: 2 });
    await bench.duplex();
    const clients = await Promise.all([0, 1].map(() => bench.connect(1)));
    await bench.plane.faultsSet(2, [fatal(2)]);
    await later(30);
    expect(await codeOf((clients[0] as NonNullable<(typeof clients)[0]>).write(MiB, Buffer.alloc(4096, 7)))).toBe('NBD_DISCONNECTED');
    await bench.until('workerLost');
    await bench.plane.faultsSet(2, []);
    await bench.until('legFailed');
    expect(bench.events('legFailed')).toMatchObject([{ pair: 1, leg: 'primary' }]);
    expect([bench.content(1)[MiB], bench.content(2)[MiB]]).toEqual([7, 0]);
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBeGreaterThanOrEqual(64 * KiB);
    await bench.switch(1, 'copying', 'keep');
    bench.copy(1);
    await bench.mirroring(1);
    await using again = await connectAgain(bench, 1);
    await again.write(MiB, Buffer.alloc(512, 9));
    expect(bench.content(2).equals(bench.content(1))).toBe(true);
    for (const client of clients) client.destroy();
  });
});

describe('a zero worker that dies', () => {
  it('answers what it had taken with an error, leaves the range dirty, and is there again for the next', async () => {
    await using bench = await PlaneBench.open({ regions: 4, lanes: 1 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4 * MiB, 7));
    await bench.duplex();
    await bench.plane.faultsSet(2, [fatal(2)]);
    await later(30);
    expect(await codeOf(client.writeZeroes(0, 2 * MiB, { noHole: true }))).toBe('NBD_EIO');
    await bench.until('workerLost');
    await bench.plane.faultsSet(2, []);
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBe(2 * MiB);
    await client.writeZeroes(0, 4 * MiB, { noHole: true });
    expect(bench.content(1).every((byte) => byte === 0)).toBe(true);
    await bench.switch(1, 'copying', 'keep');
    bench.copy(1);
    await bench.mirroring(1);
    expect(bench.content(2).equals(bench.content(1))).toBe(true);
  });
});

describe('a copy whose worker dies', () => {
  it('leaves what it had not copied dirty, and its place to others', async () => {
    await using bench = await PlaneBench.open({ regions: 4 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(4 * MiB, 7));
    await bench.plane.faultsSet(2, [fatal(2)]);
    await bench.pair();
    await bench.until('copyFailed');
    expect(bench.plane.pairProgress(1).dirtyBytes.primary).toBe(4 * MiB);
    await bench.plane.faultsSet(2, []);
    // The range lock of its last step is free: a write there goes through.
    await client.write(0, Buffer.alloc(512, 8));
    bench.copy(1);
    await bench.mirroring(1);
    expect(bench.content(2).equals(bench.content(1))).toBe(true);
  });
});

describe('a data plane that ends', () => {
  it('in order leaves no mark and clean bitmaps; its pairs come back as they were', async () => {
    await using temporary = await temporaryDirectory();
    const first = await PlaneBench.open({ regions: 4, directory: temporary.root });
    const client = await first.connect(1);
    await first.duplex();
    await client.write(0, Buffer.alloc(4096, 7));
    await first.switch(1, 'tracking', 'clear', true);
    await client.write(MiB, Buffer.alloc(512, 8));
    const ended = codeOf(later(20).then(() => client.write(0, Buffer.alloc(512))));
    await first.close();
    expect(['NBD_ESHUTDOWN', 'NBD_CLOSED']).toContain(await ended);
    client.destroy();
    await using again = await PlaneBench.open({ regions: 4, directory: temporary.root });
    const { recoveredBytes, dirtyBytes } = await again.plane.pairAttach(
      { id: 1, primary: 1, secondary: 2, dirtyRegionBytes: 64 * KiB, fenceData: false, pace: 8 },
      { fresh: false },
    );
    expect([recoveredBytes, dirtyBytes]).toEqual([0, 64 * KiB]);
    expect(again.plane.resyncBoundBytes()).toBe(0);
  });

  it('without its files readable takes everything for dirty', async () => {
    await using temporary = await temporaryDirectory();
    const first = await PlaneBench.open({ regions: 4, directory: temporary.root });
    await first.duplex();
    await first.close();
    fs.rmSync(`${temporary.root}/bitmaps/pair-1-primary.map`);
    await using again = await PlaneBench.open({ regions: 4, directory: temporary.root });
    const { dirtyBytes } = await again.plane.pairAttach(
      { id: 1, primary: 1, secondary: 2, dirtyRegionBytes: 64 * KiB, fenceData: false, pace: 8 },
      { fresh: false },
    );
    expect(dirtyBytes).toBe(4 * MiB);
  });
});

describe('a volume that changes while clients are connected', () => {
  it('grows for those that come, and those that are there go on', async () => {
    await using bench = await PlaneBench.open({ regions: 2, volumes: 2 });
    await using client = await bench.connect(1);
    const [spec, other] = bench.specs as [(typeof bench.specs)[0], (typeof bench.specs)[0]];
    await bench.plane.volumeDetach(2);
    await bench.plane.volumeReplace({ ...spec, name: 'volume-1', capacityBytes: 4 * MiB, runs: [...spec.runs, ...other.runs] });
    await client.write(MiB, Buffer.alloc(512, 3));
    await using wider = await bench.connect(1);
    expect([client.info.sizeBytes, wider.info.sizeBytes]).toEqual([2 * MiB, 4 * MiB]);
    await wider.write(4 * MiB - 512, Buffer.alloc(512, 4));
    expect((await wider.read(MiB, 1))[0]).toBe(3);
  });

  it('that is gone takes no more writes, also not from a client that nobody has ended', async () => {
    await using bench = await PlaneBench.open({ regions: 2 });
    await using client = await bench.connect(1);
    await client.write(0, Buffer.alloc(512, 3));
    await bench.plane.volumeDetach(1);
    expect(await codeOf(client.write(0, Buffer.alloc(512, 4)))).not.toBe('done');
    expect(bench.content(1)[0]).toBe(3);
  });
});
