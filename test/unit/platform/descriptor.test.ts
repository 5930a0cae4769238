import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { connect, createServer, type Server, Socket } from 'node:net';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { duplicateDescriptor, setBlocking } from '../../../src/platform/descriptor.ts';
import { fsExt } from '../../../src/platform/native.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const flagsOf = (fd: number): number =>
  Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8);

/** The descriptor of a socket, as the lanes get it. */
const fdOf = (socket: Socket): number => (socket as unknown as { _handle: { fd: number } })._handle.fd;

const connectedPair = async (path: string): Promise<{ server: Server; accepted: Socket; client: Socket }> => {
  const server = createServer().listen(path);
  await once(server, 'listening');
  const client = connect(path);
  const [accepted] = (await once(server, 'connection')) as [Socket];
  return { server, accepted, client };
};

describe.skipIf(fsExt === null)('descriptors, with fs-ext', () => {
  it('a duplicate is the same open file, closed on exec, and lives when the first is closed', async () => {
    await using temporary = await temporaryDirectory();
    const fd = openSync(temporary.path('file'), 'w+');
    const second = duplicateDescriptor(fd);
    if (second === null) throw new Error('no duplicate');
    expect(second).toBeGreaterThanOrEqual(3);
    expect(second).not.toBe(fd);
    expect(flagsOf(second) & O_CLOEXEC).toBe(O_CLOEXEC);
    writeSync(fd, 'text');
    closeSync(fd);
    const bytes = Buffer.alloc(4);
    readSync(second, bytes, 0, 4, 0);
    expect(bytes.toString()).toBe('text');
    closeSync(second);
  });

  it('a connection goes on through a duplicate after its own socket was destroyed', async () => {
    await using temporary = await temporaryDirectory();
    const { server, accepted, client } = await connectedPair(temporary.path('socket'));
    const second = duplicateDescriptor(fdOf(accepted));
    if (second === null) throw new Error('no duplicate');
    accepted.destroy();
    await once(accepted, 'close');
    const adopted = new Socket({ fd: second });
    client.write('ping');
    expect(String((await once(adopted, 'data'))[0])).toBe('ping');
    adopted.write('pong');
    expect(String((await once(client, 'data'))[0])).toBe('pong');
    adopted.destroy();
    client.destroy();
    server.close();
  });

  it('the blocking mode changes back and forth, and a duplicate shares it', async () => {
    await using temporary = await temporaryDirectory();
    const { server, accepted, client } = await connectedPair(temporary.path('socket'));
    const fd = fdOf(accepted);
    const second = duplicateDescriptor(fd);
    if (second === null) throw new Error('no duplicate');
    expect(flagsOf(fd) & O_NONBLOCK).toBe(O_NONBLOCK);
    expect(setBlocking(fd, true)).toBe(true);
    expect(flagsOf(second) & O_NONBLOCK).toBe(0);
    expect(setBlocking(second, false)).toBe(true);
    expect(flagsOf(fd) & O_NONBLOCK).toBe(O_NONBLOCK);
    closeSync(second);
    accepted.destroy();
    client.destroy();
    server.close();
  });

  it('a closed descriptor is an error', () => {
    expect(() => duplicateDescriptor(1_000_000)).toThrow(/EBADF/);
    expect(() => setBlocking(1_000_000, true)).toThrow(/EBADF/);
  });
});

describe.skipIf(fsExt !== null)('descriptors, without fs-ext', () => {
  it('says that it cannot', () => {
    expect(duplicateDescriptor(0)).toBeNull();
    expect(setBlocking(0, true)).toBe(false);
  });
});
