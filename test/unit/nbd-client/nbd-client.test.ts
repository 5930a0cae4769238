/** The client's commands over a real socket, in all three forms that replies can have. */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import { type ConnectOptions, NbdError, connect, listExports } from '../../../src/nbd-client/index.ts';
import { ALL_FLAGS, NbdTestServer, type TestServerOptions } from '../../support/nbd-test-server.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const MODES: Array<[string, Partial<TestServerOptions>, Partial<ConnectOptions>]> = [
  ['simple replies', {}, { structuredReplies: false }],
  ['structured replies', {}, {}],
  ['extended headers', { extendedHeaders: true }, {}],
];

const start = async (options: Partial<TestServerOptions> = {}): Promise<NbdTestServer & AsyncDisposable> => {
  const directory = await temporaryDirectory();
  const server = await new NbdTestServer({ path: directory.path('s'), ...options }).listen();
  const stop = server.stop.bind(server);
  server.stop = async () => {
    await stop();
    await directory[Symbol.asyncDispose]();
  };
  return server;
};

const pattern = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 0xff));
const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    expect(error).toBeInstanceOf(NbdError);
    return (error as NbdError).code;
  }
};

describe.each(MODES)('with %s', (_, serverOptions, clientOptions) => {
  it('writes, reads, zeroes, trims, caches, flushes', async () => {
    await using server = await start(serverOptions);
    await using client = await connect({ uri: server.uri, ...clientOptions });
    const data = pattern(100_000);
    await client.write(1000, data);
    expect(server.data.subarray(1000, 101_000)).toEqual(data);
    expect(await client.read(1000, data.length)).toEqual(data);
    const target = Buffer.alloc(500);
    await client.readInto(target, 1100);
    expect(target).toEqual(data.subarray(100, 600));
    await client.writeZeroes(1000, 50, { noHole: true, fast: true, fua: true });
    await client.trim(2000, 50, { fua: true });
    await client.cache(0, 4096);
    await client.flush();
    expect(server.data.subarray(1000, 1050)).toEqual(Buffer.alloc(50));
    const flags = Object.fromEntries(server.seen.map((seen) => [seen.type, seen.flags]));
    expect(flags[nbd.NBD_CMD_WRITE_ZEROES]).toBe(nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO | nbd.NBD_CMD_FLAG_FUA);
    expect(flags[nbd.NBD_CMD_TRIM]).toBe(nbd.NBD_CMD_FLAG_FUA);
  });

  it('keeps many requests in flight and sorts their replies', async () => {
    await using server = await start({
      ...serverOptions,
      rule: (seen) => (seen.index % 7 === 0 ? { delayMs: seen.index % 13 } : 'execute'),
    });
    server.data = pattern(1024 * 1024);
    await using client = await connect({ uri: server.uri, depth: 20, ...clientOptions });
    const offsets = Array.from({ length: 200 }, (_unused, index) => (index * 4999) % 1_000_000);
    const read = await Promise.all(offsets.map((offset) => client.read(offset, 1 + (offset % 9000))));
    read.forEach((bytes, index) => {
      const offset = offsets[index] ?? 0;
      expect(bytes.equals(server.data.subarray(offset, offset + bytes.length))).toBe(true);
    });
  });

  it('splits what is larger than the server takes', async () => {
    const info = { blockSizes: { minimumBytes: 512, preferredBytes: 4096, maximumBytes: 10_000 } };
    await using server = await start({ ...serverOptions, info });
    await using client = await connect({ uri: server.uri, ...clientOptions });
    const data = pattern(102_400);
    await client.write(512, data);
    expect((await client.read(512, data.length)).equals(data)).toBe(true);
    expect(Math.max(...server.seen.map((seen) => seen.length))).toBe(9728);
    expect(await codeOf(client.read(1, 512))).toBe('NBD_EINVAL');
    expect(await codeOf(client.write(512, Buffer.alloc(100)))).toBe('NBD_EINVAL');
  });

  it("gives the server's errors on", async () => {
    await using server = await start({
      ...serverOptions,
      rule: (seen) => (seen.type === nbd.NBD_CMD_READ ? { errno: 5, message: 'sector gone' } : { errno: 4711 }),
    });
    await using client = await connect({ uri: server.uri, ...clientOptions });
    const error = await client.read(0, 512).catch((caught: unknown) => caught as NbdError);
    expect(error).toMatchObject({
      code: 'NBD_EIO',
      errno: 5,
      serverMessage: clientOptions.structuredReplies === false ? '' : 'sector gone',
    });
    expect(await codeOf(client.write(0, Buffer.alloc(1)))).toBe('NBD_EINVAL');
    expect(client.isOpen).toBe(true);
  });
});

