/**
 * NBD URIs: `nbd://host:port/export`, `nbds://...`, `nbd+unix:///export?socket=/path`, `nbds+unix:///...` (NBD URI
 * specification, doc/uri.md of the NBD project).
 *
 * Taken apart by hand and not by `URL`, which would tidy export names up (`..`, doubled slashes, upper case). Export
 * names are free text: everything after the first `/` of the path, percent-decoded. What a parameter asks for and we
 * cannot give is refused, never left out silently.
 */
import { TwinvolError } from '../core/faults.ts';
import { NBD_PORT, NBD_STRING_BYTES_MAX } from './nbd-constants.ts';

export type NbdUri = {
  /** TLS is demanded (`nbds`, `nbds+unix`). */
  readonly tls: boolean;
  readonly where: { readonly kind: 'tcp'; readonly host: string; readonly port: number } | { readonly kind: 'unix'; readonly path: string };
  readonly exportName: string;
  /** `tls-hostname`: the name in the server's certificate. */
  readonly tlsHostname?: string;
  /** `tls-certificates`: a directory with ca-cert.pem, client-cert.pem and client-key.pem. */
  readonly tlsCertificates?: string;
  /** `tls-verify-peer`; absent means yes. */
  readonly tlsVerifyPeer?: boolean;
};

const SCHEMES: ReadonlyMap<string, { readonly tls: boolean; readonly unix: boolean }> = new Map([
  ['nbd', { tls: false, unix: false }],
  ['nbds', { tls: true, unix: false }],
  ['nbd+unix', { tls: false, unix: true }],
  ['nbds+unix', { tls: true, unix: true }],
]);
const EXAMPLE = 'write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH';

const refuse = (text: string, why: string): never => {
  throw new TwinvolError('URI_INVALID', `"${text}" is not an NBD URI: ${why}`, { remedy: EXAMPLE });
};

const decode = (uri: string, part: string): string => {
  try {
    return decodeURIComponent(part);
  } catch {
    return refuse(uri, `"${part}" has a percent sign that is no escape`);
  }
};

/** Host and port of an authority: `host`, `host:port`, `[v6]:port`, each with an optional `user@`. */
const parseAuthority = (uri: string, authority: string): { readonly host: string; readonly port: number } => {
  const match = /^(?:[^@]*@)?(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d*))?$/.exec(authority);
  if (match === null) return refuse(uri, `"${authority}" is no host and port`);
  const host = match[1] ?? decode(uri, match[2] ?? '');
  const port = match[3] === undefined || match[3] === '' ? NBD_PORT : Number(match[3]);
  if (port < 1 || port > 65_535) return refuse(uri, `there is no port ${port}`);
  return { host: host === '' ? 'localhost' : host, port };
};

type Parameters = { socket?: string; tlsHostname?: string; tlsCertificates?: string; tlsVerifyPeer?: boolean };

const parseParameter = (uri: string, key: string, value: string, into: Parameters): void => {
  switch (key) {
    case 'socket':
      into.socket = value;
      return;
    case 'tls-hostname':
      into.tlsHostname = value;
      return;
    case 'tls-certificates':
      into.tlsCertificates = value;
      return;
    case 'tls-verify-peer':
      if (!/^(0|1|true|false)$/.test(value)) refuse(uri, 'tls-verify-peer is 0 or 1');
      into.tlsVerifyPeer = value === '1' || value === 'true';
      return;
    case 'tls-type':
      if (value !== 'x509') refuse(uri, `TLS of type "${value}" is not supported, only x509`);
      return;
    default:
      refuse(uri, `the parameter "${key}" is not known`);
  }
};

const parseParameters = (uri: string, query: string): Parameters => {
  const found: Parameters = {};
  const seen = new Set<string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const key = decode(uri, equals < 0 ? pair : pair.slice(0, equals));
    if (seen.has(key)) refuse(uri, `the parameter "${key}" stands twice`);
    seen.add(key);
    parseParameter(uri, key, equals < 0 ? '' : decode(uri, pair.slice(equals + 1)), found);
  }
  return found;
};

/** @throws TwinvolError `URI_INVALID` */
export const parseNbdUri = (uri: string): NbdUri => {
  const match = /^([a-z][a-z0-9+.-]*):(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?$/i.exec(uri);
  if (uri.includes('#')) return refuse(uri, 'a "#" has to be written as %23');
  const scheme = SCHEMES.get((match?.[1] ?? '').toLowerCase());
  if (match === null || scheme === undefined) return refuse(uri, 'its scheme is none of nbd, nbds, nbd+unix, nbds+unix');
  const authority = match[2];
  const path = match[3] ?? '';
  if (authority === undefined) return refuse(uri, 'there is no // behind the scheme');
  const exportName = decode(uri, path.startsWith('/') ? path.slice(1) : path);
  if (exportName.includes('\0')) refuse(uri, 'an export name has no NUL');
  if (Buffer.byteLength(exportName) > NBD_STRING_BYTES_MAX) refuse(uri, `an export name has at most ${NBD_STRING_BYTES_MAX} bytes`);
  const { socket, ...tls } = parseParameters(uri, match[4] ?? '');
  if (!scheme.unix) {
    if (socket !== undefined) refuse(uri, 'a socket belongs to nbd+unix or nbds+unix');
    return { tls: scheme.tls, where: { kind: 'tcp', ...parseAuthority(uri, authority) }, exportName, ...tls };
  }
  if (authority !== '') refuse(uri, 'a unix socket has no host: write three slashes');
  if (socket === undefined || socket === '') return refuse(uri, 'the parameter socket=PATH is missing');
  return { tls: scheme.tls, where: { kind: 'unix', path: socket }, exportName, ...tls };
};

/** Percent-encodes what a URI's path or query cannot hold; `/`, `:` and `@` stay readable where `keep` names them. */
const encode = (text: string, keep: RegExp): string => encodeURIComponent(text).replaceAll(keep, (escape) => decodeURIComponent(escape));

/** The URI for people and programs; `parseNbdUri` gives the same back. */
export const formatNbdUri = (parts: NbdUri): string => {
  const { where } = parts;
  const query: string[] = [];
  if (where.kind === 'unix') query.push(`socket=${encode(where.path, /%(2F|3A|40)/g)}`);
  if (parts.tlsHostname !== undefined) query.push(`tls-hostname=${encode(parts.tlsHostname, /%(3A)/g)}`);
  if (parts.tlsCertificates !== undefined) query.push(`tls-certificates=${encode(parts.tlsCertificates, /%(2F|3A|40)/g)}`);
  if (parts.tlsVerifyPeer !== undefined) query.push(`tls-verify-peer=${parts.tlsVerifyPeer ? 1 : 0}`);
  const host = where.kind === 'unix' ? '' : where.host.includes(':') ? `[${where.host}]` : encodeURIComponent(where.host);
  const port = where.kind === 'unix' || where.port === NBD_PORT ? '' : `:${where.port}`;
  const scheme = `nbd${parts.tls ? 's' : ''}${where.kind === 'unix' ? '+unix' : ''}`;
  return `${scheme}://${host}${port}/${encode(parts.exportName, /%(2F|3A|40)/g)}${query.length > 0 ? `?${query.join('&')}` : ''}`;
};
