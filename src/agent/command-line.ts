/**
 * What a process's command line says about the NBD exports that it uses: nbdfuse, nbdublk, nbd-client, qemu's programs,
 * nbdkit's nbd plugin, and any program that is given an NBD URI.
 *
 * Pure. A command line is a claim, not a proof: an editor may have a URI in its arguments. `isNbdProgram` says whether
 * the program is one that would connect to what it names; for others the sockets decide.
 */
import type { NbdEndpoint } from './nbd-endpoint.ts';
import { NBD_PORT_DEFAULT, parseNbdUri, parseQemuNbdName } from './nbd-endpoint.ts';
import { qemuNbdUses } from './qemu-options.ts';

export type NbdUse = {
  readonly endpoint: NbdEndpoint;
  /** Where it shows the export as a file, as written: a FUSE mount point, or a file in one. */
  readonly mountPoints: readonly string[];
};

export type CommandLine = {
  /** Name of the program, without its folder. */
  readonly program: string;
  readonly isNbdProgram: boolean;
  /** It passes what it connects to on to clients of its own. */
  readonly isNbdServer: boolean;
  readonly uses: readonly NbdUse[];
  /** FUSE mount points that belong to an export which the command line does not name (`nbdfuse DIR [ CMD ]`). */
  readonly otherMountPoints: readonly string[];
};

const NBD_PROGRAMS: ReadonlySet<string> = new Set([
  ...['nbdfuse', 'nbdublk', 'nbd-client', 'nbdcopy', 'nbdinfo', 'nbddump', 'nbdsh', 'nbdkit', 'fio'],
  ...['qemu-nbd', 'qemu-img', 'qemu-io', 'qemu-storage-daemon', 'qemu-kvm', 'kvm'],
]);
const NBD_SERVERS: ReadonlySet<string> = new Set(['qemu-nbd', 'qemu-storage-daemon', 'nbdkit']);

const URI_IN_TEXT = /\bnbds?(?:\+unix|\+vsock)?:\/\/[^\s'"\\]+/gi;

/** URIs anywhere in an argument. In an option with commas (`file=nbd://...,readonly=on`) a comma ends the URI. */
const endpointsInText = (arg: string): readonly NbdEndpoint[] => {
  const named = parseQemuNbdName(arg.replace(/^(?:file|file\.filename|filename)=/, '').replace(/^json:/, ''));
  const found = [...arg.matchAll(URI_IN_TEXT)].map(([uri]) => {
    const isOption = /^[a-z.-]+=/.test(arg);
    return parseNbdUri(isOption ? (uri.split(/,(?!,)/)[0] ?? uri) : uri);
  });
  return [named, ...found].filter((endpoint) => endpoint !== null);
};

const unix = (path: string, exportName: string | null): NbdEndpoint => ({ server: { transport: 'unix', path }, exportName });
const tcp = (host: string, port: number, exportName: string | null): NbdEndpoint => ({
  server: { transport: 'tcp', host, port },
  exportName,
});

/** Options of nbdfuse and nbdublk that have a value. */
const LIBNBD_VALUED: ReadonlySet<string> = new Set(['-C', '--connections', '-o', '-P', '--pidfile']);

/** `nbdfuse [options] MOUNTPOINT[/FILE] URI | --unix SOCKET | --tcp HOST PORT | [ CMD ] | --command CMD ... | --fd N`, nbdublk alike. */
const libnbdMount = (args: readonly string[]): { readonly place: string | null; readonly endpoint: NbdEndpoint | null } => {
  let place: string | null = null;
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at] ?? '';
    if (LIBNBD_VALUED.has(arg)) at += 1;
    else if (arg === '--unix') return { place, endpoint: unix(args[at + 1] ?? '', '') };
    else if (arg === '--tcp') return { place, endpoint: tcp(args[at + 1] ?? '', Number(args[at + 2]), '') };
    else if (arg.startsWith('-')) continue;
    else if (place === null) place = arg;
    else return { place, endpoint: parseNbdUri(arg) };
  }
  return { place, endpoint: null };
};

/** Options of nbd-client that have a value, without their dashes; it takes long options with one dash as well. */
const NBD_CLIENT_VALUED: ReadonlySet<string> = new Set([
  ...['block-size', 'b', 'timeout', 't', 'connections', 'C', 'certfile', 'F', 'keyfile', 'K', 'cacertfile', 'A'],
  ...['tlshostname', 'H', 'priority', 'i', 'ident', 'tlsprio'],
]);

