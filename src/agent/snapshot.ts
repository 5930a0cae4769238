/**
 * One look at a host: everything from which its use of a volume can be seen, read in one go.
 *
 * Every use of a volume stands on an NBD connection, and the kernel lists every connection: so the tables of sockets of
 * all network namespaces, the mount tables of all mount namespaces, and the list of processes have to be complete. Linux
 * lets anybody read these for every process. What only root may read, the open files of other users' processes, tells
 * *who* holds a connection; a connection of nobody visible is a doubt of its own (see `attachments.ts`).
 *
 * What could not be read becomes a gap, and a gap becomes an `unknown` of every answer that is made from the snapshot.
 * The words of a gap name no counts and no process ids, so that the same gap reads the same at every look.
 */
import type { UnknownFact } from '../core/mount-facts.ts';
import type { HostTools } from '../platform/host-tools.ts';
import type { HostTree } from '../platform/host-tree.ts';
import type { BlockDevice } from './block-devices.ts';
import { readBlockDevices, readBtrfsMembers } from './block-devices.ts';
import type { MountEntry } from './mountinfo.ts';
import { parseMountInfo } from './mountinfo.ts';
import type { NbdEndpoint } from './nbd-endpoint.ts';
import { parseNbdtab } from './nbdtab.ts';
import type { HostProcess } from './processes.ts';
import { processOfThread, readProcesses } from './processes.ts';
import type { TcpSocket, UnixSocket } from './sockets.ts';
import { parseTcpTable, parseUnixPairs, parseUnixTable } from './sockets.ts';
import type { SwapEntry } from './swaps.ts';
import { parseSwaps } from './swaps.ts';

export type MountNamespace = {
  /** `mnt:[N]`; null where it could not be read. */
  readonly id: string | null;
  /** null for the agent's own; else a process inside it, or the file it is mounted on. */
  readonly via: string | null;
  readonly mounts: readonly MountEntry[];
};

export type NetNamespace = {
  readonly id: string | null;
  readonly tcp: readonly TcpSocket[];
  readonly unix: readonly UnixSocket[];
  /** Ends of unix connections that belong together; null if nobody could tell. */
  readonly pairs: ReadonlyMap<number, number> | null;
};

export type HostSnapshot = {
  readonly mountNamespaces: readonly MountNamespace[];
  readonly netNamespaces: readonly NetNamespace[];
  readonly processes: readonly HostProcess[];
  readonly blockDevices: readonly BlockDevice[];
  readonly btrfsMembers: ReadonlyArray<readonly string[]>;
  readonly swaps: readonly SwapEntry[];
  /** Kernel NBD device to the process that attached it, where that process is alive. */
  readonly nbdOwners: ReadonlyMap<string, number>;
  readonly nbdtab: ReadonlyMap<string, NbdEndpoint>;
  readonly gaps: readonly UnknownFact[];
};

export type HostProbe = {
  readonly tree: HostTree;
  readonly tools: HostTools;
  /** `machine`: processes outside the agent's PID namespace are part of the host as well, and cannot be seen from it. */
  readonly scope: 'machine' | 'namespace';
};

/** Gaps as they are found; the same one counts once. */
class GapList {
  readonly #gaps = new Map<string, UnknownFact>();

  add(what: string, why: string): void {
    this.#gaps.set(`${what} ${why}`, { kind: 'unknown', what, why, connections: [] });
  }

