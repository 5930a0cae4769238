/**
 * Clients that do not keep to the protocol: noise at every step of the handshake and behind it, thousands of short
 * connections, lengths that nobody could mean. They get an error or the end of the connection; everybody else is served
 * as before, and no descriptor, socket, thread or counted client is left.
 *
 * What once broke: a client that closed between its last option and the answer stayed counted as a live connection.
 */
import { execFileSync } from 'node:child_process';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import type { ClientView } from '../../src/core/views.ts';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeClientFlags, encodeInfoRequest, encodeOption } from '../../src/wire/nbd-handshake.ts';
import {
  badHandshake,
  badRequests,
  Chance,
  isAsBefore,
  openMany,
  throwBytes,
  timeRequests,
  victimOf,
} from '../support/nbd-server-attack.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd, type RawMode } from '../support/nbd-server-raw.ts';

const MiB = 2 ** 20;
/** Under attack, on a machine that others use as well. */
const WORST_MS_MAX = 1000;
/** In the protocol, and not offered. */
const COMMAND_RESIZE = 8;
const MODES: readonly RawMode[] = ['simple', 'structured', 'extended'];

const start = (native: boolean, more: object = {}): Promise<NbdServerProcess> =>
  startNbdServer({ native, volumes: [{ name: 'v', capacityBytes: 64 * MiB }], ...more });

/** Runs `attack` with `width` connections at a time. */
const inParallel = async (count: number, width: number, attack: (index: number) => Promise<void>): Promise<void> => {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await attack(next);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
};

const lostWorkers = (server: NbdServerProcess): number => server.events.filter(({ name }) => name === 'workerLost').length;

const expectUnharmed = async (server: NbdServerProcess, before: Awaited<ReturnType<NbdServerProcess['figures']>>): Promise<void> => {
  await server.settled(isAsBefore(before), 8000);
  expect(lostWorkers(server)).toBe(0);
  await using client = await connect(server.uri('v'));
  await client.write(12_345, Buffer.from('still here'));
  expect((await client.read(12_345, 10)).toString()).toBe('still here');
};

it.each(BOTH_KINDS)('3,000 handshakes of noise, broken options and cut bytes harm nobody: $kind', async ({ native }) => {
  await using server = await start(native);
  const victim = await victimOf(server);
  await victim.read(0, 1);
  const before = await server.figures();
  const chance = new Chance(1);
  const attack = inParallel(3000, 40, () => throwBytes(server.socketPath, badHandshake(chance), chance.pick([0, 2, 20])));
  const latency = await timeRequests(victim, attack);
  expect(latency.worstMs).toBeLessThan(WORST_MS_MAX);
  await server.settled(isAsBefore(before), 8000);
  expect(await server.call<number>('clientCount')).toBe(1);
  await victim.disconnect();
  await expectUnharmed(server, before);
});

it.each(BOTH_KINDS)('[client-garbage] 1,200 connections that send broken requests harm nobody: $kind', async ({ native }) => {
  await using server = await start(native);
  const victim = await victimOf(server);
  // The worker for long ranges of zeros is started when it is first needed, and stays.
  await victim.trim(0, MiB);
  await victim.write(0, Buffer.alloc(MiB, 1));
  await victim.trim(0, MiB);
  const before = await server.figures();
  const chance = new Chance(2);
  const attack = inParallel(1200, 24, async () => {
    const mode = chance.pick(MODES);
    using raw = await RawNbd.connect({ path: server.socketPath }, 'v', { mode }).catch(() => ({
      socket: null,
      [Symbol.dispose]: () => {},
    }));
    raw.socket?.write(badRequests(chance, mode));
    await sleep(chance.pick([0, 1, 5]));
  });
  const latency = await timeRequests(victim, attack);
  expect(latency.worstMs).toBeLessThan(WORST_MS_MAX);
  await server.settled(isAsBefore(before), 8000);
  await victim.disconnect();
  await expectUnharmed(server, before);
});

