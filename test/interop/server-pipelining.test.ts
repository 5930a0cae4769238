/**
 * Requests in a row without waiting, cut anywhere, and replies that are not read at once: the places where a server's
 * buffers change hands. Every reply is parsed strictly, so a byte too many, too few or out of place is found.
 *
 * What once broke: replies that were ready while the socket was full went past those that waited; a flush's reply
 * landed inside the data of a long simple reply; a connection whose long read ended on a full socket stood still.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { BOTH_KINDS, type NbdServerProcess, startNbdServer } from '../support/nbd-server-process.ts';
import { RawNbd, type RawMode, type RawRequest } from '../support/nbd-server-raw.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
/** The first half is for reading, the second for writing. */
const HALF_BYTES = 8 * MiB;
const MODES = ['simple', 'structured', 'extended'] as const;

const pattern = Buffer.allocUnsafe(HALF_BYTES);
for (let at = 0; at < HALF_BYTES; at += 4) pattern.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at);

/** A volume whose second leg follows it waits for payloads that another one carries out as they come. */
const prepared = async (native: boolean, mode?: 'mirroring' | 'tracking'): Promise<NbdServerProcess> => {
  const isPaired = mode !== undefined;
  const server = await startNbdServer({
    native,
    tcp: true,
    durability: 'power',
    lanes: 1,
    volumes: (isPaired ? ['v', 'w'] : ['v']).map((name) => ({ name, capacityBytes: 2 * HALF_BYTES })),
    ...(isPaired ? { pair: { primary: 0, secondary: 1 } } : {}),
  });
  using client = await RawNbd.connect({ path: server.socketPath }, 'v');
  if (isPaired) await server.call('pairsSwitch', [{ id: 1, mode, dirty: 'clear' }]);
  expect((await client.ask({ type: nbd.NBD_CMD_WRITE, payload: pattern })).errno).toBe(0);
  return server;
};

/** Reads `count` replies and checks each against what was asked. */
const checkReplies = async (client: RawNbd, asked: ReadonlyMap<number, RawRequest>): Promise<void> => {
  const open = new Map(asked);
  while (open.size > 0) {
    const { cookie, errno, data } = await client.reply();
    const request = open.get(cookie);
    if (request === undefined) throw new Error(`two replies to ${cookie}`);
    open.delete(cookie);
    if (errno !== 0) throw new Error(`request ${JSON.stringify({ ...request, payload: undefined })} failed with ${errno}`);
    const { offset = 0, length = 0 } = request;
    if (data !== null && !data.equals(pattern.subarray(offset, offset + length)))
      throw new Error(`${length} bytes at ${offset} are not what they were`);
  }
};

const lengths = fc.oneof(
  fc.integer({ min: 1, max: 5000 }),
  fc.integer({ min: 30_000, max: 40_000 }),
  fc.integer({ min: 60_000, max: 300_000 }),
  fc.integer({ min: 900_000, max: 3_000_000 }),
);
const commands = fc.constantFrom('read', 'read', 'write', 'write-fua', 'flush', 'zero', 'trim', 'cache', 'status', 'beyond', 'unknown');
const pipeline = fc.array(fc.record({ command: commands, length: lengths, place: fc.nat(HALF_BYTES) }), { minLength: 1, maxLength: 64 });

const requestOf = (command: string, length: number, place: number): RawRequest => {
  const offset = Math.max(0, Math.min(place, HALF_BYTES - length));
  switch (command) {
    case 'write':
    case 'write-fua':
      return {
        type: nbd.NBD_CMD_WRITE,
        flags: command === 'write' ? 0 : nbd.NBD_CMD_FLAG_FUA,
        offset: HALF_BYTES + offset,
        payload: Buffer.alloc(length, place & 0xff),
      };
    case 'flush':
      return { type: nbd.NBD_CMD_FLUSH };
    case 'zero':
      return { type: nbd.NBD_CMD_WRITE_ZEROES, flags: nbd.NBD_CMD_FLAG_NO_HOLE, offset: HALF_BYTES + offset, length };
    case 'trim':
      return { type: nbd.NBD_CMD_TRIM, offset: HALF_BYTES + offset, length };
    case 'cache':
      return { type: nbd.NBD_CMD_CACHE, offset, length };
    case 'status':
      return { type: nbd.NBD_CMD_BLOCK_STATUS, offset, length };
    case 'beyond':
      return { type: nbd.NBD_CMD_WRITE, offset: 2 * HALF_BYTES - 1, payload: Buffer.alloc(length) };
    case 'unknown':
      return { type: 99, offset, length };
    default:
      return { type: nbd.NBD_CMD_READ, offset, length };
  }
};

