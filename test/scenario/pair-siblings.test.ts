/** Several secondaries of one primary, and pairs that are split together. */
import { expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import type { Pair, Volume } from '../../src/index.ts';
import { MiB } from '../../src/core/units.ts';
import { checksum, failure, VOLUME_BYTES, writeTo } from '../support/pair-device.ts';

it('three secondaries of one primary have a state, a pointer and a bitmap each', async () => {
  await using device = await openDevice({ pvSize: '1G', lanes: 2 });
  const db = await device.createVolume('db', VOLUME_BYTES);
  const copies = await Promise.all(['a', 'b', 'c'].map((name) => device.createVolume(name, VOLUME_BYTES, { attribute: 'secondary' })));
  await writeTo(db, 0, 2 * MiB, 1);
  const pairs = await Promise.all(copies.map(() => db.pair()));
  expect(new Set(pairs.map((pair) => pair.status().secondary.name))).toEqual(new Set(['a', 'b', 'c']));
  for (const pair of pairs) await pair.wait('duplex');
  expect((await failure(device.engine.pairSplit({ primary: 'db' }))).code).toBe('PAIR_AMBIGUOUS');
  const images: string[] = [];
  for (const [round, pair] of pairs.entries()) {
    await writeTo(db, round * MiB, 4096, round + 10);
    await pair.split();
    images.push(await checksum(db));
  }
  await writeTo(db, 0, VOLUME_BYTES, 99);
  for (const [index, pair] of pairs.entries()) expect(await checksum(device.volume(pair.status().secondary.name))).toBe(images[index]);
  expect(new Set(images).size).toBe(3);
});

it('a restore from one secondary makes what it changes dirty for the others, which must not be copying', async () => {
  await using device = await openDevice({ pvSize: '1G', lanes: 2 });
  const db = await device.createVolume('db', VOLUME_BYTES);
  await device.createVolume('old', VOLUME_BYTES, { attribute: 'secondary' });
  await device.createVolume('new', VOLUME_BYTES, { attribute: 'secondary' });
  await writeTo(db, 0, MiB, 1);
  const older = await (await db.pair(device.volume('old'))).wait('duplex');
  const newer = await (await db.pair(device.volume('new'))).wait('duplex');
  await older.split();
  const image = await checksum(db);
  await writeTo(db, 4 * MiB, MiB, 2);
  expect(await failure(older.restore())).toMatchObject({ code: 'PAIR_STATE', message: expect.stringContaining('db -> new') });
  await newer.split();
  await (await older.restore()).wait('duplex');
  expect(await checksum(db)).toBe(image);
  expect(newer.status().dirtyBytes.primary).toBe(MiB);
  await (await newer.resync()).wait('duplex');
  await newer.split();
  expect(await checksum(device.volume('new'))).toBe(image);
});

it('a group is split at one point in time: what is on the secondaries is a prefix of what was written across them', async () => {
  await using device = await openDevice({ pvSize: '1G', lanes: 2 });
  const members: Array<{ readonly primary: Volume; readonly pair: Pair }> = [];
  for (const name of ['x', 'y', 'z']) {
    const primary = await device.createVolume(name, VOLUME_BYTES);
    await device.createVolume(`${name}-copy`, VOLUME_BYTES, { attribute: 'secondary' });
    members.push({ primary, pair: await (await primary.pair()).wait('duplex') });
  }
  // Write n goes to member n % 3; it is issued only when write n - 1 was acknowledged.
  const clients = await Promise.all(members.map(({ primary }) => primary.connect()));
  let isSplit = false;
  let written = 0;
  const writing = (async () => {
    for (; !isSplit && written < 6000; written += 1) {
      const record = Buffer.alloc(512);
      record.writeUInt32LE(written + 1, 0);
      await clients[written % 3]?.write(Math.floor(written / 3) * 512, record);
    }
  })();
  while (written < 300) await new Promise((resolve) => setTimeout(resolve, 1));
  const before = written;
  await device.splitTogether(
    'trio',
    members.map(({ pair }) => pair),
  );
  const after = written;
  isSplit = true;
  await writing;
  const found = new Set<number>();
  for (const { pair } of members) {
    const image = await device.volume(pair.status().secondary.name).connect();
    const bytes = await image.read(0, 2000 * 512);
    for (let at = 0; at < bytes.length; at += 512) if (bytes.readUInt32LE(at) !== 0) found.add(bytes.readUInt32LE(at));
    await image.disconnect();
  }
  const last = Math.max(...found);
  expect(found.size).toBe(last);
  expect(last).toBeGreaterThanOrEqual(before);
  expect(last).toBeLessThanOrEqual(after + 1);
  for (const client of clients) await client.disconnect();
});

it('a group is split all or not at all', async () => {
  await using device = await openDevice({ pvSize: '1G', lanes: 1 });
  const pairs: Pair[] = [];
  for (const name of ['x', 'y']) {
    const primary = await device.createVolume(name, VOLUME_BYTES);
    await device.createVolume(`${name}-copy`, VOLUME_BYTES, { attribute: 'secondary' });
    pairs.push(await (await primary.pair()).wait('duplex'));
  }
  await device.engine.groupCreate({ name: 'duo' });
  for (const primary of ['x', 'y']) await device.engine.groupAdd({ name: 'duo', primary });
  expect((await failure(device.engine.groupAdd({ name: 'duo', primary: 'x' }))).code).toBe('PAIR_GROUPED');
  await pairs[1]?.split();
  expect(await failure(device.engine.groupSplit({ name: 'duo' }))).toMatchObject({
    code: 'PAIR_STATE',
    message: expect.stringMatching(/none of its pairs.*y -> y-copy/),
  });
  expect(pairs.map((pair) => pair.state)).toEqual(['duplex', 'split']);
  await (await pairs[1]?.resync())?.wait('duplex');
  expect(await device.engine.groupSplit({ name: 'duo' })).toMatchObject([{ state: 'split', group: 'duo' }, { state: 'split' }]);
  await pairs[0]?.release();
  expect(device.engine.groupList()).toEqual([{ name: 'duo', pairs: [pairs[1]?.id] }]);
});
