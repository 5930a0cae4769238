/** NBD connections: list them, and end one with the protocol's shutdown error. */
import { TwinvolError } from '../core/faults.ts';
import type { ClientView } from '../core/views.ts';
import type { DeviceContext } from './context.ts';

export class ClientCommands {
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  list(): Promise<readonly ClientView[]> {
    return this.#context.plane.clients();
  }

  /** @throws TwinvolError `CLIENT_NOT_FOUND` */
  async end(id: number): Promise<ClientView> {
    const client = (await this.list()).find((one) => one.id === id);
    const ended = client === undefined ? 0 : await this.#context.plane.clientsEnd({ client: id });
    if (client === undefined || ended === 0)
      throw new TwinvolError('CLIENT_NOT_FOUND', `there is no NBD connection ${id}`, { details: { client: id } });
    this.#context.log.info({ client: id, peer: client.peer }, 'NBD connection ended by command');
    return client;
  }
}
