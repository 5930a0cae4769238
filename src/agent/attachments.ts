/**
 * Who on this host is attached to a target's export: processes that speak NBD, and kernel NBD devices.
 *
 * Pure over a snapshot. The evidence: a command line that names the export, a connection to the server, and for kernel
 * devices the process that attached them, `backend`, or nbdtab. A connection whose export cannot be told becomes a doubt
 * that carries its `ConnectionRef`, by which the device can settle it. Programs that serve on what they are attached to
 * (qemu-nbd, nbdkit, qemu-storage-daemon) are followed to their own clients.
 *
 * The pairs of unix sockets have to be known to be followed; where they are not (`ss` is missing) command lines still
 * count, and each connection that nobody visible holds is a doubt.
 */
import { posix } from 'node:path';
import type { ConnectionRef, Layer, ProcessRef, UnknownFact } from '../core/mount-facts.ts';
import { devicePath } from './block-devices.ts';
import type { NbdUse } from './command-line.ts';
import type { NbdEndpoint } from './nbd-endpoint.ts';
import { endpointText, parseNbdUri } from './nbd-endpoint.ts';
import type { HostProcess } from './processes.ts';
import type { HostSnapshot } from './snapshot.ts';
import type { HostConnection, TargetServer } from './target-server.ts';
import { connectionsTo, connectionsToProcess, isSameServer, isTargetExport } from './target-server.ts';

export type Attachment = {
  /** Who holds it: a process, or the kernel (`pid` 0). */
  readonly process: ProcessRef;
  /** What it holds, in the words of a URI or a device path. */
  readonly text: string;
  readonly connections: readonly ConnectionRef[];
  /** What lies between the export and this. */
  readonly layers: readonly Layer[];
  /**
   * FUSE mount points, or files in them, through which it says that it shows the volume. Absolute, or relative to a
   * folder that could not be read.
   */
  readonly mountPoints: readonly string[];
  /** All FUSE file systems that it serves, as `major:minor`, where the kernel tells. */
  readonly servedDevices: readonly string[];
  /** Block devices that it gives rise to, by kernel name. */
  readonly blockDevices: readonly string[];
};

export type AttachmentSearch = { readonly attachments: readonly Attachment[]; readonly doubts: readonly UnknownFact[] };

const RELAYS_MAX = 8;
const refOf = (process: HostProcess): ProcessRef => ({ name: process.name, pid: process.pid });
const named = (process: HostProcess): string => `${process.name} (pid ${process.pid})`;

const blockDevicesOf = (process: HostProcess, snapshot: HostSnapshot): readonly string[] => {
  const targets = new Set((process.openFiles ?? []).map((file) => file.target));
  return snapshot.blockDevices
    .filter(({ name, kind, nbd }) => {
      if (kind === 'ublk') return targets.has(`/dev/${name.replace(/^ublkb/, 'ublkc')}`);
      return (
        nbd !== null && (snapshot.nbdOwners.get(name) === process.pid || (process.commandLine.isNbdProgram && targets.has(`/dev/${name}`)))
      );
    })
    .map(({ name }) => name);
};

const attachmentOf = (
  process: HostProcess,
  uses: readonly NbdUse[],
  connections: readonly HostConnection[],
  layers: readonly Layer[],
  snapshot: HostSnapshot,
): Attachment => {
  const places = uses.flatMap((use) => use.mountPoints);
  const written = places.length > 0 ? places : process.commandLine.otherMountPoints;
  const served = (process.openFiles ?? []).flatMap((file) => (file.fuseConnection === null ? [] : [`0:${file.fuseConnection}`]));
  const first = uses[0];
  return {
    process: refOf(process),
    text: first === undefined ? 'an NBD connection' : endpointText(first.endpoint),
    connections: connections.map((connection) => connection.ref),
    layers,
    mountPoints: written.map((place) => (process.folder === null ? posix.normalize(place) : posix.resolve(process.folder, place))),
    servedDevices: served,
    blockDevices: blockDevicesOf(process, snapshot),
  };
};

/** Whether a process that names the target holds, or may hold, a connection to it. */
const mayBeConnected = (process: HostProcess, all: readonly HostConnection[], snapshot: HostSnapshot): boolean => {
  if (process.commandLine.isNbdProgram || all.some((connection) => connection.owners.includes(process))) return true;
  if (!all.some((connection) => connection.owners.length === 0)) return false;
  if (process.openFiles === null) return true;
  return snapshot.netNamespaces.some(({ pairs, unix }) => {
    return pairs === null && unix.some(({ inode, path, isConnected }) => isConnected && path === '' && process.sockets.has(inode));
  });
};

/** Uses of the target's export; with a connection to the server the export's name is enough, the server may have other names here. */
const targetUses = (process: HostProcess, target: TargetServer, isConnected: boolean): readonly NbdUse[] => {
  const { uses } = process.commandLine;
  const exact = uses.filter(({ endpoint }) => isTargetExport(endpoint, target) && isSameServer(endpoint.server, process, target));
  if (exact.length > 0 || !isConnected) return exact;
  return uses.filter(({ endpoint }) => isTargetExport(endpoint, target));
};

const doubtAbout = (what: string, why: string, connections: readonly HostConnection[]): UnknownFact => {
  return { kind: 'unknown', what, why, connections: connections.map((connection) => connection.ref) };
};

