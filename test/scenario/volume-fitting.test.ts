/** Region fitting and the pool: the chosen volume ends with the primary's capacity, and moved regions read as zeros. */
import { expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import type { Device, Volume } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { blockOf, checksum, failure, readFrom, writeTo } from '../support/pair-device.ts';

const PV = '64M';
const until = async (holds: () => boolean): Promise<void> => {
  for (let round = 0; round < 500 && !holds(); round += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(holds()).toBe(true);
};
const regionsOf = (device: Device) => device.status().store.regions;
const scrubbed = (device: Device): Promise<void> => until(() => regionsOf(device).scrubbing === 0);
const isZero = async (volume: Volume, offset: number, length: number): Promise<boolean> =>
  (await readFrom(volume, offset, length)).every((byte) => byte === 0);

it('a larger volume gives its surplus to the unassigned-region table, cleared, and gets it back with its former capacity', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  {
    await using device = await openDevice({ store, create: true, pvSize: PV, lanes: 1 });
    const db = await device.createVolume('db', 10 * MiB);
    const big = await device.createVolume('big', 30 * MiB, { attribute: 'secondary' });
    await writeTo(big, 0, 30 * MiB, 7);
    await writeTo(db, 0, 4 * MiB, 1);
    expect(await device.engine.pairCreate({ primary: 'db', fit: 'regions', plan: true })).toMatchObject({
      plan: true,
      regions: 20,
      destroysBytes: 30 * MiB,
    });
    expect(big.info().capacityBytes).toBe(30 * MiB);
    const pair = await (await db.pair(undefined, { fit: 'regions' })).wait('duplex');
    expect(big.info()).toMatchObject({ capacityBytes: 10 * MiB, formerCapacityBytes: 30 * MiB, regions: 10 });
    await scrubbed(device);
    expect(regionsOf(device)).toEqual({ total: 64, unassigned: 44, scrubbing: 0 });
    await pair.split();
    expect(await checksum(big, 10 * MiB)).toBe(await checksum(db, 10 * MiB));
    // Whoever gets the regions next sees nothing of what was there.
    const next = await device.createVolume('next', 44 * MiB);
    expect(await isZero(next, 0, 44 * MiB)).toBe(true);
    await next.delete();
    await pair.release();
  }
  await using device = await openDevice({ store, lanes: 1 });
  const big = device.volume('big');
  expect(big.info()).toMatchObject({ capacityBytes: 10 * MiB, formerCapacityBytes: 30 * MiB });
  await device.engine.poolRestoreSize({ volume: 'big' });
  expect(big.info()).toMatchObject({ capacityBytes: 30 * MiB, formerCapacityBytes: null, regions: 30 });
  expect(await isZero(big, 10 * MiB, 20 * MiB)).toBe(true);
  expect((await readFrom(big, 0, MiB)).equals(blockOf(0, 4 * MiB, 1).subarray(0, MiB))).toBe(true);
  expect((await failure(device.engine.poolRestoreSize({ volume: 'big' }))).code).toBe('NEVER_FITTED');
  // Made a volume of its own, it keeps its data, and with it its capacity.
  await (await device.volume('db').pair(big, { fit: 'regions' })).wait('duplex');
  await device.engine.pairRelease({ primary: 'db', then: 'normal' });
  for (const plan of [true, false])
    expect((await failure(device.engine.poolRestoreSize({ volume: 'big', plan }))).code).toBe('NOT_IN_POOL');
  expect(big.info()).toMatchObject({ capacityBytes: 10 * MiB, formerCapacityBytes: 30 * MiB, attribute: 'normal' });
});

it('a smaller volume gets the missing regions, can be split and written to its new end, and resynced', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const db = await device.createVolume('db', 20 * MiB);
  const small = await device.createVolume('small', 5 * MiB, { attribute: 'secondary' });
  await writeTo(db, 0, 20 * MiB, 1);
  expect((await failure(db.pair())).code).toBe('NO_CANDIDATE');
  const pair = await (await db.pair(undefined, { fit: 'regions' })).wait('duplex');
  expect(small.info()).toMatchObject({ capacityBytes: 20 * MiB, formerCapacityBytes: 5 * MiB, regions: 20 });
  await pair.split();
  expect(await checksum(small, 20 * MiB)).toBe(await checksum(db, 20 * MiB));
  await writeTo(small, 19 * MiB, 4096, 5);
  expect(pair.status().dirtyBytes.secondary).toBe(65_536);
  await (await pair.resync()).wait('duplex');
  await pair.split();
  expect(await checksum(small, 20 * MiB)).toBe(await checksum(db, 20 * MiB));
});

it('too few regions: refused with what is missing and where it could come from, and nothing changes', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const db = await device.createVolume('db', 40 * MiB);
  await device.createVolume('small', 10 * MiB, { attribute: 'secondary' });
  await device.createVolume('tiny', 4 * MiB, { attribute: 'secondary' });
  const before = device.engine.volumeList();
  const refused = await failure(db.pair(undefined, { fit: 'regions' }));
  expect(refused).toMatchObject({
    code: 'REGIONS_MISSING',
    details: { missingRegions: 20, neededRegions: 30, sources: [{ volume: 'tiny', regions: 4 }] },
  });
  expect(device.engine.volumeList()).toEqual(before);
  expect(regionsOf(device)).toEqual({ total: 64, unassigned: 10, scrubbing: 0 });
  expect(device.status().store.physicalVolumes).toBe(1);
});

