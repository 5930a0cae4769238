/** The control server: what it answers, what it refuses, and that one caller's trouble is nobody else's. */
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { ControlClient } from '../../../src/control/client.ts';
import type { ControlLimits } from '../../../src/control/control-limits.ts';
import { ControlServer } from '../../../src/control/server.ts';
import { EventLog } from '../../../src/core/event-log.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import type { Engine } from '../../../src/engine/api.ts';
import { encodeRequest, FrameDecoder, REPLY_FRAME_BYTES_MAX, type RpcMessage } from '../../../src/wire/control-frames.ts';
import { pairView, scriptedEngine, statusView, volumeView } from './scripted-engine.ts';

const undo: Array<() => unknown> = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

const tempDirectory = (): string => {
  const directory = mkdtempSync(join(tmpdir(), 'twinvol-control-'));
  undo.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
};

const serve = async (
  script: Partial<Engine>,
  limits: Partial<ControlLimits> = {},
  path = join(tempDirectory(), 'control.sock'),
): Promise<ControlServer> => {
  const server = new ControlServer(scriptedEngine(script), path, { limits });
  await server.listen();
  undo.push(() => server.close());
  return server;
};

const attach = async (server: ControlServer): Promise<ControlClient> => {
  const client = await ControlClient.connect(server.path);
  undo.push(() => client.close());
  return client;
};

/** A client without manners: sends bytes, collects what comes back. */
class RawCaller {
  readonly messages: RpcMessage[] = [];
  readonly socket: Socket;
  readonly #decoder = new FrameDecoder(REPLY_FRAME_BYTES_MAX);
  isClosed = false;

  constructor(path: string) {
    this.socket = connect({ path, allowHalfOpen: true });
    this.socket.on('data', (chunk: Buffer) => this.messages.push(...this.#decoder.push(chunk)));
    this.socket.on('error', () => {});
    this.socket.on('end', () => this.socket.end());
    this.socket.on('close', () => {
      this.isClosed = true;
    });
    undo.push(() => this.socket.destroy());
  }

  async until(isDone: () => boolean): Promise<void> {
    await expect.poll(isDone, { timeout: 3000, interval: 5 }).toBe(true);
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('control server', () => {
  it('answers calls, with the codes, remedies and facts of errors', async () => {
    const server = await serve({
      status: () => statusView(),
      volumeShow: (volume) => {
        throw new TwinvolError('VOLUME_NOT_FOUND', `there is no volume ${volume}`, { remedy: 'look again', details: { volume } });
      },
      volumeCreate: async (input) => volumeView(3, input.name, { capacityBytes: input.sizeBytes }),
    });
    const client = await attach(server);
    expect(await client.call('device.status', {})).toEqual(statusView());
    expect(await client.call('volume.create', { name: 'x', sizeBytes: 4096 })).toMatchObject({ name: 'x', capacityBytes: 4096 });
    await expect(client.call('volume.show', { volume: 'y' })).rejects.toMatchObject({
      code: 'VOLUME_NOT_FOUND',
      message: 'there is no volume y',
      remedy: 'look again',
      details: { volume: 'y' },
      exitStatus: 10,
    });
  });

  it('refuses unknown methods, unknown keys and values out of range before the engine sees them', async () => {
    const server = await serve({});
    const client = await attach(server);
    const call = (method: string, params: object): Promise<unknown> => client.call(method as 'device.status', params as never);
    await expect(call('pair.crate', {})).rejects.toMatchObject({ code: 'USAGE', remedy: 'did you mean pair.create?' });
    await expect(call('toString', {})).rejects.toMatchObject({ code: 'USAGE' });
    await expect(call('volume.show', { volume: 'a', colour: 'red' })).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('"colour"'),
    });
    await expect(call('volume.show', {})).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('its name or its number'),
    });
    await expect(call('pair.create', { primary: 'a', condition: 'best', pace: 99 })).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/"condition".*"pace"/),
    });
  });

  it('names a fault of the engine itself as such, and goes on', async () => {
    const server = await serve({
      volumeList: () => {
        throw new RangeError('index 7');
      },
      status: () => statusView(),
    });
    const client = await attach(server);
    await expect(client.call('volume.list', {})).rejects.toMatchObject({ code: 'INTERNAL', message: 'volume.list failed: index 7' });
    expect(await client.call('device.status', {})).toBeTruthy();
  });

  it('serves many calls of several clients at once, each answered to who asked', async () => {
    const server = await serve({
      volumeCreate: async ({ name, sizeBytes }) => {
        await sleep(sizeBytes % 7);
        return volumeView(sizeBytes, name);
      },
    });
    const clients = await Promise.all([attach(server), attach(server), attach(server)]);
    const calls = clients.flatMap((client, who) =>
      Array.from({ length: 30 }, async (_, index) => {
        expect(await client.call('volume.create', { name: `v${who}`, sizeBytes: index })).toMatchObject({ name: `v${who}`, number: index });
      }),
    );
    await Promise.all(calls);
    expect(server.connections).toBe(3);
  });

  it('is for its owner only, and is gone after close', async () => {
    const server = await serve({});
    expect(statSync(server.path).mode & 0o777).toBe(0o600);
    await server.close();
    expect(existsSync(server.path)).toBe(false);
    await expect(ControlClient.connect(server.path)).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE', exitStatus: 2 });
  });

  it('takes the place of a socket that a dead process left, but of nothing else', async () => {
    const path = join(tempDirectory(), 'control.sock');
    const first = await serve({ status: () => statusView() }, {}, path);
    const second = await serve({ status: () => statusView({ pid: 2 }) }, {}, path);
    expect(await (await attach(second)).call('device.status', {})).toMatchObject({ pid: 2 });
    expect(first.connections).toBe(0);
    const file = join(tempDirectory(), 'control.sock');
    writeFileSync(file, 'precious');
    await expect(new ControlServer(scriptedEngine({}), file).listen()).rejects.toMatchObject({ code: 'STORE_IO' });
    expect(statSync(file).size).toBe(8);
  });

  it('works in a directory whose path is longer than a socket address', async () => {
    const directory = join(tempDirectory(), 'd'.repeat(100), 'e'.repeat(100));
    mkdirSync(directory, { recursive: true });
    const server = await serve({ status: () => statusView() }, {}, join(directory, 'control.sock'));
    expect(statSync(server.path).mode & 0o777).toBe(0o600);
    expect(await (await attach(server)).call('device.status', {})).toMatchObject({ pid: 4711 });
    await server.close();
    expect(existsSync(server.path)).toBe(false);
  });
});