describe('structured reads', () => {
  it.each([false, true])('put pieces and holes together, in any order (extended: %s)', async (extendedHeaders) => {
    await using server = await start({ extendedHeaders, rule: () => ({ pieces: 5000 }) });
    pattern(300_000).copy(server.data, 100_000);
    await using client = await connect(server.uri);
    const target = Buffer.alloc(600_000, 0xee);
    await client.readInto(target, 50_000);
    expect(target.equals(server.data.subarray(50_000, 650_000))).toBe(true);
  });
});

describe('block status', () => {
  const extents: Record<string, Array<[number, number]>> = {
    'base:allocation': [
      [65_536, 0],
      [131_072, 3],
      [65_536, 0],
      [786_432, 3],
    ],
    'twinvol:dirty': [
      [4096, 1],
      [1_044_480, 0],
    ],
  };
  it.each([false, true])(
    'covers the whole range for each context, however little a reply tells (extended: %s)',
    async (extendedHeaders) => {
      await using server = await start({ extendedHeaders, extents, extentsPerReply: 1 });
      await using client = await connect({ uri: server.uri, metaContexts: ['base:allocation', 'twinvol:dirty', 'x:none'] });
      expect(client.info.metaContexts).toEqual(['base:allocation', 'twinvol:dirty']);
      const all = await client.blockStatus(0, 1024 * 1024);
      expect(all.get('base:allocation')?.map((extent) => [extent.length, extent.flags])).toEqual(extents['base:allocation']);
      expect(all.get('twinvol:dirty')).toEqual([
        { offset: 0, length: 4096, flags: 1 },
        { offset: 4096, length: 1_044_480, flags: 0 },
      ]);
      const part = await client.blockStatus(100_000, 50_000, { contexts: ['base:allocation'] });
      expect([...part]).toEqual([['base:allocation', [{ offset: 100_000, length: 50_000, flags: 3 }]]]);
    },
  );

  it('needs a context', async () => {
    await using server = await start({ extents });
    await using none = await connect({ uri: server.uri, metaContexts: [] });
    expect(await codeOf(none.blockStatus(0, 512))).toBe('NBD_ENOTSUP');
    await using one = await connect({ uri: server.uri });
    expect(await codeOf(one.blockStatus(0, 512, { contexts: ['twinvol:dirty'] }))).toBe('NBD_ENOTSUP');
    expect(await codeOf(one.blockStatus(0, 2 ** 30))).toBe('NBD_EINVAL');
  });
});

describe('what cannot succeed is not sent', () => {
  it('ranges', async () => {
    await using server = await start();
    await using client = await connect(server.uri);
    expect(await codeOf(client.read(1024 * 1024, 1))).toBe('NBD_EINVAL');
    expect(await codeOf(client.write(1024 * 1024, Buffer.alloc(1)))).toBe('NBD_ENOSPC');
    expect(await codeOf(client.writeZeroes(0, 2 ** 40))).toBe('NBD_ENOSPC');
    for (const [offset, length] of [
      [-1, 1],
      [0, 0],
      [0.5, 1],
      [0, Number.NaN],
      [2 ** 60, 1],
    ] as const)
      expect(await codeOf(client.read(offset, length))).toBe('NBD_EINVAL');
    expect(server.seen).toEqual([]);
  });

  it('writing to a read-only export, and what the server does not offer', async () => {
    await using server = await start({ transmissionFlags: nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_READ_ONLY });
    await using client = await connect(server.uri);
    expect(client.info.readOnly).toBe(true);
    expect(await codeOf(client.write(0, Buffer.alloc(1)))).toBe('NBD_EPERM');
    expect(await codeOf(client.write(0, Buffer.alloc(1), { fua: true }))).toBe('NBD_ENOTSUP');
    for (const call of [
      client.flush(),
      client.trim(0, 1),
      client.cache(0, 1),
      client.writeZeroes(0, 1),
      client.writeZeroes(0, 1, { fast: true }),
    ]) {
      expect(await codeOf(call)).toBe('NBD_ENOTSUP');
    }
    expect(server.seen).toEqual([]);
  });
});

describe('FUA', () => {
  it('is a flush where the server has none', async () => {
    await using server = await start({ transmissionFlags: nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH });
    await using client = await connect(server.uri);
    await client.write(0, Buffer.alloc(8), { fua: true });
    expect(server.seen.map((seen) => [seen.type, seen.flags])).toEqual([
      [nbd.NBD_CMD_WRITE, 0],
      [nbd.NBD_CMD_FLUSH, 0],
    ]);
  });
});