/** Attachment, doubt or neither for one process. */
const judge = (process: HostProcess, target: TargetServer, all: readonly HostConnection[], snapshot: HostSnapshot): AttachmentSearch => {
  const owned = all.filter((connection) => connection.owners.includes(process));
  const uses = targetUses(process, target, owned.length > 0);
  if (uses.length > 0 && mayBeConnected(process, all, snapshot)) {
    return { attachments: [attachmentOf(process, uses, owned, [], snapshot)], doubts: [] };
  }
  if (owned.length === 0) return { attachments: [], doubts: [] };
  // Its command line says that the connections are for other exports of this very server.
  if (process.commandLine.uses.some(({ endpoint }) => isSameServer(endpoint.server, process, target)))
    return { attachments: [], doubts: [] };
  const doubt = doubtAbout(`the export that ${named(process)} is connected to`, 'its command line does not name it', owned);
  return { attachments: [], doubts: [doubt] };
};

/** What a kernel device is attached to, as far as its `backend` or nbdtab tells. */
const statedEndpoint = (name: string, backend: string | null, snapshot: HostSnapshot): NbdEndpoint | null => {
  return (backend === null ? null : parseNbdUri(backend)) ?? snapshot.nbdtab.get(name) ?? null;
};

/** A kernel has no folder of its own to resolve paths in. */
const KERNEL: Pick<HostProcess, 'folder'> = { folder: '/' };

/** Near ends of connections, to whatever, that no visible process holds: as many kernel devices can be alive. */
const ownerlessSockets = (snapshot: HostSnapshot): number => {
  const owned = new Set(snapshot.processes.flatMap((process) => [...process.sockets]));
  return snapshot.netNamespaces.reduce((count, { tcp, unix }) => {
    const near = [...tcp.filter((socket) => socket.isConnected), ...unix.filter((socket) => socket.isConnected && socket.path === '')];
    return count + near.filter(({ inode }) => inode !== 0 && !owned.has(inode)).length;
  }, 0);
};

/** Kernel NBD devices that no living process attached. */
const kernelDevices = (target: TargetServer, all: readonly HostConnection[], snapshot: HostSnapshot): AttachmentSearch => {
  const ownerless = all.filter((connection) => connection.owners.length === 0);
  const attachments: Attachment[] = [];
  const unexplained: string[] = [];
  for (const device of snapshot.blockDevices) {
    const owner = snapshot.nbdOwners.get(device.name);
    if (device.nbd === null || snapshot.processes.some((process) => process.pid === owner)) continue;
    const stated = statedEndpoint(device.name, device.nbd.backend, snapshot);
    if (stated === null) unexplained.push(devicePath(device));
    else if (isTargetExport(stated, target) && isSameServer(stated.server, KERNEL, target)) {
      const connections = ownerless.map((connection) => connection.ref);
      const place = { layers: [], mountPoints: [], servedDevices: [], blockDevices: [device.name] };
      attachments.push({ process: { name: 'kernel', pid: 0 }, text: devicePath(device), connections, ...place });
    }
  }
  // Each device that is known to be attached to the target explains one of the connections that nobody visible holds.
  const isExplained = ownerless.length > 0 && ownerless.length <= attachments.length;
  return { attachments, doubts: isExplained ? [] : ownerlessDoubts(ownerless, unexplained, snapshot) };
};

/** What remains open about connections that nobody visible holds, and about kernel devices that nothing explains. */
const ownerlessDoubts = (
  ownerless: readonly HostConnection[],
  devices: readonly string[],
  snapshot: HostSnapshot,
): readonly UnknownFact[] => {
  const listed = devices.join(', ');
  if (ownerless.length > 0) {
    const perhaps = devices.length === 0 ? '' : ` (perhaps the kernel, for ${listed})`;
    return [doubtAbout(`who holds a connection to the device${perhaps}`, 'no process that the agent can look into', ownerless)];
  }
  // Attached, but perhaps no longer connected: what is mounted from such a device stays mounted.
  if (devices.length <= ownerlessSockets(snapshot)) return [];
  return [doubtAbout(`what ${listed} is attached to`, 'neither its backend nor /etc/nbdtab names the export', [])];
};

/** The clients of programs that pass on what they are attached to, and theirs in turn. */
const relayed = (first: readonly Attachment[], snapshot: HostSnapshot): readonly Attachment[] => {
  const seen = new Set(first.map((attachment) => attachment.process.pid));
  const found: Attachment[] = [];
  let front = first;
  for (let step = 0; step < RELAYS_MAX && front.length > 0; step += 1) {
    const next: Attachment[] = [];
    for (const attachment of front) {
      const server = snapshot.processes.find((process) => process.pid === attachment.process.pid && process.commandLine.isNbdServer);
      if (server === undefined) continue;
      const layers: Layer[] = [...attachment.layers, { kind: 'connection', name: named(server) }];
      const connections = connectionsToProcess(server, snapshot);
      for (const process of new Set(connections.flatMap((connection) => connection.owners))) {
        if (seen.has(process.pid)) continue;
        seen.add(process.pid);
        next.push({ ...attachmentOf(process, process.commandLine.uses, [], layers, snapshot), connections: attachment.connections });
      }
    }
    found.push(...next);
    front = next;
  }
  return found;
};

export const findAttachments = (target: TargetServer, snapshot: HostSnapshot): AttachmentSearch => {
  const connections = connectionsTo(target, snapshot);
  const judged = [
    ...snapshot.processes.map((process) => judge(process, target, connections, snapshot)),
    kernelDevices(target, connections, snapshot),
  ];
  const attachments = judged.flatMap((search) => search.attachments);
  return { attachments: [...attachments, ...relayed(attachments, snapshot)], doubts: judged.flatMap((search) => search.doubts) };
};
