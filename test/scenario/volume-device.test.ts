/** A device in one's own process: where its store is, who may have it, how it ends, and what it refuses. */
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';
import { ControlClient } from '../../src/control/client.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { blockOf, failure, readFrom, writeTo } from '../support/pair-device.ts';

describe('a device without a store directory', () => {
  it('has a temporary store that is gone at the end, with all that was in it', async () => {
    const device = await openDevice({ lanes: 1 });
    const { directory } = device.status().store;
    const volume = await device.createVolume('v', '4M');
    await writeTo(volume, 0, MiB, 1);
    expect(existsSync(directory)).toBe(true);
    await device.close();
    await device.close();
    expect(existsSync(directory)).toBe(false);
    expect(await failure(device.createVolume('w', '4M'))).toMatchObject({ code: 'ENGINE_STOPPING' });
  });
});

describe('a device with a store directory', () => {
  it('is made only when asked to, keeps its volumes, and has one owner', async () => {
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    expect(await failure(openDevice({ store }))).toMatchObject({ code: 'STORE_MISSING' });
    {
      await using device = await openDevice({ store, create: true, regionSize: '64K', pvSize: '64M', lanes: 1 });
      expect(device.status().store).toMatchObject({ regionBytes: 65_536 });
      await writeTo(await device.createVolume('v', '4M'), MiB, 4096, 1);
      const refused = await failure(openDevice({ store }));
      expect(refused).toMatchObject({ code: 'STORE_LOCKED', message: expect.stringContaining(String(process.pid)) });
    }
    await using device = await openDevice({ store, create: true, lanes: 1 });
    expect(device.status().store.regionBytes).toBe(65_536);
    expect((await readFrom(device.volume('v'), MiB, 4096)).equals(blockOf(MiB, 4096, 1))).toBe(true);
    expect(device.status().durability.lastRecoveryBytes).toBe(0);
  });

  it('has a control socket when asked to, on which every command works', async () => {
    await using device = await openDevice({ lanes: 1, control: true });
    const { control } = device.status().sockets;
    const client = await ControlClient.connect(control);
    expect(await client.call('volume.create', { name: 'v', sizeBytes: 4 * MiB })).toMatchObject({ name: 'v', uri: device.volume('v').uri });
    expect(await client.call('device.status', {})).toMatchObject({ volumes: 1 });
    await client.close();
  });

  it('listens on TCP, names the port in its URIs, and gives everything up when it cannot listen', async () => {
    await using device = await openDevice({ lanes: 1, nbdTcp: '127.0.0.1:0' });
    const volume = await device.createVolume('v', '4M');
    expect(volume.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/v$/);
    await writeTo(volume, 0, 4096, 1);
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    await using temporary = await temporaryDirectory();
    const store = temporary.path('store');
    const refused = await failure(openDevice({ store, create: true, nbdTcp: `127.0.0.1:${port}` }));
    expect(refused.message).toContain(String(port));
    await using again = await openDevice({ store, lanes: 1 });
    expect(again.volumes()).toEqual([]);
    expect(await failure(openDevice({ nbdTcp: 'nowhere' }))).toMatchObject({ code: 'USAGE' });
    await new Promise((resolve) => taken.close(resolve));
  });
});

describe('a volume', () => {
  it('is found by its name and its number, follows a rename, and clients stay', async () => {
    await using device = await openDevice({ lanes: 1 });
    const volume = await device.createVolume('old', '4M');
    await using client = await volume.connect();
    await client.write(0, blockOf(0, 4096, 1));
    await volume.rename('new');
    expect(volume.name).toBe('new');
    expect(volume.uri).toContain('/new');
    expect((await client.read(0, 4096)).equals(blockOf(0, 4096, 1))).toBe(true);
    expect(device.volume(String(volume.number)).name).toBe('new');
    expect(() => device.volume('old')).toThrow(expect.objectContaining({ code: 'VOLUME_NOT_FOUND' }));
    expect((await failure(volume.delete())).code).toBe('MOUNTED');
    await client.disconnect();
    await expect.poll(() => volume.info().clients).toBe(0);
    await volume.delete();
    expect(device.volumes()).toEqual([]);
  });

  it('is kept out of every automatic choice by protection, and can be named', async () => {
    await using device = await openDevice({ lanes: 1 });
    const db = await device.createVolume('db', '4M');
    const copy = await device.createVolume('copy', '4M', { attribute: 'secondary' });
    await copy.set({ protected: true });
    expect(db.candidates()).toEqual([]);
    expect(db.candidates({ explain: true }).map((view) => view.reason)).toEqual([
      'it is the primary itself',
      'it is protected: it is not offered, but can be named',
    ]);
    expect((await failure(db.pair())).code).toBe('NO_CANDIDATE');
    await (await db.pair(copy)).wait('duplex');
  });

  it('tells of its life in events, and a reader goes on where it stopped', async () => {
    await using device = await openDevice({ lanes: 1 });
    await device.createVolume('first', '4M');
    let seq = 0;
    const seen: string[] = [];
    for await (const event of device.events({ follow: false })) {
      seq = Math.max(seq, event.seq);
      seen.push(`${event.kind} ${event.object}`);
    }
    expect(seen).toEqual(['exists device', 'exists volume']);
    const second = await device.createVolume('second', '4M');
    await second.rename('third');
    await second.delete();
    const later: string[] = [];
    for await (const event of device.events({ since: seq, follow: false }))
      later.push(`${event.kind} ${event.object} ${String(event.data.name)}`);
    expect(later).toEqual(['create volume second', 'change volume third', 'destroy volume third']);
  });
});