const errnoOf = (request: RawRequest, mode: RawMode): number => {
  if (request.type === 99) return nbd.NBD_EINVAL;
  if (request.type === nbd.NBD_CMD_BLOCK_STATUS && mode === 'simple') return nbd.NBD_EINVAL;
  return request.type === nbd.NBD_CMD_WRITE && request.offset === 2 * HALF_BYTES - 1 && request.payload?.length !== 1 ? nbd.NBD_ENOSPC : 0;
};

it.each(BOTH_KINDS)('requests of every kind and size, 64 in a row and cut anywhere, are all answered: $kind', async ({ native }) => {
  await using server = await prepared(native);
  const target = { path: server.socketPath };
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...MODES),
      pipeline,
      fc.infiniteStream(fc.integer({ min: 1, max: 200_000 })),
      fc.boolean(),
      async (mode, list, cuts, isSlow) => {
        using client = await RawNbd.connect(target, 'v', { mode, ...(mode === 'simple' ? {} : { contexts: ['base:allocation'] }) });
        const asked = new Map<number, RawRequest>();
        const bytes = Buffer.concat(
          list.map(({ command, length, place }, index) => {
            const request = requestOf(command, length, place);
            asked.set(index + 1, request);
            return client.encode(request);
          }),
        );
        const sending = (async () => {
          for (let at = 0; at < bytes.length; ) {
            const cut = Math.min(bytes.length, at + (cuts.next().value as number));
            if (!client.socket.write(bytes.subarray(at, cut)) && !isSlow)
              await new Promise((resolve) => client.socket.once('drain', resolve));
            else if (cut % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
            at = cut;
          }
        })();
        if (isSlow) await new Promise((resolve) => setTimeout(resolve, 20));
        for (const open = new Map(asked); open.size > 0; ) {
          const { cookie, errno, data } = await client.reply();
          const request = open.get(cookie);
          if (request === undefined) throw new Error(`two replies to ${cookie}`);
          open.delete(cookie);
          expect(errno).toBe(errnoOf(request, mode));
          const { offset = 0, length = 0 } = request;
          if (data !== null && !data.equals(pattern.subarray(offset, offset + length)))
            throw new Error(`${length} bytes at ${offset} are not what they were`);
        }
        await sending;
      },
    ),
    { numRuns: 60, endOnFailure: true },
  );
});

const IN_EACH_MODE = BOTH_KINDS.flatMap((one) => ([undefined, 'tracking', 'mirroring'] as const).map((mode) => ({ ...one, mode })));
it.each(IN_EACH_MODE)('writes cut anywhere in their payloads are where they belong: $kind, pair: $mode', async ({ native, mode }) => {
  await using server = await prepared(native, mode);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 300_000 }), { minLength: 1, maxLength: 24 }),
      fc.infiniteStream(fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 200_000 }))),
      fc.integer({ min: 0, max: 5000 }),
      fc.nat(),
      async (sizes, cuts, start, seed) => {
        using client = await RawNbd.connect({ path: server.socketPath }, 'v');
        const total = sizes.reduce((sum, size) => sum + size, 0);
        const content = Buffer.allocUnsafe(total);
        for (let at = 0; at < total; at += 1) content[at] = Math.imul(at ^ seed, 0x9e3779b1) >>> 24;
        let done = 0;
        const requests = sizes.map((size) => {
          const payload = content.subarray(done, done + size);
          done += size;
          return client.encode({ type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES + start + done - size, payload });
        });
        const bytes = Buffer.concat(requests);
        for (let at = 0; at < bytes.length; ) {
          const cut = Math.min(bytes.length, at + (cuts.next().value as number));
          client.socket.write(bytes.subarray(at, cut));
          if (cut % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
          at = cut;
        }
        for (const _ of sizes) expect((await client.reply()).errno).toBe(0);
        const { data } = await client.ask({ type: nbd.NBD_CMD_READ, offset: HALF_BYTES + start, length: total });
        expect(data?.equals(content)).toBe(true);
      },
    ),
    { numRuns: 40, endOnFailure: true },
  );
});

it.each([
  { mode: 'tracking', is: 'carried out as it comes' },
  { mode: 'mirroring', is: 'waited for, so that a split has all of it or nothing' },
] as const)('half a payload of 64 KiB to a pair that is $mode is $is', async ({ mode }) => {
  await using server = await prepared(true, mode);
  using client = await RawNbd.connect({ path: server.socketPath }, 'v');
  using reader = await RawNbd.connect({ path: server.socketPath }, 'v');
  const payload = Buffer.alloc(64 * KiB, 9);
  const written = async (): Promise<number> => {
    const { data } = await reader.ask({ type: nbd.NBD_CMD_READ, offset: HALF_BYTES, length: payload.length });
    return data?.lastIndexOf(9) ?? -1;
  };
  const bytes = client.encode({ type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES, payload });
  const cut = bytes.length - 20 * KiB;
  client.socket.write(bytes.subarray(0, cut));
  await new Promise((resolve) => setTimeout(resolve, 100));
  // Whole blocks of what has come.
  expect(await written()).toBe(mode === 'tracking' ? 44 * KiB - 1 : -1);
  client.socket.write(bytes.subarray(cut));
  expect((await client.reply()).errno).toBe(0);
  expect(await written()).toBe(64 * KiB - 1);
});

