/**
 * Clients that do not send the payload they announced, or do not read what they asked for: together they take no more
 * memory than the lane's budget for large buffers, and nobody else waits for them for long.
 *
 * What once broke: eight announced payloads of 32 MiB that never came kept all other large requests of the lane waiting
 * for two minutes; a thousand half requests, or as many writes of 64 KiB by anybody, kept them waiting for ever.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { openMany, timeRequests, victimOf } from '../support/nbd-server-attack.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';

const MiB = 2 ** 20;
const CAPACITY_BYTES = 128 * MiB;
const PAYLOAD_BYTES_MAX = 32 * MiB;
/** A lane's budget for large buffers, and what may come on top: rests, replies, free buffers, the collector's delay. */
const LANE_BYTES_MAX = 128 * MiB + 80 * MiB;

const start = (native: boolean): Promise<NbdServerProcess> =>
  startNbdServer({ native, lanes: 1, volumes: ['v', 'w'].map((name) => ({ name, capacityBytes: CAPACITY_BYTES })) });

const reasons = (server: NbdServerProcess): unknown[] =>
  server.events.filter(({ name }) => name === 'clientClosed').map(({ detail }) => detail.reason);

/** The most that the server's memory grows over `before` while `during` runs. */
const growthDuring = async (server: NbdServerProcess, beforeBytes: number, during: Promise<unknown>): Promise<number> => {
  let isOver = false;
  let worst = 0;
  const over = during.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    worst = Math.max(worst, (await server.figures()).residentBytes - beforeBytes);
    await sleep(25);
  }
  await over;
  return worst;
};

describe.each(BOTH_KINDS)('$kind', ({ native }) => {
  it('clients that ask for 6 GiB and read none of it cost a bounded amount, and nobody else waits', async () => {
    await using server = await start(native);
    const victim = await victimOf(server);
    // The one that is timed writes into the first 4 KiB.
    await victim.write(4096, Buffer.alloc(PAYLOAD_BYTES_MAX, 7));
    const before = await server.figures();
    const greedy = await openMany(server, 60, () => 'v');
    const attack = (async () => {
      for (const raw of greedy) {
        raw.socket.pause();
        for (let index = 0; index < 4; index += 1) raw.send({ type: nbd.NBD_CMD_READ, offset: 0, length: PAYLOAD_BYTES_MAX });
      }
      await sleep(500);
      // A large read of somebody else gets through beside them.
      expect((await victim.read(4096, PAYLOAD_BYTES_MAX)).every((byte) => byte === 7)).toBe(true);
      await sleep(500);
    })();
    const growth = growthDuring(server, before.residentBytes, attack);
    const latency = await timeRequests(await victimOf(server), attack);
    expect(await growth).toBeLessThan(LANE_BYTES_MAX);
    expect(latency.worstMs).toBeLessThan(1000);
    for (const raw of greedy) raw.destroy();
    await victim.disconnect();
    await server.settled(({ sockets }) => sockets <= before.sockets + 1, 5000);
  });

  it('300 announced payloads of 32 MiB that never come take little memory and keep no large write waiting', async () => {
    await using server = await start(native);
    const victim = await victimOf(server);
    const before = await server.figures();
    const liars = await openMany(server, 300, () => 'v');
    for (const raw of liars)
      raw.socket.write(raw.encode({ type: nbd.NBD_CMD_WRITE, length: PAYLOAD_BYTES_MAX, payload: Buffer.alloc(100) }));
    await sleep(300);
    const startedMs = performance.now();
    await victim.write(0, Buffer.alloc(PAYLOAD_BYTES_MAX, 9));
    const tookMs = performance.now() - startedMs;
    expect(tookMs).toBeLessThan(6000);
    expect((await server.figures()).residentBytes - before.residentBytes).toBeLessThan(LANE_BYTES_MAX);
    expect((await victim.read(PAYLOAD_BYTES_MAX - 1, 1))[0]).toBe(9);
    for (const raw of liars) raw.destroy();
    await victim.disconnect();
    await server.settled(({ sockets }) => sockets < before.sockets, 5000);
  });

  it('200 clients that stop in the middle of a long payload take no room from others', async () => {
    await using server = await start(native);
    const before = await server.figures();
    const hoarders = await openMany(server, 200, () => 'v');
    for (const raw of hoarders)
      raw.socket.write(raw.encode({ type: nbd.NBD_CMD_WRITE, length: PAYLOAD_BYTES_MAX, payload: Buffer.alloc(1_500_000, 1) }));
    await sleep(1000);
    await using victim = await connect({ uri: server.uri('v'), connections: 2 });
    const work = (async () => {
      for (let round = 0; round < 3; round += 1) {
        await Promise.all(
          [0, 1, 2].map((index) => victim.write(index * PAYLOAD_BYTES_MAX, Buffer.alloc(PAYLOAD_BYTES_MAX, round + index + 2))),
        );
      }
    })();
    expect(await growthDuring(server, before.residentBytes, work)).toBeLessThan(LANE_BYTES_MAX);
    expect(reasons(server)).not.toContain('too-slow');
    for (const [index, byte] of [4, 5, 6].entries()) expect((await victim.read(index * PAYLOAD_BYTES_MAX, 1))[0]).toBe(byte);
    for (const raw of hoarders) raw.destroy();
  });

  it('700 clients that take nothing of a long reply are cut off when others need the room', async () => {
    await using server = await start(native);
    const before = await server.figures();
    const hoarders: Awaited<ReturnType<typeof openMany>> = [];
    // Bit by bit: who is long in the handshake while others come is turned away.
    while (hoarders.length < 700) hoarders.push(...(await openMany(server, 100, (index) => (index % 2 === 0 ? 'v' : 'w'))));
    for (const raw of hoarders) raw.socket.pause();
    for (const raw of hoarders) raw.socket.write(raw.encode({ type: nbd.NBD_CMD_READ, length: PAYLOAD_BYTES_MAX }));
    await sleep(1000);
    await using victim = await connect({ uri: server.uri('v'), connections: 2 });
    const work = Promise.all([0, 1, 2].map((index) => victim.read(index * PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX)));
    expect(await growthDuring(server, before.residentBytes, work)).toBeLessThan(LANE_BYTES_MAX);
    expect(reasons(server)).toContain('too-slow');
    for (const raw of hoarders) raw.destroy();
  });

  it('writers that are all honest and all large get on, however many they are', async () => {
    await using server = await start(native);
    const clients = await Promise.all(Array.from({ length: 24 }, () => connect(server.uri('v'))));
    const data = Buffer.alloc(PAYLOAD_BYTES_MAX, 5);
    await Promise.all(
      clients.flatMap((client, index) => [
        client.write((index % 4) * PAYLOAD_BYTES_MAX, data),
        client.write(((index + 1) % 4) * PAYLOAD_BYTES_MAX, data),
      ]),
    );
    expect(reasons(server)).toEqual([]);
    await Promise.all(clients.map((client) => client.disconnect()));
  });
});
