/**
 * Clients that go while replies are outstanding (NBD specification, NBD_CMD_DISC: all outstanding requests are handled),
 * and clients that ask and never read: the ones get all that they are owed, the others cost a bounded memory.
 *
 * What once broke: a client that shut its writing side down behind its goodbye, as libnbd does, got none of its replies;
 * one that read them three seconds late got a part; replies that waited for their client were in no budget.
 */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { BOTH_KINDS, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd } from '../support/nbd-server-raw.ts';
import { faultRule } from '../support/plane-bench.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const CAPACITY_BYTES = 64 * MiB;
const MODES = ['simple', 'structured', 'extended'] as const;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const repliesTo = async (client: RawNbd, cookies: Iterable<number>): Promise<void> => {
  const open = new Set(cookies);
  while (open.size > 0) {
    const { cookie, errno } = await client.reply();
    expect([open.delete(cookie), errno]).toEqual([true, 0]);
  }
  await client.ended();
};

describe.each(BOTH_KINDS)('$kind', ({ native }) => {
  it.each(MODES)('a client that closes its side gets its replies, with a goodbye and without (%s)', async (mode) => {
    await using server = await startNbdServer({ native, durability: 'power', volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }] });
    for (const saysGoodbye of [true, false]) {
      using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
      const cookies: number[] = [];
      for (let index = 0; index < 20; index += 1) {
        const payload = Buffer.alloc(64 * KiB, index);
        cookies.push(client.send({ type: nbd.NBD_CMD_WRITE, flags: nbd.NBD_CMD_FLAG_FUA, offset: index * MiB, payload }));
        cookies.push(client.send({ type: nbd.NBD_CMD_READ, offset: 32 * MiB, length: index === 7 ? 9 * MiB : 100 * KiB }));
      }
      cookies.push(client.send({ type: nbd.NBD_CMD_FLUSH }));
      if (saysGoodbye) client.send({ type: nbd.NBD_CMD_DISC });
      // Half of a request is none.
      else client.socket.write(client.encode({ type: nbd.NBD_CMD_FLUSH }).subarray(0, 11));
      client.socket.end();
      await repliesTo(client, cookies);
    }
    await expect.poll(() => server.call('clientCount'), { timeout: 5000 }).toBe(0);
  });

  it('a client that reads late after its goodbye gets all of it; one that is told to go does not keep others waiting', async () => {
    await using server = await startNbdServer({ native, volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }] });
    const [late, never] = [await RawNbd.connect({ path: server.socketPath }, 'v'), await RawNbd.connect({ path: server.socketPath }, 'v')];
    const cookies: number[] = [];
    for (const client of [late, never]) {
      client.socket.pause();
      for (let index = 0; index < 60; index += 1) {
        const cookie = client.send({ type: nbd.NBD_CMD_READ, offset: index * KiB, length: 16 * KiB });
        if (client === late) cookies.push(cookie);
      }
      client.send({ type: nbd.NBD_CMD_DISC });
    }
    await sleep(4500);
    late.socket.resume();
    await repliesTo(late, cookies);
    const beganMs = performance.now();
    expect(await server.call('clientsEnd', {})).toBe(1);
    expect(performance.now() - beganMs).toBeLessThan(10_000);
    never.socket.destroy();
    late.socket.destroy();
  });
});

it.each(MODES)('long reads that a rule puts off go out whole, one after the other, with short ones around them (%s)', async (mode) => {
  await using server = await startNbdServer({ native: true, lanes: 1, volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }] });
  using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
  for (let at = 0; at < 16; at += 1)
    expect((await client.ask({ type: nbd.NBD_CMD_WRITE, offset: at * MiB, payload: Buffer.alloc(MiB, at + 1) })).errno).toBe(0);
  await server.call('faultsSet', 1, [faultRule({ volume: 1, error: 'read', errno: 'none', latencyMs: 30 })]);
  const asked = new Map<number, number>();
  for (let index = 0; index < 200; index += 1) {
    const at = index % 16;
    const length = index % 3 === 0 ? MiB : 3000;
    asked.set(client.send({ type: nbd.NBD_CMD_READ, offset: at * MiB, length }), at);
    if (index % 20 === 0) await sleep(25);
  }
  while (asked.size > 0) {
    const { cookie, errno, data } = await client.reply();
    expect([errno, data?.every((byte) => byte === (asked.get(cookie) ?? -1) + 1)]).toEqual([0, true]);
    asked.delete(cookie);
  }
});

it('clients that ask and never read cost a bounded memory, and nobody else his place', async () => {
  await using server = await startNbdServer({
    native: true,
    lanes: 1,
    volumes: ['v', 'w'].map((name) => ({ name, capacityBytes: CAPACITY_BYTES })),
  });
  await server.call('faultsSet', 1, [faultRule({ volume: 1, error: 'read', errno: 'none', latencyMs: 50 })]);
  const before = (await server.figures()).residentBytes;
  using other = await RawNbd.connect({ path: server.socketPath }, 'w');
  const silent: RawNbd[] = [];
  for (let index = 0; index < 40; index += 1) {
    const client = await RawNbd.connect({ path: server.socketPath }, 'v');
    client.socket.pause();
    client.send({ type: nbd.NBD_CMD_READ, length: 32 * MiB });
    for (let request = 0; request < 120; request += 1) client.send({ type: nbd.NBD_CMD_READ, offset: request, length: 256 * KiB });
    silent.push(client);
    const beganMs = performance.now();
    expect((await other.ask({ type: nbd.NBD_CMD_READ, length: 4 * KiB })).errno).toBe(0);
    expect(performance.now() - beganMs).toBeLessThan(2000);
  }
  await sleep(1000);
  // Together they asked for 2.4 GiB; a lane holds 96 MiB, and for each connection what its socket was given.
  expect((await server.figures()).residentBytes - before).toBeLessThan(300 * MiB);
  for (const client of silent) client.socket.destroy();
});