it('every request that can be answered is, whatever its numbers; what cannot be followed ends the connection', async () => {
  await using server = await start(true);
  for (const mode of MODES) {
    using raw = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
    const beyond = mode === 'simple' ? nbd.NBD_EINVAL : nbd.NBD_EOVERFLOW;
    const read = (offset: number, length: number): Promise<number> =>
      raw.ask({ type: nbd.NBD_CMD_READ, offset, length }).then(({ errno }) => errno);
    expect(await read(64 * MiB, 1)).toBe(nbd.NBD_EINVAL);
    expect(await read(64 * MiB - 1, 2)).toBe(nbd.NBD_EINVAL);
    expect(await read(2 ** 52, 4096)).toBe(nbd.NBD_EINVAL);
    expect(await read(0, 0)).toBe(nbd.NBD_EINVAL);
    expect(await read(0, 33 * MiB)).toBe(beyond);
    expect((await raw.ask({ type: nbd.NBD_CMD_TRIM, offset: 1, length: 0xffff_ffff })).errno).toBe(nbd.NBD_EINVAL);
    expect((await raw.ask({ type: nbd.NBD_CMD_WRITE_ZEROES, offset: 64 * MiB, length: 1 })).errno).toBe(nbd.NBD_ENOSPC);
    expect((await raw.ask({ type: nbd.NBD_CMD_WRITE, offset: 64 * MiB - 2, payload: Buffer.alloc(4) })).errno).toBe(nbd.NBD_ENOSPC);
    expect((await raw.ask({ type: nbd.NBD_CMD_FLUSH, offset: 1 })).errno).toBe(nbd.NBD_EINVAL);
    expect((await raw.ask({ type: COMMAND_RESIZE, offset: 1, length: 1 })).errno).toBe(nbd.NBD_EINVAL);
    expect((await raw.ask({ type: nbd.NBD_CMD_READ, flags: 0x8000, offset: 0, length: 1 })).errno).toBe(nbd.NBD_EINVAL);
    expect((await raw.ask({ type: nbd.NBD_CMD_READ, offset: 0, length: 1 })).errno).toBe(0);
    // A payload of 32 MiB and one byte is not taken, so the stream cannot be followed behind it.
    raw.send({ type: nbd.NBD_CMD_WRITE, offset: 0, length: 32 * MiB + 1, payload: Buffer.alloc(1) });
    await expect(raw.reply()).rejects.toThrow(/closed/);
  }
});

it('with DF a long read comes in one chunk, also where it crosses runs and files', async () => {
  await using server = await start(true);
  using raw = await RawNbd.connect({ path: server.socketPath }, 'v', { mode: 'structured' });
  expect(raw.transmissionFlags & nbd.NBD_FLAG_SEND_DF).not.toBe(0);
  const whole = await raw.ask({ type: nbd.NBD_CMD_READ, flags: nbd.NBD_CMD_FLAG_DF, offset: 1000, length: 9 * MiB });
  expect([whole.errno, whole.dataChunks, whole.data?.length]).toEqual([0, 1, 9 * MiB]);
  const parts = await raw.ask({ type: nbd.NBD_CMD_READ, offset: 1000, length: 9 * MiB });
  expect(parts.dataChunks).toBeGreaterThan(1);
});

it.each(BOTH_KINDS)('a storm of 1,000 clients that connect and are gone at once leaves nothing: $kind', async ({ native }) => {
  await using server = await start(native, { tcp: true });
  const victim = await victimOf(server);
  await victim.read(0, 1);
  const before = await server.figures();
  const go = Buffer.concat([encodeClientFlags(3), encodeOption(nbd.NBD_OPT_GO, encodeInfoRequest('v', []))]);
  const storm = inParallel(1000, 100, async (index) => {
    // A reset can be had on TCP only.
    const isReset = index % 2 === 0;
    const socket = isReset ? net.connect(server.tcpPort, '127.0.0.1') : net.connect(server.socketPath);
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('connect', resolve));
    // Gone before the greeting, after half an option, or between the last option and its answer.
    if (index % 3 === 1) socket.write(go.subarray(0, 20));
    if (index % 3 === 2) socket.write(go);
    if (isReset) socket.resetAndDestroy();
    else socket.destroy();
  });
  const latency = await timeRequests(victim, storm);
  expect(latency.worstMs).toBeLessThan(WORST_MS_MAX);
  await server.settled(isAsBefore(before), 8000);
  // The last of them may still wait to be accepted when the figures are as before.
  await vi.waitFor(async () => {
    expect(await server.call<readonly ClientView[]>('clients')).toHaveLength(1);
    expect(await server.call<number>('clientCount')).toBe(1);
    expect(await server.call<number>('clientCount', 1)).toBe(1);
  }, 5000);
  await victim.disconnect();
  await expectUnharmed(server, before);
});