/** `nbd-client [-N EXPORT] HOST [PORT] DEVICE`, `nbd-client -unix PATH DEVICE`. */
const nbdClientEndpoint = (args: readonly string[]): NbdEndpoint | null => {
  let exportName = '';
  let path: string | null = null;
  const positional: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const match = /^--?([A-Za-z][A-Za-z-]*)(?:=(.*))?$/s.exec(args[at] ?? '');
    const option = match?.[1];
    if (option === undefined) {
      positional.push(args[at] ?? '');
      continue;
    }
    const isValued = ['name', 'N', 'unix', 'u'].includes(option) || NBD_CLIENT_VALUED.has(option);
    const value = match?.[2] ?? (isValued ? (args[(at += 1)] ?? '') : '');
    if (option === 'name' || option === 'N') exportName = value;
    if (option === 'unix' || option === 'u') path = value;
  }
  if (path !== null) return unix(path, exportName);
  const words = positional.filter((word) => !/^(?:bs|timeout)=/.test(word));
  const [host, second] = words;
  if (host === undefined || host.startsWith('/dev/')) return null;
  return tcp(host, second !== undefined && /^\d+$/.test(second) ? Number(second) : NBD_PORT_DEFAULT, exportName);
};

/** `nbdkit nbd socket=PATH|hostname=H port=P|uri=URI export=E`; filters and options may stand before the plugin's name. */
const nbdkitEndpoint = (args: readonly string[]): NbdEndpoint | null => {
  if (!args.some((arg) => /(?:^|\/)(?:nbd|nbdkit-nbd-plugin\.so)$/.test(arg))) return null;
  const value = (key: string): string | null => args.find((arg) => arg.startsWith(`${key}=`))?.slice(key.length + 1) ?? null;
  const exportName = value('export') ?? '';
  const socket = value('socket');
  if (socket !== null) return unix(socket, exportName);
  const host = value('hostname') ?? value('host');
  if (host !== null) return tcp(host, Number(value('port') ?? NBD_PORT_DEFAULT), exportName);
  return null;
};

const sameEndpoint = (a: NbdEndpoint, b: NbdEndpoint): boolean => JSON.stringify(a) === JSON.stringify(b);

const programName = (argv: readonly string[], commandName: string): string => {
  const path = argv[0] ?? commandName;
  return path.slice(path.lastIndexOf('/') + 1);
};

/** Special forms first, URIs in any argument after them; none twice. */
const usesOf = (program: string, args: readonly string[]): { readonly uses: NbdUse[]; readonly otherMountPoints: readonly string[] } => {
  const uses: NbdUse[] = [];
  if (program === 'nbdfuse' || program === 'nbdublk') {
    const { place, endpoint } = libnbdMount(args);
    const mountPoints = program === 'nbdfuse' && place !== null ? [place] : [];
    if (endpoint !== null) return { uses: [{ endpoint, mountPoints }], otherMountPoints: [] };
    // What stands behind [ or --command is the server's command line, not this program's.
    return { uses: [], otherMountPoints: mountPoints };
  }
  if (program.startsWith('qemu') || program === 'kvm') uses.push(...qemuNbdUses(args));
  const special = program === 'nbd-client' ? nbdClientEndpoint(args) : program === 'nbdkit' ? nbdkitEndpoint(args) : null;
  if (special !== null) uses.push({ endpoint: special, mountPoints: [] });
  for (const endpoint of args.flatMap(endpointsInText)) {
    if (!uses.some((use) => sameEndpoint(use.endpoint, endpoint))) uses.push({ endpoint, mountPoints: [] });
  }
  return { uses, otherMountPoints: [] };
};

/** @param commandName the kernel's name of the process, for one that has no arguments */
export const parseCommandLine = (argv: readonly string[], commandName: string): CommandLine => {
  const program = programName(argv, commandName);
  const isNbdProgram = NBD_PROGRAMS.has(program) || program.startsWith('qemu-system-');
  return { program, isNbdProgram, isNbdServer: NBD_SERVERS.has(program), ...usesOf(program, argv.slice(1)) };
};
