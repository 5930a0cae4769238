/**
 * The library: a storage device inside your own process, for tests and rehearsals.
 *
 *     await using device = await openDevice();
 *     const db = await device.createVolume('db', '64M');
 *     await device.createVolume('copy', '64M', { attribute: 'secondary' });
 *     const pair = await db.pair();
 *     await pair.wait('duplex');
 *
 * Without a store directory the device has a temporary one, which is deleted when it is closed. NBD clients reach a
 * volume at `volume.uri`. No other process and no control socket is needed; with `control` there is one, and the command
 * line works on the device too. Errors are `TwinvolError` with a stable `code`.
 */
import { join, resolve } from 'node:path';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { TwinvolError } from './core/faults.ts';
import type { DeviceSettings, VolumeAttribute } from './core/rows.ts';
import type { EventView, StatusView } from './core/views.ts';
import type { Engine, VolumeRef } from './engine/api.ts';
import { openEngine } from './engine/open-engine.ts';
import type { EngineOptions } from './engine/open-engine.ts';
import { Pair } from './engine/pair-handle.ts';
import { Volume, bytesOf } from './engine/volume-handle.ts';
import type { Size } from './engine/volume-handle.ts';
import { openHostedDevice } from './hosted-device.ts';
import { makeTemporaryDirectory, removeDirectory } from './platform/temporary-directory.ts';
import { initStore } from './store/init.ts';
import { CONTROL_SOCKET_NAME } from './wire/control-frames.ts';

export type {
  AuditInput,
  Consent,
  Engine,
  FaultAddInput,
  FaultRule,
  GrantInput,
  HostAddInput,
  HostAdded,
  HostCertified,
  PairCommandInput,
  PairCreateInput,
  PairRef,
  PairReleaseInput,
  PairWaitInput,
  VerifyInput,
  VerifyReport,
  VolumeCreateInput,
  VolumeRef,
} from './engine/api.ts';
export type { AgentView, AnswerView, CertificateView, GrantView, HostView, InquiryView, MountView } from './core/host-views.ts';
export type { AuditRecord } from './core/audit.ts';
export type { CandidateView, ClientView, CopyPointer, EventView, PairView, PlanView, StatusView, VolumeView } from './core/views.ts';
export type { CopyKind, DeviceSettings, FenceLevel, GroupRow, PairState, VolumeAttribute } from './core/rows.ts';
export type { CopyOptions } from './engine/pair-handle.ts';
export type { PairOptions, Size } from './engine/volume-handle.ts';
export { FAULTS, TwinvolError, type FaultCode } from './core/faults.ts';
export { Pair } from './engine/pair-handle.ts';
export { Volume } from './engine/volume-handle.ts';

export type DeviceOptions = {
  /** The store's directory. Left out: a temporary store, deleted when the device is closed. */
  readonly store?: string;
  /** Make the store if the directory is missing or empty. Default: true for a temporary store, else false. */
  readonly create?: boolean;
  /** For a store that is made: size of a physical region, and of a physical volume's sparse file. */
  readonly regionSize?: Size;
  readonly pvSize?: Size;
  /** Path of the NBD socket. Default: `nbd.sock` in the store, unless `nbdTcp` is given. */
  readonly nbdUnix?: string;
  /** `HOST:PORT`; port 0 takes a free one. */
  readonly nbdTcp?: string;
  /** PEM texts. */
  readonly tls?: { readonly certPem: string; readonly keyPem: string; readonly caPem?: string; readonly required: boolean };
  readonly lanes?: number;
  /** True: a control socket in the store, for the command line, and beside it one for the agents of hosts. */
  readonly control?: boolean;
  /** With `control`: `HOST:PORT` on which agents come in over mutual TLS. */
  readonly agentTcp?: string;
  /** What that listener shows, as PEM texts; default: what `twinvol ca issue-server` made. */
  readonly agentTls?: { readonly certificate: string; readonly key: string; readonly authority: string };
  /** Further addresses under which hosts reach the TCP exports: `HOST` or `HOST:PORT`. */
  readonly advertise?: readonly string[];
  /** A pino logger. Default: silent. */
  readonly log?: Logger;
};

/** Socket, and address over TLS, of the agents' listener. */
export type Agents = { readonly unix: string; readonly tls: string | null };

export type CreateVolumeOptions = { readonly attribute?: VolumeAttribute };

export class Device {
  /** Every command, as the control socket has them. */
  readonly engine: Engine;
  /** Where agents come in; null without a control socket. */
  readonly agents: Agents | null;
  readonly #close: () => Promise<void>;
  #closed: Promise<void> | null = null;

  /** Use `openDevice`. */
  constructor(engine: Engine, agents: Agents | null, close: () => Promise<void>) {
    this.engine = engine;
    this.agents = agents;
    this.#close = close;
  }