it.each(BOTH_KINDS)('700 clients that stay in the handshake keep nobody out: $kind', async ({ native }) => {
  await using server = await start(native, { lanes: 1, deadlines: { handshakeMs: 60_000 } });
  const before = await server.figures();
  const idle = await Promise.all(Array.from({ length: 700 }, () => RawNbd.open({ path: server.socketPath })));
  const startedMs = performance.now();
  await using client = await connect(server.uri('v'));
  await client.read(0, 4096);
  expect(performance.now() - startedMs).toBeLessThan(2000);
  await server.settled(({ sockets }) => sockets <= before.sockets + 512 + 2, 3000);
  for (const raw of idle) raw.destroy();
});

it('1,000 idle connections to 100 exports cost at most 16 KiB each, and give all of it back', async () => {
  const volumes = Array.from({ length: 100 }, (_, index) => ({ name: `v${index}`, capacityBytes: MiB }));
  await using server = await startNbdServer({ volumes });
  const victim = await victimOf(server, 'v0');
  // What the first connections bring into memory once (code, tables) is not the cost of a connection.
  for (const raw of await openMany(server, 400, (index) => `v${index % 100}`)) raw.destroy();
  await sleep(500);
  await server.call('collectGarbage');
  const before = await server.figures();
  const idle = await openMany(server, 1000, (index) => `v${index % 100}`);
  expect(await server.call<number>('clientCount')).toBe(1001);
  expect(await server.call<number>('clientCount', 7)).toBe(10);
  await sleep(1000);
  const during = await server.figures();
  const eachBytes = (during.residentBytes - before.residentBytes) / 1000;
  console.log(`memory of an idle connection: ${(eachBytes / 1024).toFixed(1)} KiB`);
  expect(eachBytes).toBeLessThan(16 * 1024);
  expect(during.threads).toBe(before.threads);
  const latency = await timeRequests(victim, sleep(500));
  expect(latency.medianMs).toBeLessThan(20);
  // A third of them by the operator's command, the rest by themselves.
  for (let volume = 1; volume <= 33; volume += 1) await server.call('clientsEnd', { volume });
  for (const raw of idle) raw.destroy();
  await server.settled(({ sockets }) => sockets <= before.sockets, 8000);
  const list = await server.call<readonly ClientView[]>('clients');
  expect(list.length).toBeLessThanOrEqual(1);
  expect(await server.call<number>('clientCount')).toBe(list.length);
});

it('a client that asks for list after list and reads none is cut off before it takes much memory', async () => {
  const volumes = Array.from({ length: 2000 }, (_, index) => ({
    name: `volume-with-a-rather-long-name-${'x'.repeat(80)}-${index}`,
    capacityBytes: MiB,
  }));
  await using server = await startNbdServer({ volumes });
  const before = await server.figures();
  const clients = await Promise.all(Array.from({ length: 20 }, () => RawNbd.open({ path: server.socketPath })));
  for (const raw of clients) {
    raw.socket.pause();
    raw.socket.write(Buffer.concat([encodeClientFlags(3), ...Array.from({ length: 60 }, () => encodeOption(nbd.NBD_OPT_LIST))]));
  }
  const cut = (): number => server.events.filter(({ detail }) => detail.reason === 'handshake-not-read').length;
  for (let waitedMs = 0; cut() < 20 && waitedMs < 8000; waitedMs += 50) await sleep(50);
  expect(cut()).toBe(20);
  expect((await server.figures()).residentBytes - before.residentBytes).toBeLessThan(200 * MiB);
  for (const raw of clients) raw.destroy();
});

it.each(BOTH_KINDS)(
  '[descriptors-out] when descriptors run out, new clients are turned away, and the engine and its clients go on: $kind',
  async ({ native }) => {
    await using server = await start(native);
    const { descriptors } = await server.figures();
    // Before the first connection, which is when the server looks at its limit.
    execFileSync('prlimit', ['--pid', String(server.pid), `--nofile=${descriptors + 200}:${descriptors + 200}`]);
    const victim = await victimOf(server);
    const many = await Promise.all(Array.from({ length: 500 }, () => RawNbd.open({ path: server.socketPath }).catch(() => null)));
    await sleep(300);
    const { descriptors: used } = await server.figures();
    expect(used).toBeLessThan(descriptors + 190);
    await victim.write(0, Buffer.alloc(MiB, 3), { fua: true });
    await victim.writeZeroes(0, MiB);
    for (const raw of many) raw?.destroy();
    await server.settled((figures) => figures.descriptors < descriptors + 20, 5000);
    await using late = await connect(server.uri('v'));
    expect((await late.read(0, 1))[0]).toBe(0);
    await victim.disconnect();
  },
);
