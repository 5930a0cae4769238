/**
 * What qemu's programs say about NBD on their command lines: block nodes with the driver `nbd`, written as
 * `key=value,...` or as JSON, and the FUSE exports of qemu-storage-daemon that lead to them.
 *
 * Pure. Options are `--blockdev VALUE` or `--blockdev=VALUE`; in a value `,,` stands for a comma. A key may have a
 * prefix (`file.driver=nbd,file.host=...`). A node names the nodes below it by their `node-name`.
 */
import type { NbdEndpoint, NbdServer } from './nbd-endpoint.ts';
import { NBD_PORT_DEFAULT } from './nbd-endpoint.ts';

export type QemuNbdUse = { readonly endpoint: NbdEndpoint; readonly mountPoints: readonly string[] };

type Options = ReadonlyMap<string, string>;

const JSON_DEPTH_MAX = 32;

const flatten = (value: unknown, prefix: string, into: Map<string, string>, depth: number): void => {
  if (typeof value === 'object' && value !== null && depth < JSON_DEPTH_MAX) {
    for (const [key, inner] of Object.entries(value)) flatten(inner, prefix === '' ? key : `${prefix}.${key}`, into, depth + 1);
  } else {
    into.set(prefix, String(value));
  }
};

const splitOnCommas = (value: string): string[] => {
  const parts = [''];
  for (let at = 0; at < value.length; at += 1) {
    const isEscaped = value[at] === ',' && value[at + 1] === ',';
    if (value[at] === ',' && !isEscaped) parts.push('');
    else parts[parts.length - 1] += value[at] ?? '';
    if (isEscaped) at += 1;
  }
  return parts;
};

/** The options of one value. `implicit` is the key that a first part without one has (`driver`, `type`). */
export const qemuOptions = (value: string, implicit: string): Options => {
  const options = new Map<string, string>();
  const json = value.replace(/^json:/, '');
  if (json.startsWith('{')) {
    try {
      flatten(JSON.parse(json), '', options, 0);
    } catch {
      // Not JSON after all: qemu itself would have refused it, so it says nothing about a running one.
    }
    return options;
  }
  for (const [index, part] of splitOnCommas(value).entries()) {
    const equals = part.indexOf('=');
    if (equals > 0) options.set(part.slice(0, equals), part.slice(equals + 1));
    else if (index === 0) options.set(implicit, part);
  }
  return options;
};

const serverAt = (options: Options, prefix: string): NbdServer | null => {
  const get = (key: string): string | undefined => options.get(`${prefix}${key}`);
  const path = get('server.path') ?? get('path');
  if (path !== undefined) return { transport: 'unix', path };
  const host = get('server.host') ?? get('host');
  if (host === undefined) return null;
  const port = Number(get('server.port') ?? get('port') ?? NBD_PORT_DEFAULT);
  return { transport: 'tcp', host, port };
};

/** The NBD endpoints of one value: one for each key `driver` (with any prefix) that is `nbd`. */
const endpointsAt = (options: Options): readonly NbdEndpoint[] => {
  return [...options].flatMap(([key, value]) => {
    if (value !== 'nbd' || !/(?:^|\.)driver$/.test(key)) return [];
    const prefix = key.slice(0, -'driver'.length);
    const server = serverAt(options, prefix);
    return server === null ? [] : [{ server, exportName: options.get(`${prefix}export`) ?? '' }];
  });
};

type Node = { readonly name: string | null; readonly options: Options; readonly endpoints: readonly NbdEndpoint[] };

/** The values of an option, in both spellings. */
const valuesOf = (argv: readonly string[], names: readonly string[]): readonly string[] => {
  return argv.flatMap((arg, index) => {
    const match = /^--?([a-z-]+)(?:=(.*))?$/s.exec(arg);
    if (match === null || !names.includes(match[1] ?? '')) return [];
    const value = match[2] ?? argv[index + 1];
    return value === undefined ? [] : [value];
  });
};

/** True if the node called `from` is the wanted one or stands on it. */
const standsOn = (from: string, wanted: Node, nodes: readonly Node[], seen: Set<string>): boolean => {
  if (wanted.name === from) return true;
  if (seen.has(from)) return false;
  seen.add(from);
  const node = nodes.find((candidate) => candidate.name === from);
  if (node === undefined) return false;
  if (node === wanted) return true;
  const below = [...node.options].filter(([key]) => key !== 'node-name' && key !== 'driver').map(([, value]) => value);
  return below.some((name) => nodes.some((candidate) => candidate.name === name) && standsOn(name, wanted, nodes, seen));
};

export const qemuNbdUses = (argv: readonly string[]): readonly QemuNbdUse[] => {
  const nodes: Node[] = valuesOf(argv, ['blockdev', 'drive', 'image-opts']).map((value) => {
    const options = qemuOptions(value, 'driver');
    return { name: options.get('node-name') ?? null, options, endpoints: endpointsAt(options) };
  });
  const exports = valuesOf(argv, ['export'])
    .map((value) => qemuOptions(value, 'type'))
    .filter((options) => options.get('type') === 'fuse');
  return nodes.flatMap((node) => {
    const mountPoints = exports.flatMap((options) => {
      const [name, mountPoint] = [options.get('node-name'), options.get('mountpoint')];
      return name !== undefined && mountPoint !== undefined && standsOn(name, node, nodes, new Set()) ? [mountPoint] : [];
    });
    return node.endpoints.map((endpoint) => ({ endpoint, mountPoints }));
  });
};