  get all(): readonly UnknownFact[] {
    return [...this.#gaps.values()];
  }
}

const isForbidden = (code: string): boolean => code === 'EACCES' || code === 'EPERM';
const NO_PERMISSION = 'no permission: the agent has to run as root to see it';
/** The first PID namespace of a machine has this number (Linux, PROC_PID_INIT_INO). */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';
const CAP_SYS_PTRACE_BIT = 19n;

const mountsOf = (text: string, gaps: GapList): readonly MountEntry[] => {
  const { entries, unreadableLines } = parseMountInfo(text);
  if (unreadableLines > 0) gaps.add('some lines of a mount table', 'they have an unknown form');
  return entries;
};

const readOwnMounts = (tree: HostTree, gaps: GapList): MountNamespace => {
  const id = tree.link('/proc/self/ns/mnt');
  const text = tree.text('/proc/self/mountinfo');
  if (!text.ok) gaps.add('the mount table', `/proc/self/mountinfo: ${text.code}`);
  return { id: id.ok ? id.value : null, via: null, mounts: text.ok ? mountsOf(text.value, gaps) : [] };
};

/**
 * The mount tables of all other namespaces that a process lives in. A process with a root folder of its own sees only the
 * mounts below that, so namespaces are told apart with their roots; where their names cannot be read, by what is mounted.
 */
const readOtherMounts = (
  tree: HostTree,
  processes: readonly HostProcess[],
  own: MountNamespace,
  gaps: GapList,
): readonly MountNamespace[] => {
  const found = new Map<string, MountNamespace>();
  for (const { mountNamespace, root, pid, name } of processes) {
    if (mountNamespace !== null && (mountNamespace === own.id || found.has(`${mountNamespace} ${root ?? ''}`))) continue;
    const text = tree.text(`/proc/${pid}/mountinfo`);
    if (text.ok) {
      const key = mountNamespace === null ? text.value : `${mountNamespace} ${root ?? ''}`;
      if (!found.has(key)) found.set(key, { id: mountNamespace, via: `${name} (pid ${pid})`, mounts: mountsOf(text.value, gaps) });
    } else if (isForbidden(text.code)) {
      gaps.add("the mount tables of other users' processes", NO_PERMISSION);
    }
    // Anything else: the process ended meanwhile. Another one of its namespace, if there is one, is read instead.
  }
  return [...found.values()];
};

/** Namespaces that are kept alive by a mount, not by a process: `/run/netns/NAME`. */
const keptNamespaces = (
  mounts: readonly MountNamespace[],
  kind: 'mnt' | 'net',
  seen: ReadonlySet<string | null>,
): ReadonlyMap<string, { readonly file: string; readonly isReachable: boolean }> => {
  const kept = new Map<string, { readonly file: string; readonly isReachable: boolean }>();
  for (const { via, mounts: entries } of mounts) {
    for (const entry of entries) {
      if (entry.fileSystem !== 'nsfs' || !entry.root.startsWith(`${kind}:[`) || seen.has(entry.root)) continue;
      const isReachable = via === null;
      if (isReachable || !kept.has(entry.root)) kept.set(entry.root, { file: entry.mountPoint, isReachable });
    }
  }
  return kept;
};

/** Whether a namespace is still there. One that was removed while the agent looked hides nothing: it was empty. */
const isStillKept = (tree: HostTree, id: string): boolean => {
  const text = tree.text('/proc/self/mountinfo');
  return !text.ok || parseMountInfo(text.value).entries.some((entry) => entry.fileSystem === 'nsfs' && entry.root === id);
};

const readKeptMounts = async (probe: HostProbe, known: readonly MountNamespace[], gaps: GapList): Promise<readonly MountNamespace[]> => {
  const namespaces: MountNamespace[] = [];
  for (const [id, { file, isReachable }] of keptNamespaces(known, 'mnt', new Set(known.map((namespace) => namespace.id)))) {
    const text = isReachable ? await probe.tools.mountTable(file) : null;
    if (text === null && isReachable && !isStillKept(probe.tree, id)) continue;
    if (text === null) gaps.add('a mount namespace without processes', 'it could not be entered');
    else namespaces.push({ id, via: file, mounts: mountsOf(text, gaps) });
  }
  return namespaces;
};

type SocketTables = { readonly tcp: readonly TcpSocket[]; readonly unix: readonly UnixSocket[] };

const readSockets = (tree: HostTree, folder: string): SocketTables | null => {
  const [tcp, tcp6, unix] = [tree.text(`${folder}/tcp`), tree.text(`${folder}/tcp6`), tree.text(`${folder}/unix`)];
  // Without IPv6 there is no tcp6; without the other two nothing can be said.
  if (!tcp.ok || !unix.ok) return null;
  return { tcp: [...parseTcpTable(tcp.value), ...(tcp6.ok ? parseTcpTable(tcp6.value) : [])], unix: parseUnixTable(unix.value) };
};

const withPairs = async (
  probe: HostProbe,
  id: string | null,
  file: string | null,
  tables: SocketTables,
  isWanted: WantsPairs,
): Promise<NetNamespace> => {
  if (!tables.unix.some(isWanted)) return { id, ...tables, pairs: new Map() };
  const text = await probe.tools.unixSocketPairs(file);
  return { id, ...tables, pairs: text === null ? null : parseUnixPairs(text) };
};

/** Whether the other end of this socket is of interest. */
export type WantsPairs = (socket: UnixSocket) => boolean;

const readNetNamespaces = async (
  probe: HostProbe,
  processes: readonly HostProcess[],
  mounts: readonly MountNamespace[],
  isWanted: WantsPairs,
  gaps: GapList,
): Promise<readonly NetNamespace[]> => {
  const { tree, tools } = probe;
  const found = new Map<string | null, Promise<NetNamespace>>();
  const tableFiles = new Set<number>();
  const read = (folder: string, id: string | null, namespaceFile: string | null): void => {
    // The same table has the same inode for whichever process it is asked: the namespace's name where that is secret.
    const inode = tree.inode(`${folder}/tcp`);
    if (!inode.ok && isForbidden(inode.code)) gaps.add("the network connections of other users' processes", NO_PERMISSION);
    if (!inode.ok || tableFiles.has(inode.value)) return;
    const tables = readSockets(tree, folder);
    if (tables === null) return;
    tableFiles.add(inode.value);
    found.set(id ?? `table ${inode.value}`, withPairs(probe, id, namespaceFile, tables, isWanted));
  };
  const ownLink = tree.link('/proc/self/ns/net');
  read('/proc/net', ownLink.ok ? ownLink.value : null, null);
  if (found.size === 0) gaps.add('the network connections', '/proc/net could not be read');
  for (const { netNamespace, pid } of processes) {
    if (netNamespace === null || !found.has(netNamespace)) read(`/proc/${pid}/net`, netNamespace, `/proc/${pid}/ns/net`);
  }
  for (const [id, { file, isReachable }] of keptNamespaces(mounts, 'net', new Set(found.keys()))) {
    const text = isReachable ? await tools.socketTables(file) : null;
    if (text === null && isReachable && !isStillKept(tree, id)) continue;
    if (text === null) gaps.add('the network connections of a namespace without processes', 'it could not be entered');
    else
      found.set(
        id,
        withPairs(
          probe,
          id,
          file,
          { tcp: [...parseTcpTable(text.tcp), ...parseTcpTable(text.tcp6)], unix: parseUnixTable(text.unix) },
          isWanted,
        ),
      );
  }
  return Promise.all(found.values());
};

/** What hides processes from the agent as a whole. */
const checkView = (probe: HostProbe, ownMounts: readonly MountEntry[], gaps: GapList): void => {
  const { tree, scope } = probe;
  const pidNamespace = tree.link('/proc/self/ns/pid');
  if (scope === 'machine' && (!pidNamespace.ok || pidNamespace.value !== FIRST_PID_NAMESPACE)) {
    gaps.add('processes outside its PID namespace', 'the agent runs in a container');
  }
  const capabilities = /^CapEff:\s*([0-9a-f]+)/im.exec(tree.line('/proc/self/status') ?? '')?.[1] ?? '0';
  const seesAll = ((BigInt(`0x${capabilities}`) >> CAP_SYS_PTRACE_BIT) & 1n) === 1n;
  const proc = ownMounts.findLast((entry) => entry.mountPoint === '/proc' && entry.fileSystem === 'proc');
  const hides = proc?.superOptions.some((option) => option.startsWith('hidepid=') && !/=(?:0|off)$/.test(option)) ?? false;
  if (hides && !seesAll) gaps.add("other users' processes", '/proc is mounted with hidepid');
};

const readSwaps = (tree: HostTree, gaps: GapList): readonly SwapEntry[] => {
  const text = tree.text('/proc/swaps');
  // A kernel without swap has no such file.
  if (!text.ok && text.code !== 'ENOENT') gaps.add('swap space', `/proc/swaps: ${text.code}`);
  const { entries, unreadableLines } = parseSwaps(text.ok ? text.value : '');
  if (unreadableLines > 0) gaps.add('some lines of /proc/swaps', 'they have an unknown form');
  return entries;
};

const readNbdOwners = (tree: HostTree, devices: readonly BlockDevice[]): ReadonlyMap<string, number> => {
  const owners = new Map<string, number>();
  for (const { name, nbd } of devices) {
    const owner = nbd === null || nbd.pid === null ? null : processOfThread(tree, nbd.pid);
    if (owner !== null) owners.set(name, owner);
  }
  return owners;
};

/** The clients of programs that pass on an export are wanted too: they may be clients of the target, one step away. */
const wantedOf = (processes: readonly HostProcess[], isWanted: WantsPairs): WantsPairs => {
  const servers = processes.filter((process) => process.commandLine.isNbdServer);
  return (socket) =>
    isWanted(socket) || (socket.isConnected && socket.path !== '' && servers.some((server) => server.sockets.has(socket.inode)));
};

export const takeSnapshot = async (probe: HostProbe, isWanted: WantsPairs): Promise<HostSnapshot> => {
  const { tree } = probe;
  const gaps = new GapList();
  const self = tree.link('/proc/self');
  const processes = readProcesses(tree, self.ok ? Number(self.value) : 0);
  if (processes === null) gaps.add('the processes', '/proc could not be read');
  const visible = processes ?? [];
  const ownMounts = readOwnMounts(tree, gaps);
  checkView(probe, ownMounts.mounts, gaps);
  const named = [ownMounts, ...readOtherMounts(tree, visible, ownMounts, gaps)];
  const mountNamespaces = [...named, ...(await readKeptMounts(probe, named, gaps))];
  const netNamespaces = await readNetNamespaces(probe, visible, mountNamespaces, wantedOf(visible, isWanted), gaps);
  const blockDevices = readBlockDevices(tree);
  if (blockDevices === null) gaps.add('the block devices', '/sys/block could not be read');
  const nbdtab = tree.text('/etc/nbdtab');
  return {
    mountNamespaces,
    netNamespaces,
    processes: visible,
    blockDevices: blockDevices ?? [],
    btrfsMembers: readBtrfsMembers(tree),
    swaps: readSwaps(tree, gaps),
    nbdOwners: readNbdOwners(tree, blockDevices ?? []),
    nbdtab: parseNbdtab(nbdtab.ok ? nbdtab.value : ''),
    gaps: gaps.all,
  };
};
