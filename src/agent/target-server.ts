/**
 * The server and exports of an inquiry's target, and which connections of a host lead there.
 *
 * Pure over a snapshot. A volume is known by its URIs; its export can be asked for by its name and by its number. A unix
 * server is recognised by the path that it was bound to, a TCP server by its addresses and port. A connection found here
 * leads to the device, not yet to the volume: the kernel does not know exports.
 */
import { posix } from 'node:path';
import type { ConnectionRef, InquiryTarget } from '../core/mount-facts.ts';
import { tcpConnectionRef, unixConnectionRef } from '../core/mount-facts.ts';
import type { NbdEndpoint, NbdServer } from './nbd-endpoint.ts';
import { parseNbdUri } from './nbd-endpoint.ts';
import type { HostProcess } from './processes.ts';
import type { HostSnapshot, NetNamespace } from './snapshot.ts';
import type { TcpSocket, UnixSocket } from './sockets.ts';

export type TargetServer = {
  readonly unixPaths: readonly string[];
  readonly tcp: readonly TcpPlace[];
  readonly exportNames: ReadonlySet<string>;
};

/** `addresses` is empty where the name has none here: then every address with that port may be it. */
export type TcpPlace = { readonly host: string; readonly port: number; readonly addresses: ReadonlySet<string> };

/** One connection of this host, and the processes that hold its near end; none where nobody visible does. */
export type HostConnection = { readonly ref: ConnectionRef; readonly owners: readonly HostProcess[] };

/** What a server listens on that listens everywhere: no address that a client connects to. */
const UNSPECIFIED: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

const endpointsOf = (target: InquiryTarget): readonly NbdEndpoint[] => target.uris.map(parseNbdUri).filter((endpoint) => endpoint !== null);

/** The host names whose addresses `targetServer` needs. */
export const hostNamesOf = (targets: readonly InquiryTarget[]): readonly string[] => {
  const names = targets.flatMap(endpointsOf).flatMap(({ server }) => (server.transport === 'tcp' ? [server.host] : []));
  return [...new Set(names)];
};

/** @param addresses of host names; `also`: further addresses of the device, such as the one that the agent is connected to */
export const targetServer = (
  target: InquiryTarget,
  addresses: ReadonlyMap<string, readonly string[]>,
  also: readonly string[] = [],
): TargetServer => {
  const endpoints = endpointsOf(target);
  const tcp = endpoints.flatMap(({ server }) => {
    if (server.transport !== 'tcp') return [];
    const known = addresses.get(server.host) ?? [];
    const isAnywhere = known.length === 0 || known.some((address) => UNSPECIFIED.has(address));
    return [{ host: server.host, port: server.port, addresses: new Set(isAnywhere ? [] : [...known, ...also]) }];
  });
  const unixPaths = endpoints.flatMap(({ server }) => (server.transport === 'unix' ? [server.path] : []));
  const named = endpoints.flatMap(({ exportName }) => (exportName === null ? [] : [exportName]));
  return { unixPaths: [...new Set(unixPaths)], tcp, exportNames: new Set([target.name, String(target.volume), ...named]) };
};

/**
 * Whether a path in the kernel's table can be the server's: the same, or a path that the server was bound to in another
 * way (relative, or through an open directory, as servers under long paths are) and that ends in the same name.
 */
export const isServerPath = (bound: string, path: string): boolean => {
  if (bound === '' || bound === path) return bound === path;
  const isElsewhere = bound.startsWith('@') || (bound.startsWith('/') && !bound.startsWith('/proc/'));
  return !isElsewhere && posix.basename(bound) === posix.basename(path);
};

/** Whether `server`, as a process of this host names it, is the target's. */
export const isSameServer = (server: NbdServer, process: Pick<HostProcess, 'folder'>, target: TargetServer): boolean => {
  if (server.transport === 'unix') {
    const path = posix.resolve(process.folder ?? '/', server.path);
    return target.unixPaths.some(
      (known) => posix.normalize(known) === path || (process.folder === null && isServerPath(server.path, known)),
    );
  }
  if (server.transport !== 'tcp') return false;
  const host = server.host.toLowerCase();
  return target.tcp.some((place) => place.port === server.port && (place.host.toLowerCase() === host || place.addresses.has(host)));
};

export const isTargetExport = (endpoint: NbdEndpoint, target: TargetServer): boolean => {
  return endpoint.exportName === null || target.exportNames.has(endpoint.exportName);
};

const ownersOf = (inode: number, snapshot: HostSnapshot): readonly HostProcess[] =>
  snapshot.processes.filter((process) => process.sockets.has(inode));

const tcpRef = ({ local }: TcpSocket): ConnectionRef => tcpConnectionRef(local.address, local.port);

const unixConnection = (socket: UnixSocket, namespace: NetNamespace, snapshot: HostSnapshot): HostConnection => {
  const near = namespace.pairs?.get(socket.inode);
  return { ref: unixConnectionRef(socket.inode), owners: near === undefined ? [] : ownersOf(near, snapshot) };
};

/** Whether the other end of a unix socket has to be known to answer about one of these servers. */
export const leadsToServer = (socket: UnixSocket, targets: readonly TargetServer[]): boolean => {
  return socket.isConnected && targets.some((target) => target.unixPaths.some((path) => isServerPath(socket.path, path)));
};

/** All connections of this host to the target's server, whatever their export. */
export const connectionsTo = (target: TargetServer, snapshot: HostSnapshot): readonly HostConnection[] => {
  const isRemote = ({ remote, isConnected, inode }: TcpSocket): boolean => {
    if (!isConnected || inode === 0) return false;
    return target.tcp.some(({ port, addresses }) => port === remote.port && (addresses.size === 0 || addresses.has(remote.address)));
  };
  const found = snapshot.netNamespaces.flatMap((namespace) => [
    ...namespace.tcp.filter(isRemote).map((socket) => ({ ref: tcpRef(socket), owners: ownersOf(socket.inode, snapshot) })),
    ...namespace.unix.filter((socket) => leadsToServer(socket, [target])).map((socket) => unixConnection(socket, namespace, snapshot)),
  ]);
  return [...new Map(found.map((connection) => [connection.ref, connection])).values()];
};

/** The connections of this host to what `server`, a process of this host, serves itself. */
export const connectionsToProcess = (server: HostProcess, snapshot: HostSnapshot): readonly HostConnection[] => {
  const accepted = snapshot.netNamespaces.flatMap((namespace) =>
    namespace.tcp.filter(({ inode, isConnected }) => isConnected && server.sockets.has(inode)),
  );
  const accepts = new Set(accepted.map(({ local, remote }) => `${remote.address} ${remote.port} ${local.address} ${local.port}`));
  return snapshot.netNamespaces.flatMap((namespace) => [
    ...namespace.tcp
      .filter(({ local, remote, inode }) => inode !== 0 && accepts.has(`${local.address} ${local.port} ${remote.address} ${remote.port}`))
      .map((socket) => ({ ref: tcpRef(socket), owners: ownersOf(socket.inode, snapshot) })),
    ...namespace.unix
      .filter((socket) => socket.isConnected && socket.path !== '' && server.sockets.has(socket.inode))
      .map((socket) => unixConnection(socket, namespace, snapshot)),
  ]);
};
