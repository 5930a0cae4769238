/** What the client does when a server vanishes, is slow, stops, changes, or breaks the protocol. */
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import { encodeGreeting, encodeOptionReply } from '../../../src/wire/nbd-handshake.ts';
import { type NbdRequest, type ReplyMode, writeChunkHeader, writeDone, writeOffsetData } from '../../../src/wire/nbd-transmission.ts';
import { type ConnectionEvent, type ConnectOptions, NbdError, connect } from '../../../src/nbd-client/index.ts';
import { ALL_FLAGS, NbdTestServer, type TestServerOptions } from '../../support/nbd-test-server.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    expect(error).toBeInstanceOf(NbdError);
    return (error as NbdError).code;
  }
};
const until = async (holds: () => boolean): Promise<void> => {
  for (let tries = 0; !holds(); tries += 1) {
    if (tries > 500) throw new Error('it did not come about');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const QUICK: ConnectOptions = { reconnect: { backoffMs: 5, backoffMsMax: 20, deadlineMs: 3000 } };

describe('without reconnection', () => {
  it('a lost connection fails what is under way and everything after it', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.index === 2 ? 'drop' : 'silence'),
    }).listen();
    const events: ConnectionEvent[] = [];
    const client = await connect({ uri: server.uri, depth: 2, onConnectionEvent: (event) => events.push(event) });
    const calls = [client.read(0, 1), client.read(1, 1), client.read(2, 1)].map(codeOf);
    await until(() => server.seen.length === 2);
    server.cut();
    expect(await Promise.all(calls)).toEqual(['NBD_DISCONNECTED', 'NBD_DISCONNECTED', 'NBD_DISCONNECTED']);
    expect(await codeOf(client.flush())).toBe('NBD_DISCONNECTED');
    expect([client.isOpen, events.map((event) => event.kind)]).toEqual([false, ['broken']]);
    await client.disconnect();
  });

  it('a stopping server: the call gets its error, then the client takes leave', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.index === 0 ? { errno: nbd.NBD_ESHUTDOWN } : 'execute'),
    }).listen();
    const client = await connect(server.uri);
    expect(await codeOf(client.read(0, 1))).toBe('NBD_ESHUTDOWN');
    await until(() => server.disconnects === 1);
    expect(await codeOf(client.read(0, 1))).toBe('NBD_DISCONNECTED');
  });
});

describe('time limits and bad manners', () => {
  it('a request that is not answered fails, and takes its connection along', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({ path: directory.path('s'), rule: () => 'silence' }).listen();
    const client = await connect({ uri: server.uri, depth: 1, requestTimeoutMs: 60 });
    const startedMs = performance.now();
    expect(await Promise.all([client.read(0, 1), client.flush()].map(codeOf))).toEqual(['NBD_TIMEOUT', 'NBD_TIMEOUT']);
    expect(performance.now() - startedMs).toBeLessThan(1000);
    expect(client.isOpen).toBe(false);
  });

  it('with reconnection only the late request fails', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.offset === 77 ? 'silence' : 'execute'),
    }).listen();
    await using client = await connect({ uri: server.uri, requestTimeoutMs: 100, ...QUICK });
    const late = codeOf(client.read(77, 1));
    await new Promise((resolve) => setTimeout(resolve, 60));
    const other = client.read(0, 1);
    expect([await late, (await other).length]).toEqual(['NBD_TIMEOUT', 1]);
    expect(client.isOpen).toBe(true);
  });

  it('a server that says something in clear text behind its agreement to TLS', async () => {
    await using directory = await temporaryDirectory();
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.write(encodeGreeting(3));
      socket.on('data', (bytes) => {
        const reply = encodeOptionReply(nbd.NBD_OPT_STARTTLS, nbd.NBD_REP_ACK);
        if (bytes.includes('IHAVEOPT')) socket.write(Buffer.concat([reply, reply]));
      });
    }).listen(directory.path('s'));
    await expect(connect({ socket: directory.path('s'), tls: {} })).rejects.toThrow(/clear text/);
    server.close();
  });

  it('a server that says nothing', async () => {
    await using directory = await temporaryDirectory();
    const mute = createServer(() => {}).listen(directory.path('s'));
    expect(await codeOf(connect({ socket: directory.path('s'), connectTimeoutMs: 50 }))).toBe('NBD_TIMEOUT');
    mute.close();
  });
});

