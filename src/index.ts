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
import type { Logger } from 'pino';
import { ControlServer } from './control/server.ts';
import { TwinvolError } from './core/faults.ts';
import type { DeviceSettings, VolumeAttribute } from './core/rows.ts';
import type { EventView, StatusView } from './core/views.ts';
import type { Engine, VolumeRef } from './engine/api.ts';
import type { DeviceEngine } from './engine/device.ts';
import { openEngine } from './engine/open-engine.ts';
import { Pair } from './engine/pair-handle.ts';
import { Volume, bytesOf } from './engine/volume-handle.ts';
import type { Size } from './engine/volume-handle.ts';
import { makeTemporaryDirectory, removeDirectory } from './platform/temporary-directory.ts';
import { initStore } from './store/init.ts';
import { CONTROL_SOCKET_NAME } from './wire/control-frames.ts';

export type {
  Consent,
  Engine,
  FaultAddInput,
  FaultRule,
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
  /** True: a control socket in the store, for the command line. */
  readonly control?: boolean;
  /** A pino logger. Default: silent. */
  readonly log?: Logger;
};

export type CreateVolumeOptions = { readonly attribute?: VolumeAttribute };

export class Device {
  /** Every command, as the control socket has them. */
  readonly engine: Engine;
  readonly #engine: DeviceEngine;
  readonly #control: ControlServer | null;
  readonly #removeAtEnd: string | null;
  #closed: Promise<void> | null = null;

  /** Use `openDevice`. */
  constructor(engine: DeviceEngine, control: ControlServer | null, removeAtEnd: string | null) {
    this.engine = engine;
    this.#engine = engine;
    this.#control = control;
    this.#removeAtEnd = removeAtEnd;
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

  async #close(): Promise<void> {
    try {
      await this.#control?.close();
      await this.#engine.close();
    } finally {
      if (this.#removeAtEnd !== null) await removeDirectory(this.#removeAtEnd);
    }
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
  const { nbdUnix, nbdTcp, tls, lanes, log } = options;
  const controlPath = options.control === true ? join(directory, CONTROL_SOCKET_NAME) : '';
  const engine = await openEngine({
    store: directory,
    controlPath,
    ...(nbdUnix === undefined ? {} : { nbdUnix }),
    ...(nbdTcp === undefined ? {} : { nbdTcp }),
    ...(tls === undefined ? {} : { tls }),
    ...(lanes === undefined ? {} : { lanes }),
    ...(log === undefined ? {} : { log }),
  });
  const control = controlPath === '' ? null : new ControlServer(engine, controlPath, log === undefined ? {} : { log });
  try {
    await control?.listen();
  } catch (error) {
    await engine.close();
    throw error;
  }
  return new Device(engine, control, removeAtEnd);
};
