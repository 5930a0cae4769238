/**
 * An NBD export as a client names it: where the server is, and which export. Read from NBD URIs (the URI scheme of the
 * NBD project) and from qemu's ways to write the same.
 *
 * Pure. `exportName` is null where a text does not say which export it is; the empty string is the default export.
 */
export type NbdServer =
  | { readonly transport: 'unix'; readonly path: string }
  | { readonly transport: 'tcp'; readonly host: string; readonly port: number }
  | { readonly transport: 'vsock'; readonly host: string; readonly port: number };

export type NbdEndpoint = { readonly server: NbdServer; readonly exportName: string | null };

export const NBD_PORT_DEFAULT = 10809;

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

const hostAndPort = (text: string): { readonly host: string; readonly port: number } | null => {
  const match = /^(?:[^@]*@)?(?:\[([^\]]+)\]|([^:]*))(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return null;
  const host = match[1] ?? match[2] ?? '';
  return { host: decoded(host === '' ? 'localhost' : host), port: match[3] === undefined ? NBD_PORT_DEFAULT : Number(match[3]) };
};

/** The endpoint of an NBD URI; null for anything else. */
export const parseNbdUri = (uri: string): NbdEndpoint | null => {
  const match = /^nbds?(\+unix|\+vsock)?:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?/i.exec(uri);
  if (match === null) return null;
  const transport = (match[1] ?? '').toLowerCase();
  const exportName = decoded((match[3] ?? '').replace(/^\//, ''));
  if (transport === '+unix') {
    const socket = (match[4] ?? '').split(/[&;]/).find((pair) => pair.startsWith('socket='));
    return socket === undefined ? null : { server: { transport: 'unix', path: decoded(socket.slice('socket='.length)) }, exportName };
  }
  const place = hostAndPort(match[2] ?? '');
  return place === null ? null : { server: { transport: transport === '+vsock' ? 'vsock' : 'tcp', ...place }, exportName };
};

/** qemu's older form: `nbd:unix:PATH[:exportname=E]` and `nbd:HOST:PORT[:exportname=E]`. */
export const parseQemuNbdName = (name: string): NbdEndpoint | null => {
  const match = /^nbd:(?:unix:(.+?)|(\[[^\]]+\]|[^:]*):(\d+))(?::exportname=(.*))?$/.exec(name);
  if (match === null) return null;
  const exportName = match[4] ?? '';
  if (match[1] !== undefined) return { server: { transport: 'unix', path: match[1] }, exportName };
  const host = (match[2] ?? '').replace(/^\[|\]$/g, '');
  return { server: { transport: 'tcp', host: host === '' ? 'localhost' : host, port: Number(match[3]) }, exportName };
};

/** The same endpoint in the words of a URI, for people. */
export const endpointText = (endpoint: NbdEndpoint): string => {
  const name = endpoint.exportName ?? '?';
  const { server } = endpoint;
  if (server.transport === 'unix') return `nbd+unix:///${name}?socket=${server.path}`;
  const host = server.host.includes(':') ? `[${server.host}]` : server.host;
  return `nbd${server.transport === 'vsock' ? '+vsock' : ''}://${host}:${server.port}/${name}`;
};
