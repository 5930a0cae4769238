/**
 * The kernel's tables of sockets: `/proc/net/tcp`, `/proc/net/tcp6`, `/proc/net/unix` (Linux, proc(5), unix(7)), and the
 * pairs of unix sockets as `ss -xn` lists them. Pure parsers.
 *
 * A socket of a client is known by its inode, which the open files of a process name as `socket:[INODE]`. The client's
 * end of a unix connection has no path; the server's end carries the path that the server was bound to.
 */

export type TcpSocket = {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isListening: boolean;
  /** Connected, or about to be, or not yet closed by its owner. */
  readonly isConnected: boolean;
  /** 0: no process owns it any more. */
  readonly inode: number;
};
/** `address` in the usual text form; IPv4 inside IPv6 is written as IPv4. */
export type SocketAddress = { readonly address: string; readonly port: number };

export type UnixSocket = {
  readonly inode: number;
  /** Empty for an unnamed socket; with `@` in front for an abstract one. */
  readonly path: string;
  readonly isListening: boolean;
  readonly isConnected: boolean;
};

/** The kernel prints each 32-bit word of an address in the machine's order; all machines that Node 20 runs on are little-endian. */
const addressBytes = (hex: string): number[] => {
  const bytes: number[] = [];
  for (let word = 0; word < hex.length; word += 8) {
    for (let byte = 3; byte >= 0; byte -= 1) bytes.push(Number.parseInt(hex.slice(word + byte * 2, word + byte * 2 + 2), 16));
  }
  return bytes;
};

/** Text of an IPv6 address as RFC 5952 has it: lower case, the longest run of zero groups (two at least) as `::`. */
const ipv6Text = (bytes: readonly number[]): string => {
  const groups: number[] = [];
  for (let at = 0; at < 16; at += 2) groups.push((bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0));
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start += 1) {
    let end = start;
    while (end < 8 && groups[end] === 0) end += 1;
    if (end - start > bestLength) [bestStart, bestLength] = [start, end - start];
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestStart === -1) return hex(groups);
  return `${hex(groups.slice(0, bestStart))}::${hex(groups.slice(bestStart + bestLength))}`;
};

const socketAddress = (text: string): SocketAddress | null => {
  const match = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/i.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return null;
  const bytes = addressBytes(match[1]);
  const port = Number.parseInt(match[2], 16);
  const isMapped = bytes.length === 16 && bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (bytes.length === 4 || isMapped) return { address: bytes.slice(-4).join('.'), port };
  return { address: ipv6Text(bytes), port };
};

/** States of a TCP socket in which its owner still has it: all but TIME_WAIT (6), CLOSE (7) and LISTEN (10). */
const CONNECTED_STATES: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 8, 9, 11, 12]);
const LISTEN_STATE = 10;

export const parseTcpTable = (text: string): readonly TcpSocket[] => {
  return text.split('\n').flatMap((line) => {
    const [, localText, remoteText, stateText, , , , , , inodeText] = line.trim().split(/\s+/);
    const local = socketAddress(localText ?? '');
    const remote = socketAddress(remoteText ?? '');
    const inode = Number(inodeText);
    if (local === null || remote === null || !Number.isSafeInteger(inode)) return [];
    const state = Number.parseInt(stateText ?? '', 16);
    return [{ local, remote, isListening: state === LISTEN_STATE, isConnected: CONNECTED_STATES.has(state), inode }];
  });
};

/** Flag of a socket that accepts connections, and the state of a connected one (Linux, `struct socket`). */
const ACCEPTS = 0x10000;
const CONNECTED = 3;

export const parseUnixTable = (text: string): readonly UnixSocket[] => {
  return text.split('\n').flatMap((line) => {
    // Num: RefCount Protocol Flags Type St Inode [Path]; the path is the rest of the line, blanks included.
    const match = /^[0-9a-f]+: [0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) +(\d+)(?: (.*))?$/i.exec(line);
    if (match === null) return [];
    const [, flags, state, inode, path] = match;
    const isListening = (Number.parseInt(flags ?? '0', 16) & ACCEPTS) !== 0;
    return [
      { inode: Number(inode), path: path ?? '', isListening, isConnected: !isListening && Number.parseInt(state ?? '0', 16) === CONNECTED },
    ];
  });
};

/** Inode to the other end's inode, from `ss -xnH`. A line that cannot be read is left out: its socket has no known other end. */
export const parseUnixPairs = (text: string): ReadonlyMap<number, number> => {
  const pairs = new Map<number, number>();
  for (const line of text.split('\n')) {
    // u_str ESTAB 0 0 PATH-or-* INODE PEER-PATH-or-* PEER-INODE
    const match = /^u_\S+\s+\S+\s+\d+\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)\s*$/.exec(line);
    const own = Number(match?.[1]);
    const peer = Number(match?.[2]);
    if (match === null || own === 0 || peer === 0) continue;
    pairs.set(own, peer);
    pairs.set(peer, own);
  }
  return pairs;
};