describe('several connections', () => {
  it('are made and shared where the server allows them', async () => {
    await using server = await start({ rule: () => ({ delayMs: 2 }) });
    await using client = await connect({ uri: server.uri, connections: 4, depth: 2 });
    expect([client.info.connections, server.connectionsMade]).toEqual([4, 4]);
    await Promise.all(Array.from({ length: 40 }, (_unused, index) => client.read(index * 512, 512)));
    for (const connection of [0, 1, 2, 3]) expect(server.seen.filter((seen) => seen.connection === connection)).toHaveLength(10);
  });

  it('are not made where it does not', async () => {
    await using server = await start({ transmissionFlags: ALL_FLAGS & ~nbd.NBD_FLAG_CAN_MULTI_CONN });
    await using client = await connect({ uri: server.uri, connections: 4 });
    expect([client.info.connections, server.connectionsMade]).toEqual([1, 1]);
  });
});

describe('giving up and going', () => {
  it('an aborted call rejects at once, and its buffer is left alone', async () => {
    await using server = await start({ rule: (seen) => (seen.offset === 0 ? { delayMs: 60 } : 'execute') });
    server.data.fill(7);
    await using client = await connect({ uri: server.uri, depth: 1 });
    const [flying, waiting] = [new AbortController(), new AbortController()];
    const target = Buffer.alloc(200_000, 0xee);
    const first = codeOf(client.readInto(target, 0, { signal: flying.signal }));
    const second = codeOf(client.write(4096, Buffer.alloc(10), { signal: waiting.signal }));
    const third = client.read(8192, 10);
    flying.abort();
    waiting.abort();
    expect(await Promise.all([first, second])).toEqual(['NBD_ABORTED', 'NBD_ABORTED']);
    expect(await third).toEqual(Buffer.alloc(10, 7));
    expect(target.every((byte) => byte === 0xee)).toBe(true);
    expect(server.seen.map((seen) => seen.offset)).toEqual([0, 8192]);
    expect(await codeOf(client.read(0, 1, { signal: AbortSignal.abort() }))).toBe('NBD_ABORTED');
  });

  it('disconnect waits for what is under way and says goodbye', async () => {
    await using server = await start({ rule: () => ({ delayMs: 20 }) });
    const client = await connect({ uri: server.uri, connections: 2, depth: 1 });
    const calls = Array.from({ length: 6 }, () => client.read(0, 10));
    const [gone] = await Promise.all([client.disconnect().then(() => server.seen.length), ...calls]);
    expect([gone, server.disconnects, client.isOpen]).toEqual([6, 2, false]);
    expect(await codeOf(client.read(0, 1))).toBe('NBD_CLOSED');
    await client.disconnect();
  });

  it('destroy ends what is under way', async () => {
    await using server = await start({ rule: () => 'silence' });
    const client = await connect({ uri: server.uri, depth: 1 });
    const calls = [client.read(0, 1), client.flush()].map(codeOf);
    client.destroy();
    expect(await Promise.all(calls)).toEqual(['NBD_CLOSED', 'NBD_CLOSED']);
  });
});

describe('connecting', () => {
  it('lists exports', async () => {
    await using server = await start();
    expect(await listExports(server.uri)).toEqual([{ name: 'vol', description: 'a test volume' }]);
  });

  it('tells what is wrong', async () => {
    await using server = await start();
    expect(await codeOf(connect('nonsense'))).toBe('NBD_USAGE');
    expect(await codeOf(connect({ uri: server.uri, depth: 0 }))).toBe('NBD_USAGE');
    expect(await codeOf(connect({ uri: server.uri, socket: 'x' }))).toBe('NBD_USAGE');
    expect(await codeOf(connect({ socket: '/nowhere/at/all' }))).toBe('NBD_CONNECT');
    expect(await codeOf(connect({ socket: server.options.path, exportName: 'missing' }))).toBe('NBD_REFUSED');
    expect(await codeOf(connect({ uri: server.uri, tls: {} }))).toBe('NBD_TLS');
    expect(await codeOf(connect({ uri: server.uri, signal: AbortSignal.abort() }))).toBe('NBD_ABORTED');
  });

  it('works from a socket and a name, and tells what it got', async () => {
    await using server = await start();
    await using client = await connect({ socket: server.options.path, exportName: 'vol' });
    expect(client.info).toMatchObject({
      exportName: 'vol',
      canonicalName: 'vol',
      description: 'a test volume',
      sizeBytes: 1024 * 1024,
      readOnly: false,
      canFlush: true,
      canMultiConn: true,
      structuredReplies: true,
      extendedHeaders: false,
    });
  });
});
