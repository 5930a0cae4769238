/** Long ranges of zeros: a client's many keep nobody else waiting, and what has not begun ends with the client. */
import { expect, it } from 'vitest';
import { MiB } from '../../../src/core/units.ts';
import type { Connection } from '../../../src/data/connection.ts';
import { ZeroQueue } from '../../../src/data/zero-queue.ts';
import { NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES } from '../../../src/wire/nbd-constants.ts';
import { PlaneBench } from '../../support/plane-bench.ts';
import { RawNbd } from '../../support/nbd-server-raw.ts';

const connections = ['a', 'b'].map((id) => ({ id }) as unknown as Connection);

it('takes parts from each connection in turn, a few at one time, and forgets who is gone', () => {
  const [a, b] = connections as [Connection, Connection];
  const queue = new ZeroQueue();
  const begun: string[] = [];
  for (let part = 0; part < 6; part += 1) queue.add(a, () => begun.push(`a${part}`));
  for (let part = 0; part < 2; part += 1) queue.add(b, () => begun.push(`b${part}`));
  expect(begun).toEqual(['a0', 'a1', 'a2', 'a3']);
  queue.done();
  queue.done();
  expect(begun.slice(4)).toEqual(['a4', 'b0']);
  queue.forget(a);
  for (let part = 0; part < 6; part += 1) queue.done();
  expect(begun.slice(6)).toEqual(['b1']);
});

it('of a client that is gone are not carried out, and nobody waits for them', async () => {
  await using bench = await PlaneBench.open({ regions: 256, lanes: 1, volumes: 2 });
  const flood = await RawNbd.connect({ path: bench.socketPath }, 'volume-1', { mode: 'simple' });
  for (let request = 0; request < 250; request += 1)
    flood.send({ type: NBD_CMD_WRITE_ZEROES, flags: NBD_CMD_FLAG_NO_HOLE, offset: 0, length: 256 * MiB });
  await expect.poll(() => bench.plane.clients().then(([client]) => client?.requests ?? 0)).toBeGreaterThan(200);
  flood.socket.destroy();
  const other = await bench.connect(2);
  await other.write(0, Buffer.alloc(MiB, 1));
  const beganMs = performance.now();
  await other.trim(0, MiB);
  expect(performance.now() - beganMs).toBeLessThan(6000);
  await expect.poll(() => bench.plane.clientCount(1), { timeout: 20_000 }).toBe(0);
  await other.disconnect();
  await bench.plane.close();
  expect(performance.now() - beganMs).toBeLessThan(30_000);
});