it.each(MODES)('a request cut in two at every byte of its header is understood: %s', async (mode) => {
  await using server = await prepared(true);
  using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
  const headerBytes = mode === 'extended' ? nbd.NBD_EXTENDED_REQUEST_BYTES : nbd.NBD_REQUEST_BYTES;
  for (let cut = 1; cut <= headerBytes + 8; cut += 1) {
    const write: RawRequest = { type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES + cut, payload: Buffer.alloc(40_000, cut) };
    const bytes = client.encode(write);
    client.socket.write(bytes.subarray(0, cut));
    // Two turns of the event loop here are enough for the bytes to be read there, most of the time.
    await new Promise((resolve) => setTimeout(resolve, 1));
    client.socket.write(bytes.subarray(cut));
    expect((await client.reply()).errno).toBe(0);
    const read = await client.ask({ type: nbd.NBD_CMD_READ, offset: HALF_BYTES + cut, length: 40_000 });
    expect(read.data?.equals(Buffer.alloc(40_000, cut))).toBe(true);
  }
});

it.each(BOTH_KINDS.flatMap(({ kind, native }) => MODES.map((mode) => ({ kind, native, mode }))))(
  'a client that reads its replies late gets every one of them whole: $mode, $kind',
  async ({ native, mode }) => {
    await using server = await prepared(native);
    using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
    for (let round = 0; round < 6; round += 1) {
      const asked = new Map<number, RawRequest>();
      const send = (request: RawRequest): void => void asked.set(client.send(request), request);
      client.socket.pause();
      // More flushes than may be under way at once, with reads in between that fill the socket, and long reads at the end.
      for (let index = 0; index < 600; index += 1) {
        send({ type: nbd.NBD_CMD_FLUSH });
        if (index % 8 === round) send({ type: nbd.NBD_CMD_READ, offset: index * 1000, length: 40_000 + index });
        if (index % 150 === 7) send({ type: nbd.NBD_CMD_READ, offset: index * 100, length: 2 * MiB + index });
        if (index % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      }
      await new Promise((resolve) => setTimeout(resolve, 30));
      client.socket.resume();
      await checkReplies(client, asked);
    }
  },
);

it('a client that says goodbye with replies outstanding gets all of them first', async () => {
  await using server = await prepared(true);
  for (const mode of MODES) {
    using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode });
    const asked = new Map<number, RawRequest>();
    const send = (request: RawRequest): void => void asked.set(client.send(request), request);
    client.socket.pause();
    for (let index = 0; index < 100; index += 1) {
      send({ type: nbd.NBD_CMD_READ, offset: index, length: 10_000 });
      send({ type: nbd.NBD_CMD_FLUSH });
    }
    client.socket.write(client.encode({ type: nbd.NBD_CMD_DISC }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.socket.resume();
    await checkReplies(client, asked);
    await client.ended();
  }
});

it('a lone byte at a time is a request in the end', async () => {
  await using server = await prepared(true);
  using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode: 'extended' });
  const bytes = client.encode({ type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES, payload: Buffer.from('one byte after another') });
  for (const byte of bytes) {
    client.socket.write(Buffer.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await client.reply()).errno).toBe(0);
  expect((await client.ask({ type: nbd.NBD_CMD_READ, offset: HALF_BYTES, length: 22 })).data?.toString()).toBe('one byte after another');
});

it.each([
  ...[33_000, 65_000, 65_536, 131_072, 1_048_576, 1_048_577, 3_000_000].map((length) => ({ length, mode: undefined })),
  ...[33_000, 131_072, 1_048_576].map((length) => ({ length, mode: 'mirroring' as const })),
])('writes of $length bytes, thousands of them, never run out of buffers; pair: $mode', async ({ length, mode }) => {
  await using server = await prepared(true, mode);
  using client = await RawNbd.connect({ path: server.socketPath }, 'v', { mode: 'structured' });
  const payload = Buffer.alloc(length, 3);
  // More than the lane's buffers could take if they did not all come back.
  const count = Math.ceil((300 * MiB) / length);
  const bytes = client.encode({ type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES, payload });
  for (let done = 0; done < count; done += 1) {
    if (
      !client.socket.write(done === 0 ? bytes : client.encode({ type: nbd.NBD_CMD_WRITE, offset: HALF_BYTES + (done % 1000), payload }))
    ) {
      await new Promise((resolve) => client.socket.once('drain', resolve));
    }
    if (done % 8 === 7) for (let reply = 0; reply < 8; reply += 1) expect((await client.reply()).errno).toBe(0);
  }
  for (let reply = 0; reply < count % 8; reply += 1) expect((await client.reply()).errno).toBe(0);
});
