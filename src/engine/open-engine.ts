/**
 * Opens a device: makes the parts in their order, recovers, and listens. See `device.ts` for the order and its reasons.
 */
import { join } from 'node:path';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { EventLog } from '../core/event-log.ts';
import { TwinvolError } from '../core/faults.ts';
import { openDataPlane } from '../data/plane.ts';
import type { DataPlaneOptions } from '../data/plane.ts';
import type { DataPlane, ListenOptions } from '../data/plane-api.ts';
import { HolePuncher } from '../platform/hole-punch.ts';
import { AuditFile } from '../store/audit-file.ts';
import { openStore } from '../store/store.ts';
import type { Store } from '../store/store.ts';
import { parseNbdUri } from '../wire/nbd-uri.ts';
import type { AgentDesk, CertificateDesk, HostDirectory } from './agent-desk.ts';
import { AuditTrail } from './audit-trail.ts';
import type { DeviceContext } from './context.ts';
import { DeviceEngine } from './device.ts';
import { ExportAddresses } from './export-addresses.ts';
import type { TcpPlace } from './export-addresses.ts';
import { DeviceExportPolicy } from './export-policy.ts';
import { Happenings } from './happenings.ts';
import { TableDirectory } from './host-directory.ts';
import type { InquiryGate } from './inquiry-gate.ts';
import { MountGate } from './mount-gate.ts';
import { ObjectLocks } from './object-locks.ts';
import { PairBook } from './pair-book.ts';
import { PairShell } from './pair-shell.ts';
import { recoverDevice, removeOrphanFiles } from './recovery.ts';
import { RegionSupply } from './region-supply.ts';
import { parseHostPort } from './host-port.ts';
import { Views } from './views.ts';

/** Name of the NBD socket in the store's directory. */
export const NBD_SOCKET_NAME: string = 'nbd.sock';

export type EngineOptions = {
  /** The store's directory. */
  readonly store: string;
  /** Path of the NBD socket. Default: `nbd.sock` in the store, unless `nbdTcp` is given. */
  readonly nbdUnix?: string;
  /** `HOST:PORT`; port 0 takes a free one. */
  readonly nbdTcp?: string;
  readonly tls?: NonNullable<ListenOptions['tls']>;
  readonly lanes?: number;
  /** Default: silent. */
  readonly log?: Logger;
  /** Path of the control socket, for `status`. */
  readonly controlPath?: string;
  /** Further addresses under which hosts reach the TCP socket, behind a translator or by name: `HOST` or `HOST:PORT`. */
  readonly advertise?: readonly string[];
  /** Who speaks with the hosts' agents. Without it nobody is asked; live NBD connections are evidence in any case. */
  readonly desk?: (directory: HostDirectory) => AgentDesk;
  /** Who issues certificates for hosts. */
  readonly certificates?: CertificateDesk;
  readonly nowMs?: () => number;
  /** For tests that drive the engine by made-up events. */
  readonly openPlane?: (options: DataPlaneOptions) => Promise<DataPlane>;
};

/**
 * Opens the store and serves it.
 * @throws TwinvolError as `openStore`; `USAGE` for a socket or address that cannot be; `STORE_IO`
 */
export const openEngine = async (options: EngineOptions): Promise<DeviceEngine> => {
  const { log = pino({ level: 'silent' }) } = options;
  const listenOptions = listenOptionsOf(options);
  /** How to give up what was made so far, last one first. */
  const undo: Array<() => Promise<void>> = [];
  try {
    const store = await openStore(options.store, { notice: (text) => log.warn(text) });
    undo.push(() => store.close({ clean: false }));
    const removed = await removeOrphanFiles(store);
    if (removed > 0) log.info({ removed }, 'bitmap files that belong to no pair were removed');
    return await assemble({ options, store, log, listen: listenOptions(store), undo });
  } catch (error) {
    for (const step of undo.reverse()) await step().catch((closing: unknown) => log.error({ err: closing }, 'a part could not be closed'));
    throw error;
  }
};

