/**
 * `/proc/PID/mountinfo`: what is mounted in one mount namespace (Linux, proc(5)).
 *
 * Pure parser. A line that cannot be read is counted, not dropped in silence: it may be the mount that was asked for.
 */
import { decodeOctal } from './octal.ts';

export type MountEntry = {
  readonly id: number;
  /** `major:minor` of the file system; not of a block device for btrfs and FUSE. */
  readonly device: string;
  /** The part of the file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly isReadOnly: boolean;
  /** `ext4`, `fuse.nbdfuse`, ... */
  readonly fileSystem: string;
  readonly source: string;
  /** Options of the file system itself, not of this mount of it. */
  readonly superOptions: readonly string[];
};

export type MountTable = { readonly entries: readonly MountEntry[]; readonly unreadableLines: number };

const entryOf = (line: string): MountEntry | null => {
  const fields = line.split(' ');
  // Optional fields (`shared:1`) stand between the sixth field and a lone dash.
  const dash = fields.indexOf('-', 6);
  const [id, , device, root, mountPoint, options] = fields;
  const [fileSystem, source, superOptions] = dash === -1 ? [] : fields.slice(dash + 1);
  if (root === undefined || mountPoint === undefined || options === undefined || fileSystem === undefined || source === undefined)
    return null;
  if (!/^\d+$/.test(id ?? '') || device === undefined || !/^\d+:\d+$/.test(device)) return null;
  const superList = (superOptions ?? '').split(',').map(decodeOctal);
  return {
    id: Number(id),
    device,
    root: decodeOctal(root),
    mountPoint: decodeOctal(mountPoint),
    isReadOnly: options.split(',').includes('ro') || superList.includes('ro'),
    fileSystem: decodeOctal(fileSystem),
    source: decodeOctal(source),
    superOptions: superList,
  };
};

export const parseMountInfo = (text: string): MountTable => {
  const entries: MountEntry[] = [];
  let unreadableLines = 0;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const entry = entryOf(line);
    if (entry === null) unreadableLines += 1;
    else entries.push(entry);
  }
  return { entries, unreadableLines };
};

/** Whether `path` is the mount point or below it, by the text of the two. */
export const isUnder = (path: string, mountPoint: string): boolean => {
  return mountPoint === '/' ? path.startsWith('/') : path === mountPoint || path.startsWith(`${mountPoint}/`);
};

/** The mount on which `path` lies: the longest mount point above it, of several at one place the last. */
export const mountOf = (path: string, entries: readonly MountEntry[]): MountEntry | null => {
  let best: MountEntry | null = null;
  for (const entry of entries) {
    if (isUnder(path, entry.mountPoint) && entry.mountPoint.length >= (best?.mountPoint.length ?? 0)) best = entry;
  }
  return best;
};
