/**
 * From an attachment upwards: what on this host stands on it, until something is mounted, is swap space, or is held open.
 *
 * Pure over a snapshot. The steps: FUSE file, kernel NBD or ublk device, loop device over a file or device, partition,
 * device-mapper, md and other holders, file systems, swap, and again loop devices over files of those. An attachment on
 * which nothing more is found is itself `open`: so every attachment gives at least one fact, and a way of use that this
 * file does not know (a target driver of the kernel, say) is never taken for none.
 */
import { posix } from 'node:path';
import type { Layer, MountedFact, OpenFact, ProcessRef } from '../core/mount-facts.ts';
import { SWAP_MOUNT_POINT } from '../core/mount-facts.ts';
import type { Attachment } from './attachments.ts';
import type { BlockDevice } from './block-devices.ts';
import { devicePath } from './block-devices.ts';
import type { MountEntry } from './mountinfo.ts';
import { isUnder, mountOf } from './mountinfo.ts';
import type { HostProcess } from './processes.ts';
import type { HostSnapshot, MountNamespace } from './snapshot.ts';

type UseFact = MountedFact | OpenFact;
type PlacedMount = { readonly entry: MountEntry; readonly namespace: MountNamespace };

const LAYER_OF: Readonly<Record<BlockDevice['kind'], Layer['kind']>> = {
  nbd: 'nbd',
  ublk: 'ublk',
  loop: 'loop',
  partition: 'partition',
  'device-mapper': 'device-mapper',
  md: 'md',
  other: 'holder',
};

const isFuse = (entry: MountEntry): boolean => entry.fileSystem === 'fuse' || entry.fileSystem.startsWith('fuse.');

/** Follows one attachment. Remembers where it was, so that a ring of devices ends. */
class Tracer {
  readonly #snapshot: HostSnapshot;
  readonly #attachment: Attachment;
  readonly #mounts: readonly PlacedMount[];
  readonly #seen = new Set<string>();
  readonly #facts: UseFact[] = [];

  constructor(snapshot: HostSnapshot, attachment: Attachment) {
    this.#snapshot = snapshot;
    this.#attachment = attachment;
    this.#mounts = snapshot.mountNamespaces.flatMap((namespace) => namespace.mounts.map((entry) => ({ entry, namespace })));
  }

  facts(): readonly UseFact[] {
    const { process, layers, text } = this.#attachment;
    const fuse = this.#fuseMounts();
    const blocks = this.#snapshot.blockDevices.filter((device) => this.#attachment.blockDevices.includes(device.name));
    const root: readonly Layer[] =
      process.pid === 0 ? layers : [...layers, { kind: 'connection', name: `${process.name} (pid ${process.pid})` }];
    for (const { entry } of fuse) this.#visitFuse(entry, root);
    for (const device of blocks) this.#visitBlock(device, root);
    if (fuse.length === 0 && blocks.length === 0) this.#open(text, layers, [process]);
    return this.#facts;
  }