type Assembly = {
  readonly options: EngineOptions;
  readonly store: Store;
  readonly log: Logger;
  readonly listen: ListenOptions;
  readonly undo: Array<() => Promise<void>>;
};

const assemble = async ({ options, store, log, listen, undo }: Assembly): Promise<DeviceEngine> => {
  const { nowMs = Date.now, openPlane = openDataPlane } = options;
  const { tables } = store;
  const events = new EventLog(nowMs);
  const pairs = new PairBook(tables);
  const policy = new DeviceExportPolicy(tables, pairs);
  const regions = new RegionSupply({ store, puncher: new HolePuncher(), log, events, onMediumFailed: (pvs) => plane.mediumFailed(pvs) });
  undo.push(() => regions.close());
  const plane = await openPlane({
    store,
    policy,
    durability: tables.settings.durability,
    ...(options.lanes === undefined ? {} : { lanes: options.lanes }),
  });
  undo.push(() => plane.close());
  const audit = await openAudit(store, log, nowMs);
  undo.push(() => audit.close());
  const addresses = new ExportAddresses();
  const directory = new TableDirectory(tables, addresses, events);
  const desk = options.desk?.(directory) ?? null;
  const views = new Views(tables, plane, pairs, addresses);
  const gate: InquiryGate = new MountGate({
    tables,
    clients: () => plane.clients(),
    targetOf: (volume) => directory.target(volume),
    events,
    audit,
    ...(desk === null ? {} : { asker: desk }),
  });
  const context: DeviceContext = {
    ...{ store, plane, log, events, locks: new ObjectLocks(), pairs, regions, gate, views, nowMs },
    ...{ audit, directory, desk, certificates: options.certificates ?? null },
  };
  const shell = new PairShell(context);
  const happenings = new Happenings(context, shell);
  undo.push(async () => {
    await happenings.close();
    shell.close();
  });
  happenings.listen();
  const recoveryBytes = await recoverDevice(context, shell);
  const bases = await plane.listen(listen);
  const endpoints = bases.map((uri) => parseNbdUri(uri));
  const port = endpoints.flatMap(({ where }) => (where.kind === 'tcp' ? [where.port] : []))[0] ?? null;
  addresses.set(
    endpoints,
    (options.advertise ?? []).map((place) => advertisedPlace(place, port)),
  );
  log.info({ store: store.directory, sockets: bases, lanes: plane.laneCount, handover: plane.handover }, 'ready');
  return new DeviceEngine({
    context,
    shell,
    policy,
    happenings,
    addresses,
    controlPath: options.controlPath ?? '',
    startedAtMs: nowMs(),
    recoveryBytes,
  });
};

const openAudit = async (store: Store, log: Logger, nowMs: () => number): Promise<AuditTrail> =>
  new AuditTrail(await AuditFile.open(store.directory, { nowMs, notice: (text) => log.warn(text) }), log);

/** @throws TwinvolError `USAGE` */
const advertisedPlace = (text: string, port: number | null): TcpPlace => {
  if (port === null) throw new TwinvolError('USAGE', `"${text}" is an address of TCP, and no TCP address is given`);
  // A name alone is one with the port that the socket has here; several colons without brackets are IPv6.
  const hasPort = /:\d+$/.test(text) && !/^[^[]*:.*:/.test(text);
  return hasPort ? parseHostPort(text) : { host: text.replace(/^\[|\]$/g, ''), port };
};

/** Checked before the store is touched; completed when its directory is known. */
const listenOptionsOf = ({ nbdUnix, nbdTcp, tls }: EngineOptions): ((store: Store) => ListenOptions) => {
  const tcp = nbdTcp === undefined ? undefined : parseHostPort(nbdTcp);
  if (tls !== undefined && tcp === undefined) throw new TwinvolError('USAGE', 'TLS is for TCP, and no TCP address is given');
  return (store) => {
    const unixPath = nbdUnix ?? (tcp === undefined ? join(store.directory, NBD_SOCKET_NAME) : undefined);
    return {
      ...(unixPath === undefined ? {} : { unixPath }),
      ...(tcp === undefined ? {} : { tcp }),
      ...(tls === undefined ? {} : { tls }),
    };
  };
};
