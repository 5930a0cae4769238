/**
 * Clients that stop: in the middle of the handshake, of a request, of their payload, or in reading what they asked for;
 * and clients that vanish. Each is cut off in time, and leaves nothing behind.
 */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeClientFlags, encodeInfoRequest, encodeOption } from '../../src/wire/nbd-handshake.ts';
import { needClient } from '../support/clients.ts';
import { makeCertificates } from '../support/nbd-server-certificates.ts';
import { isAsBefore, openMany, victimOf } from '../support/nbd-server-attack.ts';
import { BOTH_KINDS, type NbdServerOptions, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd } from '../support/nbd-server-raw.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const CAPACITY_BYTES = 128 * MiB;
const PAYLOAD_BYTES_MAX = 32 * MiB;

const start = (native: boolean, more: Partial<NbdServerOptions> = {}): Promise<NbdServerProcess> =>
  startNbdServer({ native, lanes: 1, volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }], ...more });

const reasons = (server: NbdServerProcess): unknown[] =>
  server.events.filter(({ name }) => name === 'clientClosed').map(({ detail }) => detail.reason);
const closedFor = async (server: NbdServerProcess, reason: string, count: number, deadlineMs: number): Promise<void> => {
  const found = (): number => reasons(server).filter((each) => each === reason).length;
  for (const until = Date.now() + deadlineMs; found() < count && Date.now() < until; ) await sleep(50);
  expect([reason, found()]).toEqual([reason, count]);
};
describe.each(BOTH_KINDS)('$kind', ({ native }) => {
  it('a handshake that does not come to its end is cut off, wherever it stops', async () => {
    await using server = await start(native, { deadlines: { handshakeMs: 1200 } });
    const before = await server.figures();
    const whole = Buffer.concat([encodeClientFlags(3), encodeOption(nbd.NBD_OPT_GO, encodeInfoRequest('v', []))]);
    for (const bytes of [0, 3, 4, 12, 20, whole.length - 1]) {
      const raw = await RawNbd.open({ path: server.socketPath });
      raw.socket.write(whole.subarray(0, bytes));
    }
    // One that drips a byte now and then gets no more time than the others.
    const dripping = await RawNbd.open({ path: server.socketPath });
    const drip = setInterval(() => dripping.socket.writable && dripping.socket.write(Buffer.of(0)), 100);
    await closedFor(server, 'handshake-timeout', 7, 4000);
    clearInterval(drip);
    await server.settled(isAsBefore(before), 4000);
    expect(await server.call<number>('clientCount')).toBe(0);
  });

  it('a handshake that waits for the engine, because a command holds the volume, is not cut off', async () => {
    await using server = await start(native, { deadlines: { handshakeMs: 700 } });
    await server.call('volumeHold', 1);
    const waiting = connect(server.uri('v'));
    await sleep(2500);
    await server.call('volumeUnhold', 1);
    await using client = await waiting;
    expect((await client.read(0, 1)).length).toBe(1);
  });

  it('[client-stalls] half a request, and half a payload, are cut off after their deadline; an idle connection is not', async () => {
    await using server = await start(native, { deadlines: { requestMs: 1000 } });
    const idle = await victimOf(server);
    const before = await server.figures();
    const [half, quarter, large] = await openMany(server, 3, () => 'v');
    half?.socket.write(half.encode({ type: nbd.NBD_CMD_READ, length: 1 }).subarray(0, 20));
    quarter?.socket.write(quarter.encode({ type: nbd.NBD_CMD_WRITE, payload: Buffer.alloc(8000) }).subarray(0, 2000));
    large?.socket.write(large.encode({ type: nbd.NBD_CMD_WRITE, length: PAYLOAD_BYTES_MAX, payload: Buffer.alloc(5 * MiB) }));
    await closedFor(server, 'request-timeout', 3, 5000);
    await server.settled(isAsBefore(before), 3000);
    expect((await idle.read(0, 1)).length).toBe(1);
    await idle.disconnect();
  });

  it('[client-vanishes] clients that vanish in the middle of everything leave nothing behind', async () => {
    await using server = await start(native, { tcp: true });
    const victim = await victimOf(server);
    await victim.write(0, Buffer.alloc(MiB, 1));
    await victim.trim(0, MiB);
    const before = await server.figures();
    for (let round = 0; round < 10; round += 1) {
      const target = round % 2 === 0 ? { path: server.socketPath } : { host: '127.0.0.1', port: server.tcpPort };
      const some = await Promise.all(Array.from({ length: 12 }, () => RawNbd.connect(target, 'v')));
      for (const [index, raw] of some.entries()) {
        if (index % 4 === 0)
          for (let count = 0; count < 20; count += 1) raw.send({ type: nbd.NBD_CMD_READ, offset: count, length: 3 * MiB });
        if (index % 4 === 1) raw.socket.write(raw.encode({ type: nbd.NBD_CMD_WRITE, length: 10 * MiB, payload: Buffer.alloc(4 * MiB) }));
        if (index % 4 === 2) for (let count = 0; count < 50; count += 1) raw.send({ type: nbd.NBD_CMD_FLUSH });
        if (index % 4 === 3) raw.send({ type: nbd.NBD_CMD_WRITE_ZEROES, flags: nbd.NBD_CMD_FLAG_NO_HOLE, offset: 0, length: 64 * MiB });
      }
      await sleep(5);
      for (const [index, raw] of some.entries()) {
        if (round % 2 === 1 && index % 2 === 0) raw.socket.resetAndDestroy();
        else raw.destroy();
      }
    }
    await server.settled(isAsBefore(before), 10_000);
    expect(await server.call<number>('clientCount')).toBe(1);
    expect((await victim.read(0, 1)).length).toBe(1);
    await victim.disconnect();
  });

  it('fio killed in the middle of its work leaves nothing behind', async () => {
    await using server = await start(native);
    const victim = await victimOf(server);
    await victim.read(0, 1);
    const before = await server.figures();
    const args = [
      '--name=j',
      '--ioengine=nbd',
      `--uri=${server.uri('v')}`,
      '--rw=randrw',
      '--bs=64k',
      '--size=64M',
      '--iodepth=16',
      '--time_based',
      '--runtime=60',
      '--thread',
    ];
    const fio = spawn(needClient('fio'), args, { stdio: 'ignore' });
    for (let waitedMs = 0; (await server.call<number>('clientCount')) < 2 && waitedMs < 5000; waitedMs += 20) await sleep(20);
    await sleep(300);
    fio.kill('SIGKILL');
    await server.settled(isAsBefore(before), 5000);
    expect((await victim.read(0, 1)).length).toBe(1);
    await victim.disconnect();
  });

  it('closing is not kept waiting by clients that do not read', async () => {
    await using server = await start(native);
    const greedy = await openMany(server, 10, () => 'v');
    for (const raw of greedy) {
      raw.socket.pause();
      for (let index = 0; index < 4; index += 1) raw.send({ type: nbd.NBD_CMD_READ, length: PAYLOAD_BYTES_MAX });
    }
    await sleep(300);
    const startedMs = performance.now();
    await server.call('close');
    expect(performance.now() - startedMs).toBeLessThan(8000);
  });
});

it('a TLS handshake that stops is cut off like any other', async () => {
  await using directory = await temporaryDirectory();
  needClient('openssl');
  const { server: identity } = await makeCertificates(directory.root);
  await using server = await startNbdServer({
    tcp: true,
    tls: { ...identity, required: true },
    deadlines: { handshakeMs: 1000 },
    volumes: [{ name: 'v', capacityBytes: MiB }],
  });
  const before = await server.figures();
  for (const bytes of [0, 1, 100]) {
    const raw = await RawNbd.open({ host: '127.0.0.1', port: server.tcpPort });
    await raw.greet();
    await raw.option(nbd.NBD_OPT_STARTTLS);
    // The start of a record that announces more than comes.
    raw.socket.write(Buffer.concat([Buffer.of(22, 3, 1, 0x0f, 0xff), Buffer.alloc(200)]).subarray(0, bytes));
  }
  await closedFor(server, 'handshake-timeout', 3, 4000);
  await server.settled(isAsBefore(before), 4000);
});