describe('with reconnection', () => {
  it('sends again what was lost, whether it had been carried out or not', async () => {
    await using directory = await temporaryDirectory();
    const dropped = new Set<number>();
    const rule: TestServerOptions['rule'] = (seen) => {
      if (seen.type !== nbd.NBD_CMD_WRITE || seen.offset % 5 !== 0 || dropped.has(seen.offset)) return 'execute';
      dropped.add(seen.offset);
      return seen.offset % 2 === 0 ? 'drop' : 'execute-and-drop';
    };
    await using server = await new NbdTestServer({ path: directory.path('s'), rule }).listen();
    const events: string[] = [];
    await using client = await connect({ uri: server.uri, depth: 4, ...QUICK, onConnectionEvent: (event) => events.push(event.kind) });
    await Promise.all(Array.from({ length: 21 }, (_, index) => client.write(index, Buffer.from([index + 1]))));
    expect([...server.data.subarray(0, 22)]).toEqual([...Array.from({ length: 21 }, (_, index) => index + 1), 0]);
    expect(events.filter((kind) => kind === 'lost')).toHaveLength(dropped.size);
    expect(events.filter((kind) => kind === 'reconnected')).toHaveLength(dropped.size);
  });

  it('waits for a server that comes back', async () => {
    await using directory = await temporaryDirectory();
    const options: TestServerOptions = { path: directory.path('s') };
    const first = await new NbdTestServer(options).listen();
    await using client = await connect({ uri: first.uri, ...QUICK });
    await first.stop();
    const call = client.read(0, 3);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await using second = new NbdTestServer(options);
    second.data.fill(9);
    await second.listen();
    expect(await call).toEqual(Buffer.from([9, 9, 9]));
  });

  it('gives up after its deadline', async () => {
    await using directory = await temporaryDirectory();
    const server = await new NbdTestServer({ path: directory.path('s') }).listen();
    const client = await connect({ uri: server.uri, reconnect: { backoffMs: 5, deadlineMs: 60 } });
    await server.stop();
    expect(await codeOf(client.read(0, 1))).toBe('NBD_DISCONNECTED');
    expect(client.isOpen).toBe(false);
  });

  it('refuses an export that has another size', async () => {
    await using directory = await temporaryDirectory();
    const options: TestServerOptions = { path: directory.path('s') };
    const first = await new NbdTestServer(options).listen();
    const client = await connect({ uri: first.uri, ...QUICK });
    await first.stop();
    await using second = new NbdTestServer({ ...options, sizeBytes: 2 * 1024 * 1024 });
    await second.listen();
    expect(await codeOf(client.read(0, 1))).toBe('NBD_CHANGED');
    expect(client.isOpen).toBe(false);
  });

  it('does not send a call for ever that always costs the connection', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.offset === 13 ? 'drop' : 'execute'),
    }).listen();
    await using client = await connect({ uri: server.uri, reconnect: { backoffMs: 1, attemptsMax: 3 } });
    expect(await codeOf(client.read(13, 1))).toBe('NBD_DISCONNECTED');
    expect(server.seen).toHaveLength(3);
    expect(await client.read(14, 1)).toHaveLength(1);
  });

  it('goes to the next server when this one is stopping', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.connection === 0 ? { errno: nbd.NBD_ESHUTDOWN } : 'execute'),
    }).listen();
    await using client = await connect({ uri: server.uri, ...QUICK });
    expect(await Promise.all([client.read(0, 1), client.read(1, 1)])).toHaveLength(2);
    expect(server.disconnects).toBe(1);
  });

  it('a flush after a loss fails once, because acknowledged writes may be gone with the server', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({ path: directory.path('s') }).listen();
    await using client = await connect({ uri: server.uri, ...QUICK });
    await client.write(0, Buffer.alloc(1));
    await client.flush();
    server.cut();
    await until(() => server.connectionsMade === 2);
    await client.flush();
    await client.write(0, Buffer.alloc(1));
    server.cut();
    await until(() => server.connectionsMade === 3);
    expect(await codeOf(client.flush())).toBe('NBD_FLUSH_LOST');
    await client.flush();
    await client.write(0, Buffer.alloc(1), { fua: true });
    server.cut();
    await until(() => server.connectionsMade === 4);
    await client.flush();
  });

  it('a flush that was under way is not passed off as done by a later one', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.type === nbd.NBD_CMD_FLUSH && seen.connection === 0 ? 'drop' : 'execute'),
    }).listen();
    await using client = await connect({ uri: server.uri, ...QUICK });
    await client.write(0, Buffer.alloc(1));
    expect(await codeOf(client.flush())).toBe('NBD_FLUSH_LOST');
    await client.flush();
  });

  it('one of several connections is lost: the others take over', async () => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({
      path: directory.path('s'),
      rule: (seen) => (seen.connection === 1 && seen.index === 3 ? 'drop' : 'execute'),
    }).listen();
    await using client = await connect({ uri: server.uri, connections: 3, depth: 4, ...QUICK });
    await Promise.all(Array.from({ length: 60 }, (_, index) => client.write(index, Buffer.from([1]))));
    expect(server.data.subarray(0, 60).every((byte) => byte === 1)).toBe(true);
    await until(() => client.info.connections === 3);
  });
});

