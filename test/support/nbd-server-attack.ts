/**
 * What the tests about hostile and slow clients have in common: bytes that no honest client sends, a victim whose
 * requests are timed, and the figures of the server before and after.
 */
import net from 'node:net';
import { connect, type NbdClient } from '../../src/nbd-client/nbd-client.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeClientFlags, encodeInfoRequest, encodeMetaContextRequest, encodeOption } from '../../src/wire/nbd-handshake.ts';
import type { NbdServerProcess, ProcessFigures } from './nbd-server-process.ts';
import { RawNbd, type RawMode } from './nbd-server-raw.ts';

/** Numbers that look random and are the same in every run (mulberry32). */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  /** From 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

const HUGE = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;

const option = (kind: number, length: number, data: Buffer): Buffer => {
  const whole = encodeOption(kind, data);
  whole.writeUInt32BE(length, 12);
  return whole;
};

/** The start of a handshake with something wrong in it, from pure noise to one wrong byte. */
export const badHandshake = (chance: Chance): Buffer => {
  const flags = encodeClientFlags(3);
  const go = encodeOption(nbd.NBD_OPT_GO, encodeInfoRequest('v', [1, 3]));
  switch (chance.below(9)) {
    case 0:
      return chance.bytes(1 + chance.below(400));
    case 1:
      return encodeClientFlags(chance.pick(HUGE));
    case 2:
      return Buffer.concat([flags, chance.bytes(chance.below(100))]);
    case 3:
      return Buffer.concat([flags, option(chance.below(20), chance.pick(HUGE), chance.bytes(chance.below(64)))]);
    case 4: {
      // One wrong byte somewhere in a good handshake.
      const good = Buffer.concat([flags, encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY), go]);
      good[chance.below(good.length)] = chance.below(256);
      return good;
    }
    case 5: {
      const data = encodeMetaContextRequest('v', ['base:allocation', 'qemu:']);
      data.writeUInt32BE(chance.pick(HUGE), chance.pick([0, 5]));
      return Buffer.concat([flags, encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY), encodeOption(chance.pick([9, 10]), data)]);
    }
    case 6: {
      const data = encodeInfoRequest('v', [0, 1, 2, 3]);
      data.writeUInt16BE(chance.below(65_536), data.length - 10);
      return Buffer.concat([flags, encodeOption(chance.pick([6, 7]), data)]);
    }
    case 7:
      return Buffer.concat([flags, ...Array.from({ length: 50 }, () => encodeOption(chance.below(14), chance.bytes(chance.below(30))))]);
    default:
      // Good, and cut somewhere.
      return Buffer.concat([flags, go]).subarray(0, chance.below(4 + go.length));
  }
};

/** Requests of an open export with something wrong in them. */
export const badRequests = (chance: Chance, mode: RawMode): Buffer => {
  const bytes = mode === 'extended' ? nbd.NBD_EXTENDED_REQUEST_BYTES : nbd.NBD_REQUEST_BYTES;
  const count = 1 + chance.below(8);
  const all: Buffer[] = [];
  for (let index = 0; index < count; index += 1) {
    const header = chance.bytes(bytes);
    if (chance.below(8) > 0) header.writeUInt32BE(mode === 'extended' ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC, 0);
    header.writeUInt16BE(chance.pick([0, 0, 1, 2, 4, 8, 16, 32, 0xffff, chance.below(65_536)]), 4);
    header.writeUInt16BE(chance.pick([0, 1, 3, 4, 5, 6, 7, 8, 9, 255, chance.below(65_536)]), 6);
    const offset = chance.pick([0n, 1n, 4095n, 1n << 20n, (1n << 63n) - 1n, (1n << 64n) - 1n, BigInt(chance.below(0x100_0000))]);
    header.writeBigUInt64BE(offset, 16);
    const length = chance.pick([...HUGE, 512, 4096, 33_554_432, 33_554_433, chance.below(100_000)]);
    if (mode === 'extended')
      header.writeBigUInt64BE(chance.below(6) === 0 ? chance.pick([1n << 40n, (1n << 64n) - 1n]) : BigInt(length), 24);
    else header.writeUInt32BE(length, 24);
    all.push(header, chance.bytes(chance.pick([0, 0, 1, 27, 100, 2000])));
  }
  return Buffer.concat(all);
};

/** Sends bytes to the server and does not care what comes back. Resolves when the connection is gone. */
export const throwBytes = (path: string, bytes: Buffer, lingerMs: number): Promise<void> =>
  new Promise((resolve) => {
    const socket = net.connect(path);
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    socket.on('error', () => {});
    socket.on('data', () => {});
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.write(bytes);
  });

export const openMany = (
  server: NbdServerProcess,
  count: number,
  exportOf: (index: number) => string,
  mode: RawMode = 'structured',
): Promise<RawNbd[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => RawNbd.connect({ path: server.socketPath }, exportOf(index), { mode })));

export type Latency = { readonly medianMs: number; readonly worstMs: number; readonly count: number };

/** Times one small request after another, as a victim sees them, until `until` resolves. */
export const timeRequests = async (client: NbdClient, until: Promise<unknown>): Promise<Latency> => {
  let isOver = false;
  const over = until.finally(() => {
    isOver = true;
  });
  const times: number[] = [];
  const data = Buffer.alloc(4096, 1);
  while (!isOver) {
    const startedMs = performance.now();
    if (times.length % 2 === 0) await client.write(0, data);
    else await client.read(0, 4096);
    times.push(performance.now() - startedMs);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await over;
  times.sort((left, right) => left - right);
  return { medianMs: times[Math.floor(times.length / 2)] ?? 0, worstMs: times.at(-1) ?? 0, count: times.length };
};

/** An honest client that is connected before the attack. */
export const victimOf = (server: NbdServerProcess, name = 'v'): Promise<NbdClient> => connect(server.uri(name));

/**
 * Everything that clients left behind is gone: the figures are what they were, memory apart, and apart from the thread of
 * a slow worker with its descriptors, which a busy machine may have made the engine start.
 */
export const isAsBefore =
  (before: ProcessFigures) =>
  ({ descriptors, sockets, threads }: ProcessFigures): boolean => {
    const newThreads = threads - before.threads;
    return newThreads <= 2 && descriptors <= before.descriptors + 6 * Math.max(0, newThreads) && sockets <= before.sockets;
  };
