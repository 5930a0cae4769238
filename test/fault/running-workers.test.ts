/** Threads of the engine that die in the middle of their work: a lane, a copy, a verify, the zero worker. */
import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { describe, expect, it, vi } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice, type Volume } from '../../src/index.ts';
import { PairState } from '../../src/data/plane-state.ts';
import type { NbdClient } from '../../src/nbd-client/index.ts';
import { blockOf, checksum, duplexPair, failure, lastSeq, later, openPairDevice, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';
import { watchWorkerThreads } from '../support/worker-threads.ts';

const BIG_BYTES: number = 128 * MiB;

/** What the device told since a number, without the coming and going of connections. */
const eventsSince = async (device: Pick<Device, 'events'>, since: number): Promise<readonly Readonly<Record<string, unknown>>[]> => {
  const found: Readonly<Record<string, unknown>>[] = [];
  for await (const { object, kind, data } of device.events({ follow: false, since }))
    if (object !== 'client') found.push({ object, kind, ...data });
  return found;
};

/** A host at work: a copy or verify of a low pace gives way to it, and so takes long enough to be met in its middle. */
const hostLoad = (host: NbdClient): AsyncDisposable & { stop(): Promise<void> } => {
  let isOver = false;
  const work = (async () => {
    for (let at = 0; !isOver; at = (at + MiB) % BIG_BYTES) await host.write(at, blockOf(at, 4 * KiB, 2));
  })();
  const stop = async (): Promise<void> => {
    isOver = true;
    await work;
  };
  return { stop, [Symbol.asyncDispose]: stop };
};

/** One connection on each of two lanes: the first on lane 0. */
const onBothLanes = async (device: Device, volume: Volume): Promise<readonly NbdClient[]> => {
  const laneOf = async (known: ReadonlySet<number>) => (await device.engine.clientList()).find(({ id }) => !known.has(id));
  const hosts: NbdClient[] = [];
  for (const lane of [0, 1]) {
    for (;;) {
      const known = new Set((await device.engine.clientList()).map(({ id }) => id));
      const host = await volume.connect();
      if ((await laneOf(known))?.lane === lane) {
        hosts.push(host);
        break;
      }
      // Kept for a moment, so that the next one comes to the other lane.
      setTimeout(() => host.destroy(), 200);
    }
  }
  return hosts;
};

/** The pool's own code in the thread throws at such a message, where nobody catches it. */
const throwIn = async (thread: Worker): Promise<void> => thread.postMessage({ niceIncrement: 0 });

describe('a lane that dies', () => {
  it.each([
    { how: 'at any instruction', rounds: 4, end: async (thread: Worker): Promise<unknown> => thread.terminate() },
    { how: 'of an error that nobody caught', rounds: 2, end: throwIn },
  ])('[lane-dies] $how ends its connections and nothing else, and leaves no region of a pair unequal', async ({ rounds, end }) => {
    using threads = watchWorkerThreads();
    await using setup = await openPairDevice({ lanes: 2 });
    const { device, primary } = setup;
    const lanes = threads.since(0);
    expect(lanes).toHaveLength(2);
    const other = await device.createVolume('other', VOLUME_BYTES);
    const pair = await duplexPair(setup);
    const since = await lastSeq(device);
    for (let round = 0; round < rounds; round += 1) {
      const hosts = await onBothLanes(device, primary);
      let isOver = false;
      const outcomes = hosts.map(async (host, index) => {
        for (let at = 0; !isOver; at = (at + 36 * KiB) % (VOLUME_BYTES - 32 * KiB)) {
          const ended = await host.write(at, blockOf(at, 32 * KiB, round * 2 + index)).then(
            () => null,
            (error: { readonly code: string }) => error.code,
          );
          if (ended !== null) return ended;
        }
        return 'went on';
      });
      await later(30);
      await end(threads.since(0)[0] as Worker);
      await later(150);
      isOver = true;
      expect((await Promise.all(outcomes)).sort()).toEqual(['NBD_DISCONNECTED', 'went on']);
      for (const host of hosts) host.destroy();
      await writeTo(other, round * MiB, 4096, round);
      await pair.wait('duplex', { timeoutMs: 20_000 });
    }
    expect(await eventsSince(device, since)).toContainEqual(
      expect.objectContaining({ kind: 'warning', text: 'a worker died and was started again' }),
    );
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
    await pair.split();
    expect(await checksum(setup.secondary)).toBe(await checksum(primary));
  });
});

/** A pair to come, of a size that a copy or verify of low pace needs seconds for: a little data in each MiB. */
const bigPair = async (device: Device) => {
  const primary = await device.createVolume('big', BIG_BYTES);
  const secondary = await device.createVolume('big-copy', BIG_BYTES, { attribute: 'secondary' });
  const host = await primary.connect();
  for (let at = 0; at < BIG_BYTES; at += MiB) await host.write(at, blockOf(at, 4 * KiB, 1));
  return { primary, secondary, host };
};

/** A copy of low pace, with a host at work beside it: it takes seconds. */
const slowCopy = async () => {
  const threads = watchWorkerThreads();
  const device = await openDevice({ pvSize: '1G', lanes: 1 });
  const { primary, secondary, host } = await bigPair(device);
  const before = threads.count;
  const since = await lastSeq(device);
  const load = hostLoad(host);
  const pair = await primary.pair(secondary, { pace: 1 });
  return {
    pair,
    load,
    /** The threads that were started for it: its lead, then its helper. */
    threads: () => threads.since(before),
    events: () => eventsSince(device, since),
    [Symbol.asyncDispose]: async () => {
      await load.stop();
      await host[Symbol.asyncDispose]();
      await device[Symbol.asyncDispose]();
      threads[Symbol.dispose]();
    },
  };
};

describe('a copy worker that dies', () => {
  it('[copy-worker-dies] is replaced, and the copy goes on from the bitmap and not from the start', async () => {
    await using copy = await slowCopy();
    const { pair } = copy;
    while (pair.status().copyPointer.percent < 20) await later(5);
    const left = pair.status().dirtyBytes.primary;
    await copy.threads()[0]?.terminate();
    await later(100);
    expect(pair.status()).toMatchObject({ state: 'duplex-pending' });
    expect(pair.status().dirtyBytes.primary).toBeLessThanOrEqual(left);
    await pair.set({ pace: 15 });
    await pair.wait('duplex', { timeoutMs: 30_000 });
    await copy.load.stop();
    expect(await copy.events()).toContainEqual(expect.objectContaining({ kind: 'warning', text: 'a worker died and was started again' }));
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(BIG_BYTES);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[copy-worker-dies-again] suspends the pair with its reason, and a resync copies what is left', async () => {
    await using copy = await slowCopy();
    const { pair } = copy;
    for (let death = 1; death <= 3; death += 1) {
      const { copiedBytes } = pair.status();
      while (pair.status().copiedBytes === copiedBytes) await later(5);
      await copy.threads()[0]?.terminate();
    }
    await pair.wait('suspended', { timeoutMs: 10_000 });
    expect(pair.status()).toMatchObject({ state: 'suspended', reason: 'copy-error: WORKER_DIED' });
    await copy.load.stop();
    const { union } = pair.status().dirtyBytes;
    expect(union).toBeLessThan(BIG_BYTES);
    await (await pair.resync({ pace: 15 })).wait('duplex');
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(union);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[copy-worker-throws] suspends the pair in the same way when it cannot go on, and a resync copies what is left', async () => {
    await using setup = await openPairDevice({ lanes: 1 });
    const { device, primary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await pair.split();
    await writeTo(primary, MiB, MiB, 2);
    const since = await lastSeq(device);
    {
      // What the worker is told of the pair does not fit the memory that it gets: it throws at once, each time.
      const message = vi.spyOn(PairState.prototype, 'message').mockImplementation(function (this: PairState) {
        const { id, primary: first, secondary, dirtyRegionBytes } = this.spec;
        const buffer = new SharedArrayBuffer(4);
        return { type: 'pair', id, primary: first, secondary, dirtyRegionBytes, buffer, regions: this.block.regions };
      });
      try {
        await pair.resync();
        await pair.wait('suspended', { timeoutMs: 10_000 });
      } finally {
        message.mockRestore();
      }
    }
    expect(pair.status()).toMatchObject({ reason: 'copy-error: WORKER_DIED', dirtyBytes: { union: MiB } });
    expect(await eventsSince(device, since)).toContainEqual(
      expect.objectContaining({ kind: 'warning', text: 'a worker died and was started again' }),
    );
    await writeTo(primary, 4 * MiB, MiB, 3);
    await (await pair.resync()).wait('duplex');
    expect(pair.status().copiedBytes).toBe(2 * MiB);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('[copy-helper-dies] goes on alone when it was its helper', async () => {
    await using copy = await slowCopy();
    const { pair } = copy;
    while (copy.threads().length < 2) await later(5);
    const helper = copy.threads()[1] as Worker;
    // It says so when it is ready for its task.
    await once(helper, 'message');
    await later(50);
    await helper.terminate();
    expect(pair.status()).toMatchObject({ state: 'duplex-pending' });
    await pair.set({ pace: 15 });
    await pair.wait('duplex', { timeoutMs: 30_000 });
    await copy.load.stop();
    const told = (await copy.events()).filter(({ text }) => `${text as string}`.startsWith('a worker died'));
    expect(told).toEqual([expect.objectContaining({ object: 'device', text: expect.stringContaining('goes on without it') })]);
    expect(pair.status().copiedBytes).toBeLessThanOrEqual(BIG_BYTES);
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });

  it('before it is ready leaves its copy to another one', async () => {
    using threads = watchWorkerThreads();
    await using device = await openDevice({ pvSize: '1G', lanes: 1 });
    const { primary, secondary, host } = await bigPair(device);
    await using _open = host;
    const before = threads.count;
    const pair = await primary.pair(secondary);
    while (threads.count === before) await later(1);
    await threads.since(before)[0]?.terminate();
    await pair.wait('duplex', { timeoutMs: 20_000 });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });
});

describe('a verify worker that dies', () => {
  it('[verify-worker-dies] fails the verify with its reason; the pair stays as it was', async () => {
    using threads = watchWorkerThreads();
    await using device = await openDevice({ pvSize: '1G', lanes: 1 });
    const { primary, secondary, host } = await bigPair(device);
    await using _open = host;
    const pair = await (await primary.pair(secondary)).wait('duplex');
    await pair.set({ pace: 1 });
    await using load = hostLoad(host);
    const verifying = failure(pair.verify());
    while ((pair.status().verify?.checkedBytes ?? 0) < 8 * MiB) await later(5);
    // The threads of the copy, one of which the pool gave to the verify.
    for (const thread of threads.since(1)) await thread.terminate();
    expect(await verifying).toMatchObject({ code: 'INTERNAL', message: expect.stringContaining('died') });
    await load.stop();
    expect(pair.state).toBe('duplex');
    await pair.set({ pace: 15 });
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });
});

describe('a zero worker that dies', () => {
  it('[zero-worker-dies] fails the requests that it had, and the legs are made equal again', async () => {
    using threads = watchWorkerThreads();
    await using setup = await openPairDevice({ lanes: 1 });
    const { device, primary } = setup;
    await writeTo(primary, 0, VOLUME_BYTES, 1);
    const pair = await duplexPair(setup);
    await using host = await primary.connect();
    await host.trim(0, 128 * KiB);
    const worker = threads.since(1).at(-1);
    const since = await lastSeq(device);
    const trims = Array.from({ length: 8 }, (_, index) =>
      host.writeZeroes((1 + index) * MiB, 512 * KiB, { noHole: true }).then(
        () => 'done',
        (error: { readonly code: string }) => error.code,
      ),
    );
    await worker?.terminate();
    const outcomes = await Promise.all(trims);
    expect(outcomes.every((outcome) => outcome === 'done' || outcome === 'NBD_EIO')).toBe(true);
    expect(outcomes).toContain('NBD_EIO');
    await pair.wait('duplex', { timeoutMs: 20_000 });
    // The next one is served by a new thread.
    await host.trim(0, 4 * MiB);
    expect((await host.read(0, MiB)).every((byte) => byte === 0)).toBe(true);
    expect(await eventsSince(device, since)).toContainEqual(
      expect.objectContaining({ kind: 'warning', text: 'a worker died and was started again' }),
    );
    expect(await pair.verify()).toMatchObject({ differingBytes: 0 });
  });
});
