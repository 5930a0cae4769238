/** NBD connections of hosts: which are whose, and the end of those that nobody may have any more. */
import { callerAccess } from '../core/host-access.ts';
import type { ClientView } from '../core/views.ts';
import type { DeviceContext } from './context.ts';

/**
 * Ends the connections of those who were not given what they have: after a grant or a host was taken away, or when
 * exports begin to follow grants.
 */
export const endUngranted = async ({ plane, store }: Pick<DeviceContext, 'plane' | 'store'>): Promise<void> => {
  const { tables } = store;
  for (const client of await plane.clients()) {
    if (client.volume === null) continue;
    const host = client.host === null ? null : (tables.host(client.host) ?? null);
    // A name that was a host and is none any more proves nothing, also on the unix socket.
    const transport = client.host === null ? client.transport : 'tls';
    const access = callerAccess({ host, transport }, client.volume.number, tables.settings);
    if (access === null || (access === 'ro' && !client.readOnly)) await plane.clientsEnd({ client: client.id });
  }
};

/** The connections that have proved to be a host's. */
export const clientsOf = (clients: readonly ClientView[], host: string): readonly ClientView[] => {
  return clients.filter((client) => client.host === host);
};
