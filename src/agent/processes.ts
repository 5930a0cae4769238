/**
 * Processes and what they hold open, as `/proc/PID` shows them (Linux, proc(5)).
 *
 * Other users' open files can be read by root only, and some not even by root. A process whose files could not be read
 * has `openFiles` null, which is not the same as none. Kernel threads hold no files and are left out. Processes that end while they are read are left
 * out as well: what they held, they hold no longer.
 */
import type { HostTree } from '../platform/host-tree.ts';
import type { CommandLine } from './command-line.ts';
import { parseCommandLine } from './command-line.ts';

export type OpenFile = {
  /** What the descriptor is: a path, `socket:[INODE]`, `pipe:[INODE]`, `anon_inode:...`. */
  readonly target: string;
  /** For `/dev/fuse`: the minor number of the FUSE file system that it serves, where the kernel tells it. */
  readonly fuseConnection: number | null;
};

export type HostProcess = {
  readonly pid: number;
  readonly parentPid: number;
  readonly name: string;
  readonly argv: readonly string[];
  readonly commandLine: CommandLine;
  /** Working directory; null if it could not be read. */
  readonly folder: string | null;
  /** Root folder; null if it could not be read. */
  readonly root: string | null;
  readonly openFiles: readonly OpenFile[] | null;
  /** Inodes of its sockets. */
  readonly sockets: ReadonlySet<number>;
  /** `mnt:[N]` and `net:[N]`; null if they could not be read. */
  readonly mountNamespace: string | null;
  readonly netNamespace: string | null;
};

/** Flag of a kernel thread in `/proc/PID/stat` (Linux, PF_KTHREAD). */
const KERNEL_THREAD = 0x00200000;

/** `PID (NAME) STATE PPID PGRP SESSION TTY TPGID FLAGS ...`; the name may hold blanks and brackets. */
export const parseStat = (
  text: string,
): { readonly name: string; readonly state: string; readonly parentPid: number; readonly flags: number } | null => {
  const match = /^\d+ \((.*)\) (\S) (\d+) (?:-?\d+ ){4}(\d+) /s.exec(text);
  if (match === null) return null;
  return { name: match[1] ?? '', state: match[2] ?? '', parentPid: Number(match[3]), flags: Number(match[4]) };
};

/** The process, or the file, is no more. Every other failure means that something could not be seen. */
const isGone = (code: string): boolean => code === 'ENOENT' || code === 'ESRCH';

const readOpenFiles = (tree: HostTree, folder: string): readonly OpenFile[] | null | 'gone' => {
  const names = tree.list(`${folder}/fd`);
  if (!names.ok) return isGone(names.code) ? 'gone' : null;
  const files: OpenFile[] = [];
  for (const name of names.value) {
    const link = tree.link(`${folder}/fd/${name}`);
    if (!link.ok) {
      if (isGone(link.code)) continue;
      return null;
    }
    const info = link.value === '/dev/fuse' ? tree.text(`${folder}/fdinfo/${name}`) : null;
    const connection = info?.ok === true ? /^fuse_connection:\s*(\d+)/m.exec(info.value)?.[1] : undefined;
    files.push({ target: link.value, fuseConnection: connection === undefined ? null : Number(connection) });
  }
  return files;
};

const linkOrNull = (tree: HostTree, path: string): string | null => {
  const link = tree.link(path);
  return link.ok ? link.value : null;
};

const socketsIn = (files: readonly OpenFile[] | null): ReadonlySet<number> => {
  const inodes = (files ?? []).map((file) => /^socket:\[(\d+)\]$/.exec(file.target)?.[1]);
  return new Set(inodes.flatMap((inode) => (inode === undefined ? [] : [Number(inode)])));
};

const readProcess = (tree: HostTree, pid: number): HostProcess | null => {
  const folder = `/proc/${pid}`;
  const statText = tree.text(`${folder}/stat`);
  const stat = statText.ok ? parseStat(statText.value) : null;
  if (stat === null || (stat.flags & KERNEL_THREAD) !== 0 || stat.state === 'Z' || stat.state === 'X') return null;
  const openFiles = readOpenFiles(tree, folder);
  if (openFiles === 'gone') return null;
  const argv = (tree.line(`${folder}/cmdline`) ?? '').split('\0');
  if (argv.at(-1) === '') argv.pop();
  return {
    pid,
    parentPid: stat.parentPid,
    name: stat.name,
    argv,
    commandLine: parseCommandLine(argv, stat.name),
    folder: linkOrNull(tree, `${folder}/cwd`),
    root: linkOrNull(tree, `${folder}/root`),
    openFiles,
    sockets: socketsIn(openFiles),
    mountNamespace: linkOrNull(tree, `${folder}/ns/mnt`),
    netNamespace: linkOrNull(tree, `${folder}/ns/net`),
  };
};

/** All processes that can be seen, without `ownPid`; null if `/proc` cannot be listed. */
export const readProcesses = (tree: HostTree, ownPid: number): readonly HostProcess[] | null => {
  const names = tree.list('/proc');
  if (!names.ok) return null;
  return names.value
    .filter((name) => /^\d+$/.test(name) && Number(name) !== ownPid)
    .map((name) => readProcess(tree, Number(name)))
    .filter((found) => found !== null);
};

/** The process to which a thread belongs; null if it is gone. */
export const processOfThread = (tree: HostTree, threadId: number): number | null => {
  const status = tree.text(`/proc/${threadId}/status`);
  const match = status.ok ? /^Tgid:\s*(\d+)/m.exec(status.value) : null;
  return match === null ? null : Number(match[1]);
};
