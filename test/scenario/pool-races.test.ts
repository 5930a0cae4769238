/** Many commands at once: each gets a volume of its own while there are any, and none meets a fault of the tables. */
import { expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const COUNT = 40;

it('as many pairs as there are candidates can be formed at the same time', async () => {
  await using temporary = await temporaryDirectory();
  await using device = await openDevice({ store: temporary.path('store'), create: true, pvSize: '256M', lanes: 1 });
  for (let index = 0; index < COUNT; index += 1) {
    await device.createVolume(`p${index}`, MiB);
    await device.createVolume(`s${index}`, MiB, { attribute: 'secondary' });
  }
  const formed = await Promise.allSettled(Array.from({ length: COUNT }, (_, index) => device.engine.pairCreate({ primary: `p${index}` })));
  expect(formed.filter(({ status }) => status === 'rejected')).toEqual([]);
  expect(new Set(device.engine.pairStatus().map(({ secondary }) => secondary.name)).size).toBe(COUNT);
});

it('regions are fitted while other volumes are deleted', async () => {
  await using temporary = await temporaryDirectory();
  await using device = await openDevice({ store: temporary.path('store'), create: true, pvSize: '256M', lanes: 1 });
  for (let round = 0; round < 30; round += 1) {
    await device.createVolume('p', 2 * MiB);
    await device.createVolume('l', 4 * MiB, { attribute: 'secondary' });
    await device.createVolume('d', MiB);
    const ran = await Promise.allSettled([
      device.engine.pairCreate({ primary: 'p', secondary: 'l', fit: 'regions' }),
      device.engine.volumeDelete({ volume: 'd' }),
    ]);
    expect(ran.map((one) => (one.status === 'rejected' ? one.reason : 'ok'))).toEqual(['ok', 'ok']);
    await device.engine.pairRelease({ primary: 'p' });
    for (const volume of ['p', 'l']) await device.engine.volumeDelete({ volume });
  }
});