describe('control server, callers without manners', () => {
  it('answers garbage with an error, goes on, and closes after too much of it', async () => {
    const server = await serve({ status: () => statusView() }, { malformedInARow: 3 });
    const raw = new RawCaller(server.path);
    raw.socket.write(`garbage\n[1]\n${encodeRequest(1, 'device.status', {})}`);
    await raw.until(() => raw.messages.length === 3);
    expect(raw.messages).toMatchObject([
      { kind: 'error', id: null, error: { code: -32700, data: { code: 'USAGE' } } },
      { kind: 'error', id: null, error: { code: -32600, message: expect.stringContaining('batches') } },
      { kind: 'result', id: 1 },
    ]);
    raw.socket.write('x\ny\nz\nw\n');
    await raw.until(() => raw.isClosed);
    expect(raw.messages.at(-1)).toMatchObject({ kind: 'notification', method: 'dropped' });
  });

  it('closes on a line without end, and on half a line and silence; others go on', async () => {
    const server = await serve({ status: () => statusView() }, { lineMs: 100 });
    const client = await attach(server);
    const huge = new RawCaller(server.path);
    huge.socket.write('x'.repeat(2 * 1024 * 1024));
    const half = new RawCaller(server.path);
    half.socket.write('{"jsonrpc":"2.0",');
    await Promise.all([huge.until(() => huge.isClosed), half.until(() => half.isClosed)]);
    expect(half.messages).toMatchObject([{ kind: 'notification', method: 'dropped' }]);
    expect(await client.call('device.status', {})).toBeTruthy();
    await expect.poll(() => server.connections).toBe(1);
  });

  it('answers what was asked before the caller ended its side', async () => {
    const server = await serve({ status: () => statusView() });
    const raw = new RawCaller(server.path);
    raw.socket.end(`${encodeRequest(1, 'device.status', {})}{"half`);
    await raw.until(() => raw.isClosed);
    expect(raw.messages.map(({ kind }) => kind).sort()).toEqual(['error', 'result']);
    expect(server.connections).toBe(0);
  });

  it('gives up what waits for a caller that is gone', async () => {
    let aborted = 0;
    const waitForAbort = (signal?: AbortSignal): Promise<never> => {
      return new Promise((_, reject) => {
        signal?.addEventListener('abort', () => {
          aborted += 1;
          reject(signal.reason instanceof Error ? signal.reason : new Error('no reason'));
        });
      });
    };
    const server = await serve({ pairWait: (_input, signal) => waitForAbort(signal) });
    const raw = new RawCaller(server.path);
    raw.socket.write(encodeRequest(1, 'pair.wait', { primary: 1, state: 'duplex', timeoutMs: 60_000 }));
    await sleep(30);
    raw.socket.destroy();
    await expect.poll(() => aborted).toBe(1);
    const client = await attach(server);
    const controller = new AbortController();
    const call = client.call('pair.wait', { primary: 1, state: 'duplex', timeoutMs: 60_000 }, { signal: controller.signal });
    controller.abort();
    await expect(call).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(aborted).toBe(2);
  });

  it('refuses more connections and more requests than its limits, and says so', async () => {
    const server = await serve({ pairWait: () => new Promise(() => {}) }, { connections: 2, requestsInFlight: 2, graceMs: 100 });
    const client = await attach(server);
    const wait = { primary: 1, state: 'duplex', timeoutMs: 60_000 } as const;
    const hanging = [client.call('pair.wait', wait), client.call('pair.wait', wait)].map((call) => call.catch((error: unknown) => error));
    await expect(client.call('pair.wait', wait)).rejects.toMatchObject({ code: 'LIMIT' });
    await attach(server);
    const third = await attach(server);
    await expect(third.call('device.status', {})).rejects.toMatchObject({ code: expect.stringMatching(/LIMIT|ENGINE_UNREACHABLE/) });
    const raw = new RawCaller(server.path);
    await raw.until(() => raw.isClosed);
    expect(raw.messages).toMatchObject([{ kind: 'error', id: null, error: { data: { code: 'LIMIT' } } }]);
    await server.close();
    expect(await Promise.all(hanging)).toMatchObject([{ code: 'ENGINE_UNREACHABLE' }, { code: 'ENGINE_UNREACHABLE' }]);
  });

  it('refuses an id that is in flight', async () => {
    const server = await serve({ pairWait: () => new Promise(() => {}) }, { graceMs: 50 });
    const raw = new RawCaller(server.path);
    raw.socket.write(encodeRequest(1, 'pair.wait', { primary: 1, state: 'duplex', timeoutMs: 1 }).repeat(2));
    await raw.until(() => raw.messages.length === 1);
    expect(raw.messages).toMatchObject([{ kind: 'error', id: 1, error: { data: { code: 'USAGE' } } }]);
  });

  it('drops a caller that reads nothing, with a notice at the end of what was queued; others go on', async () => {
    const many = Array.from({ length: 2000 }, (_, index) => volumeView(index, `volume-${index}`));
    const server = await serve({ volumeList: () => many, status: () => statusView() }, { stallMs: 150, graceMs: 5000 });
    const raw = new RawCaller(server.path);
    raw.socket.pause();
    for (let id = 1; id <= 8; id += 1) raw.socket.write(encodeRequest(id, 'volume.list', {}));
    const client = await attach(server);
    expect(await client.call('device.status', {})).toBeTruthy();
    await sleep(400);
    raw.socket.resume();
    await raw.until(() => raw.isClosed);
    expect(raw.messages.at(-1)).toMatchObject({ kind: 'notification', method: 'dropped', params: { error: { data: { code: 'LIMIT' } } } });
    expect(await client.call('device.status', {})).toBeTruthy();
  });

  it('survives any bytes', async () => {
    const server = await serve({ status: () => statusView(), pairStatus: () => [pairView()] });
    const client = await attach(server);
    const chunk = fc.oneof(
      fc.uint8Array({ maxLength: 64 }),
      fc.constant(Buffer.from(encodeRequest(1, 'pair.status', {}))),
      fc.constant(Buffer.from('\n{}\n[]\n""')),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(chunk, { maxLength: 12 }), async (chunks) => {
        const raw = new RawCaller(server.path);
        for (const bytes of chunks) raw.socket.write(bytes);
        raw.socket.end();
        await once(raw.socket, 'close');
        expect(await client.call('device.status', {})).toBeTruthy();
      }),
      { numRuns: 60 },
    );
    await expect.poll(() => server.connections).toBe(1);
  });
});