  /** The FUSE mounts of the attachment: those that it names, or else all that it serves. */
  #fuseMounts(): readonly PlacedMount[] {
    const { mountPoints, servedDevices } = this.#attachment;
    const isAt = (mountPoint: string, path: string): boolean =>
      mountPoint === path || (!path.startsWith('/') && mountPoint.endsWith(`/${path}`));
    const at = (path: string): readonly PlacedMount[] => this.#mounts.filter(({ entry }) => isFuse(entry) && isAt(entry.mountPoint, path));
    const named = mountPoints.flatMap((place) => {
      const exact = at(place);
      return exact.length > 0 ? exact : at(posix.dirname(place));
    });
    const found = named.length > 0 ? named : this.#mounts.filter(({ entry }) => servedDevices.includes(entry.device));
    return [...new Map(found.map((mount) => [mount.entry.device, mount])).values()];
  }

  #isNew(key: string): boolean {
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    return true;
  }

  #open(device: string, layers: readonly Layer[], processes: readonly ProcessRef[]): void {
    this.#facts.push({ kind: 'open', device, layers, processes, connections: this.#attachment.connections });
  }

  /** What is used right here, or higher up: without any of it the place itself is what is open. */
  #concludeAt(factsBefore: number, device: string, layers: readonly Layer[]): void {
    if (this.#facts.length === factsBefore) this.#open(device, layers, [this.#attachment.process]);
  }

  #visitFuse(entry: MountEntry, below: readonly Layer[]): void {
    if (!this.#isNew(`mount ${entry.device}`)) return;
    const layers: Layer[] = [...below, { kind: 'fuse', name: entry.mountPoint }];
    const before = this.#facts.length;
    this.#visitFilesOf(entry.device, layers);
    this.#openersOf((path, namespaces) => this.#liesOn(path, entry.device, namespaces), entry.mountPoint, layers);
    this.#concludeAt(before, entry.mountPoint, layers);
  }

  #visitBlock(device: BlockDevice, below: readonly Layer[]): void {
    if (!this.#isNew(`block ${device.name}`)) return;
    const path = devicePath(device);
    const layers: Layer[] = [...below, { kind: LAYER_OF[device.kind], name: path }];
    const before = this.#facts.length;
    const names = new Set([path, `/dev/${device.name.replaceAll('!', '/')}`]);
    for (const mount of this.#mountsOfBlock(device, names)) this.#mounted(mount, path, layers);
    for (const swap of this.#snapshot.swaps) if (!swap.isFile && names.has(swap.path)) this.#swap(path, layers);
    for (const upper of this.#devicesOn(device, names)) this.#visitBlock(upper, layers);
    this.#openersOf((file) => names.has(file), path, layers);
    this.#concludeAt(before, path, layers);
  }

  #mountsOfBlock(device: BlockDevice, names: ReadonlySet<string>): readonly PlacedMount[] {
    const members = this.#snapshot.btrfsMembers.find((list) => list.includes(device.name)) ?? [];
    const memberPaths = new Set(
      this.#snapshot.blockDevices
        .filter(({ name }) => members.includes(name))
        .flatMap((member) => [devicePath(member), `/dev/${member.name}`]),
    );
    return this.#mounts.filter(({ entry }) => {
      if (entry.device === device.device || names.has(entry.source)) return true;
      if (entry.fileSystem === 'btrfs' && memberPaths.has(entry.source)) return true;
      // A log, journal or real-time device beside the one that is mounted: `logdev=/dev/loop1`.
      return entry.superOptions.some((option) => names.has(option.slice(option.indexOf('=') + 1)));
    });
  }

  #devicesOn(device: BlockDevice, names: ReadonlySet<string>): readonly BlockDevice[] {
    return this.#snapshot.blockDevices.filter((upper) => {
      if (upper.partitionOf === device.name || device.holders.includes(upper.name) || upper.slaves.includes(device.name)) return true;
      return upper.loop !== null && names.has(upper.loop.backingFile);
    });
  }

  #mounted({ entry, namespace }: PlacedMount, device: string, layers: readonly Layer[]): void {
    // The same mount is in every namespace that got a copy of it; one is enough to name.
    if (!this.#isNew(`mounted ${device} ${entry.mountPoint} ${entry.fileSystem} ${entry.isReadOnly}`)) return;
    const { mountPoint, fileSystem } = entry;
    const access = entry.isReadOnly ? 'ro' : 'rw';
    const { connections } = this.#attachment;
    this.#facts.push({ kind: 'mounted', device, mountPoint, fileSystem, access, layers, namespace: namespace.via, connections });
    if (this.#isNew(`mount ${entry.device}`)) this.#visitFilesOf(entry.device, [...layers, { kind: 'file-system', name: mountPoint }]);
  }

  #swap(device: string, layers: readonly Layer[]): void {
    const { connections } = this.#attachment;
    const swapLayers: Layer[] = [...layers, { kind: 'swap', name: device }];
    this.#facts.push({
      kind: 'mounted',
      device,
      mountPoint: SWAP_MOUNT_POINT,
      fileSystem: 'swap',
      access: 'rw',
      layers: swapLayers,
      namespace: null,
      connections,
    });
  }

  /** Loop devices and swap space over files of a file system. */
  #visitFilesOf(fileSystem: string, layers: readonly Layer[]): void {
    const { blockDevices, mountNamespaces, swaps } = this.#snapshot;
    for (const device of blockDevices) {
      if (device.loop !== null && this.#liesOn(device.loop.backingFile, fileSystem, mountNamespaces)) this.#visitBlock(device, layers);
    }
    for (const swap of swaps) if (swap.isFile && this.#liesOn(swap.path, fileSystem, mountNamespaces)) this.#swap(swap.path, layers);
  }

  #liesOn(path: string, fileSystem: string, namespaces: readonly MountNamespace[]): boolean {
    return namespaces.some(({ mounts }) => {
      const isNear = mounts.some((entry) => entry.device === fileSystem && isUnder(path, entry.mountPoint));
      return isNear && mountOf(path, mounts)?.device === fileSystem;
    });
  }

  #namespacesOf(process: HostProcess): readonly MountNamespace[] {
    const own = this.#snapshot.mountNamespaces.filter((namespace) => namespace.id !== null && namespace.id === process.mountNamespace);
    return own.length > 0 ? own : this.#snapshot.mountNamespaces;
  }

  /** Processes with an open descriptor for the place, all in one fact; the attachment's own process holds what it serves. */
  #openersOf(isPlace: (path: string, namespaces: readonly MountNamespace[]) => boolean, device: string, layers: readonly Layer[]): void {
    const openers = this.#snapshot.processes.filter((process) => {
      if (process.pid === this.#attachment.process.pid) return false;
      const paths = (process.openFiles ?? []).map((file) => file.target).filter((target) => target.startsWith('/'));
      return paths.some((path) => isPlace(path, this.#namespacesOf(process)));
    });
    if (openers.length > 0) {
      const processes = openers.map(({ name, pid }) => ({ name, pid }));
      this.#open(device, layers, processes);
    }
  }
}

/** Every use of the volume through this attachment; at least one. */
export const traceUses = (attachment: Attachment, snapshot: HostSnapshot): readonly UseFact[] => new Tracer(snapshot, attachment).facts();
