/**
 * Ending connections: the shutdown error for what is asked after that, answers for what was under way, and the end of
 * the connection in bounded time. By the operator for one client or volume, and when the device drains.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { ClientView } from '../../src/core/views.ts';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd, type RawMode } from '../support/nbd-server-raw.ts';

const MiB = 2 ** 20;
const MODES: readonly RawMode[] = ['simple', 'structured', 'extended'];

const start = (native: boolean): Promise<NbdServerProcess> =>
  startNbdServer({
    native,
    tcp: true,
    durability: 'power',
    volumes: [
      { name: 'v', capacityBytes: 64 * MiB },
      { name: 'w', capacityBytes: 64 * MiB },
    ],
  });

/** Asks one thing after another until the connection ends; the errors in the order in which they came, each once. */
const errorsUntilEnd = async (raw: RawNbd): Promise<number[]> => {
  const errors: number[] = [];
  for (;;) {
    try {
      const { errno } = await raw.ask({ type: nbd.NBD_CMD_WRITE, offset: 0, payload: Buffer.alloc(4096, 1) });
      if (errors.at(-1) !== errno) errors.push(errno);
    } catch {
      return errors;
    }
  }
};

describe.each(BOTH_KINDS)('$kind', ({ native }) => {
  it.each(MODES)('a drain answers with the shutdown error, then ends the connection: %s', async (mode) => {
    await using server = await start(native);
    using busy = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
    const errors = errorsUntilEnd(busy);
    await sleep(100);
    const startedMs = performance.now();
    await server.call('drain');
    expect(performance.now() - startedMs).toBeLessThan(3000);
    expect(await errors).toEqual([0, nbd.NBD_ESHUTDOWN]);
    expect(await server.call<number>('clientCount')).toBe(0);
    await expect(connect({ uri: server.uri('v'), connectTimeoutMs: 1000 })).rejects.toThrow();
  });

  it('what is under way when a drain begins is answered: flushes, zeroes, and a long read', async () => {
    await using server = await start(native);
    using raw = await RawNbd.connect({ path: server.socketPath }, 'v', { mode: 'structured' });
    expect((await raw.ask({ type: nbd.NBD_CMD_WRITE, offset: 0, payload: Buffer.alloc(32 * MiB, 6) })).errno).toBe(0);
    raw.socket.pause();
    const long = raw.send({ type: nbd.NBD_CMD_READ, offset: 0, length: 32 * MiB });
    using other = await RawNbd.connect({ path: server.socketPath }, 'v', { mode: 'structured' });
    const asked = [
      other.send({
        type: nbd.NBD_CMD_WRITE_ZEROES,
        flags: nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FUA,
        offset: 32 * MiB,
        length: 32 * MiB,
      }),
      other.send({ type: nbd.NBD_CMD_FLUSH }),
    ];
    await sleep(50);
    const drained = server.call('drain');
    await sleep(200);
    raw.socket.resume();
    const { cookie, errno, data } = await raw.reply();
    expect([cookie, errno, data?.every((byte) => byte === 6)]).toEqual([long, 0, true]);
    const answered = [await other.reply(), await other.reply()];
    expect(new Map(answered.map((reply) => [reply.cookie, reply.errno]))).toEqual(new Map(asked.map((each) => [each, 0])));
    await drained;
  });

  it('the operator ends one connection, or those of one volume, and the others go on', async () => {
    await using server = await start(native);
    using first = await RawNbd.connect({ path: server.socketPath }, 'v');
    using second = await RawNbd.connect({ host: '127.0.0.1', port: server.tcpPort }, 'v');
    using third = await RawNbd.connect({ path: server.socketPath }, 'w');
    await first.ask({ type: nbd.NBD_CMD_WRITE, payload: Buffer.alloc(10_000) });
    await second.ask({ type: nbd.NBD_CMD_READ, length: 5000 });
    const views = await server.call<readonly ClientView[]>('clients');
    expect(
      views.map(({ volume, transport, phase, requests, readBytes, writtenBytes }) => [
        volume?.name,
        transport,
        phase,
        requests,
        readBytes,
        writtenBytes,
      ]),
    ).toEqual([
      ['v', 'unix', 'transmission', 1, 0, 10_000],
      ['v', 'tcp', 'transmission', 1, 5000, 0],
      ['w', 'unix', 'transmission', 0, 0, 0],
    ]);
    expect(await server.call<number>('clientsEnd', { client: views[0]?.id })).toBe(1);
    await first.ended();
    expect((await second.ask({ type: nbd.NBD_CMD_FLUSH })).errno).toBe(0);
    expect(await server.call<number>('clientsEnd', { volume: 1 })).toBe(1);
    await second.ended();
    expect((await third.ask({ type: nbd.NBD_CMD_FLUSH })).errno).toBe(0);
    expect(await server.call<number>('clientsEnd', { volume: 1 })).toBe(0);
    expect(server.events.filter(({ name }) => name === 'clientClosed').map(({ detail }) => detail.reason)).toEqual(['ended', 'ended']);
  });

  it('writes to a held volume wait, in the middle of a long one too, and are told to go when the connection is ended', async () => {
    await using server = await start(native);
    using raw = await RawNbd.connect({ path: server.socketPath }, 'v');
    await server.call('volumeHold', 1);
    const small = raw.send({ type: nbd.NBD_CMD_WRITE, offset: 0, payload: Buffer.alloc(4096, 1) });
    using other = await RawNbd.connect({ path: server.socketPath }, 'w');
    expect((await other.ask({ type: nbd.NBD_CMD_WRITE, payload: Buffer.alloc(4096) })).errno).toBe(0);
    await server.call('volumeUnhold', 1);
    expect(await raw.reply()).toMatchObject({ cookie: small, errno: 0 });
    const whole = raw.encode({ type: nbd.NBD_CMD_WRITE, offset: 0, payload: Buffer.alloc(8 * MiB, 2) });
    raw.socket.write(whole.subarray(0, 3 * MiB));
    await sleep(100);
    await server.call('volumeHold', 1);
    raw.socket.write(whole.subarray(3 * MiB));
    await sleep(200);
    await server.call('volumeUnhold', 1);
    expect((await raw.reply()).errno).toBe(0);
    expect((await raw.ask({ type: nbd.NBD_CMD_READ, length: 8 * MiB })).data?.every((byte) => byte === 2)).toBe(true);
    await server.call('volumeHold', 1);
    const late = raw.send({ type: nbd.NBD_CMD_WRITE, offset: 0, payload: Buffer.alloc(4096, 3) });
    await sleep(50);
    const ended = server.call<number>('clientsEnd', { volume: 1 });
    expect(await raw.reply()).toMatchObject({ cookie: late, errno: nbd.NBD_ESHUTDOWN });
    expect(await ended).toBe(1);
  });
});
