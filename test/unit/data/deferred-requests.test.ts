/** Requests that are carried out later: what they hold is bounded, and each connection goes on when one of its own is done. */
import { expect, it } from 'vitest';
import { MiB } from '../../../src/core/units.ts';
import { faultRule, PlaneBench } from '../../support/plane-bench.ts';

const CLIENTS = 6;
const REQUESTS = 24;

it('more than a lane may hold at once is taken bit by bit, and all of it is answered', async () => {
  await using bench = await PlaneBench.open({ regions: 32, lanes: 1, volumes: 1 });
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => bench.connect(1)));
  await bench.plane.faultsSet(1, [faultRule({ volume: 1, errno: 'none', latencyMs: 40 })]);
  const writes = clients.flatMap((client, index) =>
    Array.from({ length: REQUESTS }, (_, request) => {
      const at = (index * REQUESTS + request) % 32;
      return client.write(at * MiB, Buffer.alloc(MiB, at + 1));
    }),
  );
  await Promise.all(writes);
  expect(Array.from({ length: 32 }, (_, at) => bench.content(1)[at * MiB])).toEqual(Array.from({ length: 32 }, (_, at) => at + 1));
  await bench.plane.faultsSet(1, [faultRule({ volume: 1, error: 'read', errno: 'none', latencyMs: 40 })]);
  const read = await Promise.all(
    clients.flatMap((client) => Array.from({ length: REQUESTS }, (_, at) => client.read(at * MiB, 256 * 1024).then((bytes) => bytes[0]))),
  );
  expect(read).toEqual(clients.flatMap(() => Array.from({ length: REQUESTS }, (_, at) => at + 1)));
  for (const client of clients) await client.disconnect();
});
