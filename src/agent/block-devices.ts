/**
 * Block devices as `/sys/block` shows them: what each is, what it stands on, and what stands on it.
 *
 * Disks are `/sys/block/NAME`, partitions folders inside (with a file `partition`). `holders` and `slaves` link
 * device-mapper and md devices with what is below them. `loop/backing_file` is there while a loop device is set up, `pid`
 * while a kernel NBD device is attached (Linux, drivers/block/loop and nbd).
 */
import type { HostTree } from '../platform/host-tree.ts';

export type BlockDevice = {
  /** The kernel's name; `!` stands for `/` in `/dev`. */
  readonly name: string;
  /** `major:minor`. */
  readonly device: string;
  readonly kind: 'nbd' | 'ublk' | 'loop' | 'partition' | 'device-mapper' | 'md' | 'other';
  /** The disk that a partition is a part of. */
  readonly partitionOf: string | null;
  /** Names of devices that hold this one, and that it holds. */
  readonly holders: readonly string[];
  readonly slaves: readonly string[];
  readonly loop: LoopState | null;
  readonly nbd: NbdState | null;
  /** Name in `/dev/mapper`. */
  readonly mapperName: string | null;
  readonly sizeBytes: number;
};

export type LoopState = {
  /** Without the kernel's ` (deleted)`. */
  readonly backingFile: string;
  readonly offsetBytes: number;
  readonly isAutoclear: boolean;
};

export type NbdState = {
  /** The thread that attached it; it is gone where the device was attached through netlink. */
  readonly pid: number | null;
  /** A text of the program that attached it, which may say what it is attached to. */
  readonly backend: string | null;
};

const SECTOR_BYTES = 512;

/** `/dev/loop0`, `/dev/mapper/vg-data`: the name that people use. */
export const devicePath = (device: Pick<BlockDevice, 'name' | 'mapperName'>): string => {
  return device.mapperName === null ? `/dev/${device.name.replaceAll('!', '/')}` : `/dev/mapper/${device.mapperName}`;
};

export const parseLoop = (backingFile: string, offset: string | null, autoclear: string | null): LoopState => {
  return { backingFile: backingFile.replace(/ \(deleted\)$/, ''), offsetBytes: Number(offset ?? 0), isAutoclear: autoclear === '1' };
};

const kindOf = (name: string, hasMapper: boolean, isPartition: boolean): BlockDevice['kind'] => {
  if (isPartition) return 'partition';
  if (hasMapper || name.startsWith('dm-')) return 'device-mapper';
  if (/^md(?:_|\d)/.test(name)) return 'md';
  const match = /^(nbd|loop|ublk)b?\d+$/.exec(name);
  return (match?.[1] as 'nbd' | 'loop' | 'ublk' | undefined) ?? 'other';
};

const namesIn = (tree: HostTree, path: string): readonly string[] => {
  const read = tree.list(path);
  return read.ok ? read.value : [];
};

const readNbd = (tree: HostTree, folder: string): NbdState | null => {
  const pid = tree.line(`${folder}/pid`);
  if (pid === null) return null;
  const backend = tree.line(`${folder}/backend`)?.trim() ?? '';
  return { pid: /^\d+$/.test(pid.trim()) ? Number(pid) : null, backend: backend === '' ? null : backend };
};

const readDevice = (tree: HostTree, folder: string, name: string, partitionOf: string | null): BlockDevice | null => {
  const device = tree.line(`${folder}/dev`);
  // A device that is gone by now, or one that has no number: nothing can be mounted from it.
  if (device === null || !/^\d+:\d+$/.test(device)) return null;
  const mapperName = partitionOf === null ? tree.line(`${folder}/dm/name`) : null;
  const kind = kindOf(name, mapperName !== null, partitionOf !== null);
  const backingFile = kind === 'loop' ? tree.line(`${folder}/loop/backing_file`) : null;
  const at = (file: string): string | null => tree.line(`${folder}/loop/${file}`);
  return {
    name,
    device,
    kind,
    partitionOf,
    holders: namesIn(tree, `${folder}/holders`),
    slaves: namesIn(tree, `${folder}/slaves`),
    loop: backingFile === null ? null : parseLoop(backingFile, at('offset'), at('autoclear')),
    nbd: kind === 'nbd' ? readNbd(tree, folder) : null,
    mapperName,
    sizeBytes: Number(tree.line(`${folder}/size`) ?? 0) * SECTOR_BYTES,
  };
};

/** All block devices with their partitions; null if the folder cannot be read. */
export const readBlockDevices = (tree: HostTree): readonly BlockDevice[] | null => {
  const names = tree.list('/sys/block');
  if (!names.ok) return null;
  return names.value.flatMap((name) => {
    const folder = `/sys/block/${name}`;
    const disk = readDevice(tree, folder, name, null);
    if (disk === null) return [];
    const partitions = namesIn(tree, folder)
      .filter((entry) => entry.startsWith(name) && tree.has(`${folder}/${entry}/partition`))
      .map((entry) => readDevice(tree, `${folder}/${entry}`, entry, name));
    return [disk, ...partitions.filter((partition) => partition !== null)];
  });
};

/** The block devices of each mounted btrfs, by names: it is mounted from one of them and lives on all (`/sys/fs/btrfs`). */
export const readBtrfsMembers = (tree: HostTree): ReadonlyArray<readonly string[]> => {
  return namesIn(tree, '/sys/fs/btrfs')
    .map((uuid) => namesIn(tree, `/sys/fs/btrfs/${uuid}/devices`))
    .filter((members) => members.length > 0);
};