  /** @throws TwinvolError `NAME_INVALID`, `VOLUME_EXISTS`, `CAPACITY_INVALID`, `STORE_FULL` */
  async createVolume(name: string, size: Size, options: CreateVolumeOptions = {}): Promise<Volume> {
    const view = await this.engine.volumeCreate({ name, sizeBytes: bytesOf(size), ...options });
    if ('plan' in view) throw new Error('a plan was not asked for');
    return new Volume(this.engine, view);
  }

  /** @throws TwinvolError `VOLUME_NOT_FOUND` */
  volume(ref: VolumeRef): Volume {
    return new Volume(this.engine, this.engine.volumeShow(ref));
  }
  volumes(): readonly Volume[] {
    return this.engine.volumeList().map((view) => new Volume(this.engine, view));
  }
  pairs(): readonly Pair[] {
    return this.engine.pairStatus().map((view) => new Pair(this.engine, view));
  }

  /** All pairs of the volumes are split at one point in time. */
  async splitTogether(groupName: string, pairs: readonly Pair[]): Promise<void> {
    await this.engine.groupCreate({ name: groupName });
    try {
      for (const pair of pairs) {
        const { primary, secondary } = pair.status();
        await this.engine.groupAdd({ name: groupName, primary: primary.number, secondary: secondary.number });
      }
      await this.engine.groupSplit({ name: groupName });
    } finally {
      await this.engine.groupRemove({ name: groupName });
    }
  }

  status(): StatusView {
    return this.engine.status();
  }
  settings(): DeviceSettings {
    return this.engine.settings();
  }
  async set(changes: Partial<DeviceSettings>): Promise<DeviceSettings> {
    const settings = await this.engine.settingsSet(changes);
    if ('plan' in settings) throw new Error('a plan was not asked for');
    return settings;
  }

  /** What is there, then what changes. Ends with the signal, or with the device. */
  events(options: { readonly since?: number; readonly signal?: AbortSignal; readonly follow?: boolean } = {}): AsyncIterable<EventView> {
    return this.engine.events(options);
  }

  /** Drains the connections, makes everything durable, gives the store up; a temporary store is deleted. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Opens a device, makes its store if asked to, and serves its volumes over NBD.
 * @throws TwinvolError `STORE_MISSING`, `STORE_LOCKED`, `STORE_EXISTS`, `STORE_DAMAGED`, `USAGE` and others of the catalogue
 */
export const openDevice = async (options: DeviceOptions = {}): Promise<Device> => {
  const temporary = options.store === undefined ? await makeTemporaryDirectory('twinvol-') : null;
  const directory = temporary ?? resolve(options.store ?? '');
  try {
    if (temporary !== null || options.create === true) await makeStore(directory, options);
    return await open(directory, options, temporary);
  } catch (error) {
    if (temporary !== null) await removeDirectory(temporary);
    throw error;
  }
};

/** A store that is there already is opened as it is. */
const makeStore = async (directory: string, { regionSize, pvSize }: DeviceOptions): Promise<void> => {
  try {
    await initStore(directory, {
      ...(regionSize === undefined ? {} : { regionBytes: bytesOf(regionSize) }),
      ...(pvSize === undefined ? {} : { pvBytes: bytesOf(pvSize) }),
    });
  } catch (error) {
    if (!(error instanceof TwinvolError) || error.code !== 'STORE_EXISTS') throw error;
  }
};

const open = async (directory: string, options: DeviceOptions, removeAtEnd: string | null): Promise<Device> => {
  const { agentTcp, agentTls, control = false, log = pino({ level: 'silent' }) } = options;
  const engine = engineOptions(directory, options);
  const closing = (opened: { close(): Promise<void> }) => async (): Promise<void> => {
    try {
      await opened.close();
    } finally {
      if (removeAtEnd !== null) await removeDirectory(removeAtEnd);
    }
  };
  if (!control) {
    const alone = await openEngine({ ...engine, log, controlPath: '' });
    return new Device(alone, null, closing(alone));
  }
  const hosted = await openHostedDevice({
    engine,
    controlPath: join(directory, CONTROL_SOCKET_NAME),
    log,
    ...(agentTcp === undefined ? {} : { agentTcp }),
    ...(agentTls === undefined ? {} : { agentTls }),
  });
  return new Device(hosted.engine, hosted.agents, closing(hosted));
};

const engineOptions = (store: string, { nbdUnix, nbdTcp, tls, lanes, advertise }: DeviceOptions): EngineOptions => ({
  store,
  ...(nbdUnix === undefined ? {} : { nbdUnix }),
  ...(nbdTcp === undefined ? {} : { nbdTcp }),
  ...(tls === undefined ? {} : { tls }),
  ...(lanes === undefined ? {} : { lanes }),
  ...(advertise === undefined ? {} : { advertise }),
});