describe('control server, events', () => {
  const setUp = async (limits: Partial<ControlLimits> = {}, kept = 1000): Promise<{ log: EventLog; server: ControlServer }> => {
    const log = new EventLog(() => 5000, kept);
    const exists = () => [{ object: 'device', id: 'd', data: {} } as const];
    const server = await serve({ events: (options) => log.subscribe({ ...options, exists }), status: () => statusView() }, limits);
    return { log, server };
  };

  it('streams the snapshot and then the changes, and resumes', async () => {
    const { log, server } = await setUp();
    const client = await attach(server);
    const controller = new AbortController();
    const seen: number[] = [];
    log.append('create', 'volume', 1);
    for await (const event of client.events({ signal: controller.signal })) {
      seen.push(event.seq);
      if (event.kind === 'exists') for (let index = 0; index < 500; index += 1) log.append('change', 'volume', index);
      if (event.id === '499') controller.abort();
    }
    expect(seen).toEqual(Array.from({ length: 501 }, (_, index) => 5000 + index));
    const rest: string[] = [];
    for await (const event of client.events({ since: 5498, follow: false })) rest.push(event.id);
    expect(rest).toEqual(['498', '499']);
    await expect(client.events({ since: 3 }).next()).rejects.toMatchObject({ code: 'EVENTS_GONE' });
    await expect.poll(() => log.readers).toBe(0);
  });

  it('does not fetch events for a reader that reads none, and tells it when the log has gone past it', async () => {
    const { log, server } = await setUp({}, 100);
    const raw = new RawCaller(server.path);
    raw.socket.write(encodeRequest(1, 'events.subscribe', {}));
    await raw.until(() => raw.messages.length === 2);
    raw.socket.pause();
    const data = { filler: 'x'.repeat(2000) };
    for (let index = 0; index < 5000; index += 1) {
      log.append('change', 'volume', index, data);
      if (index % 10 === 0) await new Promise(setImmediate);
    }
    raw.socket.resume();
    await raw.until(
      () => raw.messages.at(-1)?.kind === 'notification' && (raw.messages.at(-1) as { method: string }).method === 'event.end',
    );
    expect(raw.messages.at(-1)).toMatchObject({ params: { subscription: 1, error: { data: { code: 'EVENTS_GONE' } } } });
    expect(raw.messages.length).toBeLessThan(4000);
  });

  it('ends a stream on demand, and refuses more streams than its limit', async () => {
    const { log, server } = await setUp({ streams: 1 });
    const raw = new RawCaller(server.path);
    raw.socket.write(encodeRequest(1, 'events.subscribe', {}) + encodeRequest(2, 'events.subscribe', {}));
    await raw.until(() => raw.messages.length === 3);
    expect(raw.messages.filter((message) => message.kind === 'error')).toMatchObject([{ id: 2, error: { data: { code: 'LIMIT' } } }]);
    raw.socket.write(
      encodeRequest(3, 'events.unsubscribe', { subscription: 1 }) + encodeRequest(4, 'events.unsubscribe', { subscription: 9 }),
    );
    await raw.until(() => raw.messages.length === 6);
    expect(raw.messages).toContainEqual({ kind: 'result', id: 3, result: { ended: true } });
    expect(raw.messages).toContainEqual({ kind: 'result', id: 4, result: { ended: false } });
    expect(raw.messages).toContainEqual({ kind: 'notification', method: 'event.end', params: { subscription: 1, error: null } });
    expect(log.readers).toBe(0);
  });
});
