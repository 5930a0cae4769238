/**
 * NBD connections that are made and then left alone, cheaply on this side, so that what they cost the server can be seen:
 * the shortest handshake there is (NBD specification, NBD_OPT_EXPORT_NAME), then silence.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const GREETING_BYTES = 18;
/** Size of the export and its flags. */
const ANSWER_BYTES = 10;
const FIXED_NEWSTYLE_NO_ZEROES = 3;
const OPT_EXPORT_NAME = 1;
const HANDSHAKE_MS_MAX = 10_000;

const option = (exportName: string): Buffer => {
  const name = Buffer.from(exportName, 'utf8');
  const bytes = Buffer.alloc(4 + 16 + name.length);
  bytes.writeUInt32BE(FIXED_NEWSTYLE_NO_ZEROES, 0);
  bytes.write('IHAVEOPT', 4, 'latin1');
  bytes.writeUInt32BE(OPT_EXPORT_NAME, 12);
  bytes.writeUInt32BE(name.length, 16);
  name.copy(bytes, 20);
  return bytes;
};

const received = async (socket: Socket, bytes: number): Promise<void> => {
  while (socket.readableLength < bytes) await once(socket, 'readable', { signal: AbortSignal.timeout(HANDSHAKE_MS_MAX) });
  socket.read(bytes);
};

export class IdleConnections implements Disposable {
  readonly #sockets: Socket[] = [];

  get count(): number {
    return this.#sockets.length;
  }

  /** @throws Error when the server does not take it */
  async add(path: string, exportName: string): Promise<void> {
    const socket = connect(path);
    this.#sockets.push(socket);
    await once(socket, 'connect');
    socket.on('error', () => {});
    await received(socket, GREETING_BYTES);
    socket.write(option(exportName));
    await received(socket, ANSWER_BYTES);
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