describe('a server that breaks the protocol ends the connection with NBD_PROTOCOL', () => {
  const chunk =
    (flags: number, type: number, payload: Buffer) =>
    (request: NbdRequest, mode: ReplyMode): Buffer => {
      const head = Buffer.alloc(64);
      return Buffer.concat([head.subarray(0, writeChunkHeader(head, 0, mode, request, flags, type, payload.length)), payload]);
    };
  const data =
    (from: number, length: number, sent: number, flags = 1) =>
    (request: NbdRequest, mode: ReplyMode): Buffer => {
      const head = Buffer.alloc(64);
      return Buffer.concat([head.subarray(0, writeOffsetData(head, 0, mode, request, flags, from, length)), Buffer.alloc(sent)]);
    };
  const cases: Array<[string, (request: NbdRequest, mode: ReplyMode) => Buffer]> = [
    ['no magic', () => Buffer.alloc(64)],
    ['a cookie that is not in flight', (request, mode) => chunk(1, 0, Buffer.alloc(0))(Object.assign(request, { cookieLow: 5 }), mode)],
    [
      'a cookie of an earlier call',
      (request, mode) => chunk(1, 0, Buffer.alloc(0))(Object.assign(request, { cookieHigh: request.cookieHigh - 1 }), mode),
    ],
    [
      'a simple reply to a read',
      (request) => {
        const bytes = Buffer.alloc(16);
        writeDone(bytes, 0, 1, request);
        return bytes;
      },
    ],
    ['success without data', chunk(1, nbd.NBD_REPLY_TYPE_NONE, Buffer.alloc(0))],
    ['an empty chunk that is not the last', chunk(0, nbd.NBD_REPLY_TYPE_NONE, Buffer.alloc(0))],
    ['data before the range', data(0, 512, 512)],
    ['data beyond the range', data(4097, 512, 512)],
    ['too much data', data(4096, 513, 513)],
    ['too little data', data(4096, 100, 100)],
    ['a data chunk without data', chunk(1, nbd.NBD_REPLY_TYPE_OFFSET_DATA, Buffer.alloc(8))],
    ['a hole of no size', chunk(1, nbd.NBD_REPLY_TYPE_OFFSET_HOLE, Buffer.alloc(12))],
    ['a hole with a tail', chunk(1, nbd.NBD_REPLY_TYPE_OFFSET_HOLE, Buffer.alloc(13))],
    ['a block status', chunk(1, nbd.NBD_REPLY_TYPE_BLOCK_STATUS, Buffer.alloc(12))],
    ['an unknown type', chunk(1, 77, Buffer.alloc(12))],
    ['an error chunk that is too short', chunk(1, nbd.NBD_REPLY_TYPE_ERROR, Buffer.alloc(5))],
    ['an error message beyond its chunk', chunk(1, nbd.NBD_REPLY_TYPE_ERROR, Buffer.from('000000050009', 'hex'))],
    ['an error chunk of 1 MiB', chunk(1, nbd.NBD_REPLY_TYPE_ERROR, Buffer.alloc(1024 * 1024))],
  ];
  it.each(cases)('%s', async (_, raw) => {
    await using directory = await temporaryDirectory();
    await using server = await new NbdTestServer({ path: directory.path('s'), rule: () => ({ raw }) }).listen();
    const client = await connect({ uri: server.uri, extendedHeaders: false, ...QUICK });
    expect(await codeOf(client.read(4096, 512))).toBe('NBD_PROTOCOL');
    expect(client.isOpen).toBe(false);
  });

  it('an unknown error chunk is an error of the call only', async () => {
    await using directory = await temporaryDirectory();
    const raw = chunk(1, 0x9999, Buffer.from('000000050000aabbcc', 'hex'));
    await using server = await new NbdTestServer({ path: directory.path('s'), rule: () => ({ raw }) }).listen();
    await using client = await connect(server.uri);
    expect(await codeOf(client.read(4096, 512))).toBe('NBD_EIO');
    expect(client.isOpen).toBe(true);
  });
});

it('several connections do not keep a process alive once they are closed, and leave no socket behind', async () => {
  await using directory = await temporaryDirectory();
  await using server = await new NbdTestServer({ path: directory.path('s'), transmissionFlags: ALL_FLAGS }).listen();
  const before = process.getActiveResourcesInfo().filter((name) => name === 'PipeWrap').length;
  for (let round = 0; round < 5; round += 1) {
    const client = await connect({ uri: server.uri, connections: 8 });
    await client.read(0, 1);
    await client.disconnect();
  }
  await until(() => process.getActiveResourcesInfo().filter((name) => name === 'PipeWrap').length <= before);
});