it('the choice waits for regions that are being cleared rather than refusing', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const db = await device.createVolume('db', 20 * MiB);
  await device.createVolume('small', 4 * MiB, { attribute: 'secondary' });
  const old = await device.createVolume('old', 40 * MiB);
  await writeTo(old, 0, 40 * MiB, 3);
  await old.delete();
  const pair = await (await db.pair(undefined, { fit: 'regions' })).wait('duplex');
  await pair.split();
  expect(await isZero(device.volume('small'), 0, 20 * MiB)).toBe(true);
});

it('a deleted volume leaves nothing behind for the one that gets its regions, also across a restart', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  {
    await using device = await openDevice({ store, create: true, pvSize: PV, lanes: 1 });
    const old = await device.createVolume('old', 60 * MiB);
    await writeTo(old, 0, 60 * MiB, 8);
    await old.delete();
    // Closed at once: the regions may still be in the list of those to be cleared.
  }
  await using device = await openDevice({ store, lanes: 1 });
  const next = await device.createVolume('next', 60 * MiB);
  expect(await isZero(next, 0, 60 * MiB)).toBe(true);
});

it('what a fitting has left in the last region is gone before the volume gets larger, in whichever way it does', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const half = MiB / 2;
  await device.createVolume('short', 2 * MiB + half);
  await device.createVolume('long', 4 * MiB + half);
  const { engine } = device;
  const ways: Readonly<Record<string, (name: string) => Promise<unknown>>> = {
    grown: async (name) => {
      await engine.pairRelease({ primary: 'short', then: 'normal' });
      await device.volume(name).grow(4 * MiB);
    },
    restored: async (name) => {
      await engine.pairRelease({ primary: 'short' });
      await engine.poolRestoreSize({ volume: name });
    },
    fitted: async (name) => {
      await engine.pairRelease({ primary: 'short' });
      const pair = await (await device.volume('long').pair(device.volume(name), { fit: 'regions' })).wait('duplex');
      await pair.split();
    },
  };
  for (const [name, getLarger] of Object.entries(ways)) {
    const pooled = await device.createVolume(name, 3 * MiB, { attribute: 'secondary' });
    await writeTo(pooled, 0, 3 * MiB, 7);
    await (await device.volume('short').pair(pooled, { fit: 'regions' })).wait('duplex');
    expect(pooled.info()).toMatchObject({ capacityBytes: 2 * MiB + half, regions: 3 });
    await getLarger(name);
    const { capacityBytes } = pooled.info();
    expect([name, capacityBytes > 2 * MiB + half]).toEqual([name, true]);
    expect([name, await isZero(pooled, 0, capacityBytes)]).toEqual([name, true]);
  }
});

it('a device grows by physical volumes when volumes are made or grown, and says so in the plan', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  expect(await device.engine.volumeCreate({ name: 'huge', sizeBytes: 200 * MiB, plan: true })).toMatchObject({
    steps: [expect.stringContaining('4 physical volumes'), expect.any(String)],
  });
  expect(device.status().store.physicalVolumes).toBe(0);
  const huge = await device.createVolume('huge', 200 * MiB);
  await writeTo(huge, 199 * MiB, MiB, 1);
  await huge.grow('300M');
  expect(huge.info()).toMatchObject({ capacityBytes: 300 * MiB, regions: 300 });
  expect((await readFrom(huge, 199 * MiB, MiB)).equals(blockOf(199 * MiB, MiB, 1))).toBe(true);
  expect(await isZero(huge, 200 * MiB, 100 * MiB)).toBe(true);
  expect((await failure(huge.grow('10M'))).code).toBe('CAPACITY_INVALID');
});

it('two operators who choose at the same time get different volumes, and of two who name the same one, one is told', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const primaries = await Promise.all(['a', 'b', 'c', 'd'].map((name) => device.createVolume(name, 4 * MiB)));
  for (const name of ['p', 'q', 'r']) await device.createVolume(name, 4 * MiB, { attribute: 'secondary' });
  const [first, second, third, fourth] = primaries;
  const chosen = await Promise.all([first?.pair(), second?.pair()]);
  expect(new Set(chosen.map((pair) => pair?.status().secondary.name))).toEqual(new Set(['p', 'q']));
  const named = await Promise.allSettled([third, fourth].map(async (primary) => primary?.pair(device.volume('r'))));
  expect(named.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected']);
  expect(named.find((outcome) => outcome.status === 'rejected')).toMatchObject({ reason: { code: 'VOLUME_PAIRED' } });
});

it('volumes made side by side get numbers of their own, and a number in use is not given out again', async () => {
  await using device = await openDevice({ pvSize: PV, lanes: 1 });
  const made = await Promise.all(Array.from({ length: 20 }, (_, index) => device.createVolume(`v${index}`, MiB)));
  expect(new Set(made.map((volume) => volume.number)).size).toBe(20);
  expect((await failure(device.createVolume('v3', MiB))).code).toBe('VOLUME_EXISTS');
  expect((await failure(device.createVolume('3', MiB))).code).toBe('NAME_INVALID');
  expect((await failure(device.createVolume('odd', MiB + 1))).code).toBe('CAPACITY_INVALID');
  const [, , third] = made;
  const number = third?.number;
  await third?.delete();
  expect((await device.createVolume('again', MiB)).number).toBe(number);
});
