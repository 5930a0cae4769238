/**
 * A store that is open: the owner's handle on the tables, the physical volumes' files, and the lock.
 *
 * One process owns a store. Opening first reads everything and refuses what is not sound, with nothing changed; only
 * then it repairs what a crash may leave (a superblock copy, the journal's torn tail, files that nothing refers to).
 * Changes go through `commit` and in no other way. Physical volumes are opened once; lanes use the descriptors.
 */
import { join, resolve } from 'node:path';
import { TwinvolError } from '../core/faults.ts';
import { FIRST_NUMBER } from '../core/row-rules.ts';
import type { TableOp } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import { PV_COUNT_MAX } from '../core/units.ts';
import { fileIdentity } from '../platform/file-identity.ts';
import { acquireFileLock, type FileLock } from '../platform/file-lock.ts';
import { type MetadataFiles, realMetadataFiles } from '../platform/metadata-files.ts';
import { FORMATS, type Formats } from './formats.ts';
import { LOCK_NAME } from './layout.ts';
import { type Change, MetadataLog } from './metadata-log.ts';
import { PvFiles } from './pv-files.ts';
import type { Recovered } from './recovery.ts';
import { storeFault } from './store-faults.ts';
import { superblockPath } from './superblock.ts';

export type OpenOptions = {
  /** Nothing is written, and `commit` is refused. The lock is taken nevertheless. */
  readonly readOnly?: boolean;
  /** One line for the log: what was found and done. */
  readonly notice?: (text: string) => void;
  readonly files?: MetadataFiles;
  readonly formats?: Formats;
  /** Journal length in bytes below which it is not compacted. Default 1 MiB. */
  readonly compactBytesMin?: number;
};

/** Null when the medium does not say. */
const placeOf = (directory: string): string | null => {
  try {
    return `${fileIdentity(directory)} ${fileIdentity(superblockPath(directory))}`;
  } catch {
    return null;
  }
};

const goneFault = (directory: string): TwinvolError =>
  new TwinvolError('STORE_MISSING', `the store ${directory} was deleted or moved while the engine runs; nothing was changed`, {
    remedy: 'move it back; if it was deleted, copy the volumes to another store over NBD before the engine ends',
    details: { directory },
  });

const readOnlyFault = (): TwinvolError =>
  new TwinvolError('READ_ONLY', 'the store is open for reading only', { remedy: 'open it for writing' });

type Parts = {
  readonly directory: string;
  readonly recovered: Recovered;
  /** Null: read-only. */
  readonly log: MetadataLog | null;
  readonly pvFiles: PvFiles;
  readonly lock: FileLock;
};

export class Store {
  /** Absolute path. */
  readonly directory: string;
  readonly uuid: string;
  readonly formatVersion: number;
  readonly regionBytes: number;
  readonly pvBytes: number;
  readonly tables: Tables;
  /** False: the last owner did not end in order, so what was being written may differ between legs. */
  readonly wasCleanShutdown: boolean;
  readonly #log: MetadataLog | null;
  readonly #pvFiles: PvFiles;
  readonly #lock: FileLock;
  /** What the directory and the superblock's file were when the store was opened. */
  readonly #place: string | null;
  #growth: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | null = null;

  /** Use `openStore`. */
  constructor({ directory, recovered, log, pvFiles, lock }: Parts) {
    const superblock = log?.superblock ?? recovered.superblock;
    this.directory = directory;
    this.uuid = superblock.uuid;
    this.formatVersion = superblock.formatVersion;
    this.regionBytes = superblock.regionBytes;
    this.pvBytes = superblock.pvBytes;
    this.tables = recovered.tables;
    this.wasCleanShutdown = log?.wasCleanShutdown ?? recovered.tables.isCleanShutdown;
    this.#log = log;
    this.#pvFiles = pvFiles;
    this.#lock = lock;
    this.#place = placeOf(directory);
  }

  /** The directory is not where it was: deleted, moved, or another one is in its place. */
  get isGone(): boolean {
    const place = placeOf(this.directory);
    return place !== null && this.#place !== null && place !== this.#place;
  }

  /** Regions of one physical volume. */
  get regionsPerPv(): number {
    return this.pvBytes / this.regionBytes;
  }
  /** Bytes of the journal. */
  get journalBytes(): number {
    return this.#log?.journalBytes ?? 0;
  }
  /** Why no change is possible any more, or null. */
  get failure(): TwinvolError | null {
    return this.#log?.failure ?? null;
  }

  /**
   * Makes a change durable, then applies it to `tables`; all operations or none. Changes take effect in the order of
   * the calls; those that wait together share one flush. A function gets the tables with all earlier changes in
   * effect, so what it reads (free regions, the next number) cannot be taken by another change meanwhile; it must not
   * keep the tables, and may be the better choice wherever two commands may run at a time.
   * @throws TwinvolError STORE_FULL, STORE_IO, STORE_MISSING (deleted or moved since it was opened), LIMIT,
   * ENGINE_STOPPING, INTERNAL (a change that cannot be), or whatever the function throws; nothing has changed then
   */
  commit(change: Change): Promise<void> {
    if (this.#closed !== null) return Promise.reject(new TwinvolError('ENGINE_STOPPING', 'the store is closing and takes no more changes'));
    if (this.#log === null) return Promise.reject(readOnlyFault());
    // The journal is open, but what is written to it would never be found again.
    return this.isGone ? Promise.reject(goneFault(this.directory)) : this.#log.commit(change);
  }

  /** Path of a physical volume's file. */
  pvPath(number: number): string {
    return this.#pvFiles.path(number);
  }
  /** Its descriptor, open for reading and writing; the store closes it. */
  pvFd(number: number): number {
    return this.#pvFiles.fd(number);
  }

  /** Regions that a capacity needs. */
  regionsFor(bytes: number): number {
    return Math.ceil(bytes / this.regionBytes);
  }

  /** How many physical volumes must be added so that `regions` are unassigned. @throws TwinvolError `LIMIT` */
  planPvGrowth(regions: number): number {
    const missing = regions - this.tables.unassigned.freeRegions;
    const count = Math.max(0, Math.ceil(missing / this.regionsPerPv));
    const present = this.tables.pvs().length;
    if (present + count > PV_COUNT_MAX) {
      throw new TwinvolError('LIMIT', `${count} more physical volumes are needed, there are ${present}, and ${PV_COUNT_MAX} is the limit`, {
        remedy: 'delete volumes, or initialise a store with larger physical volumes (--pv-size)',
      });
    }
    return count;
  }

  /** Adds physical volumes as needed until `regions` are unassigned. @returns the numbers of the new ones */
  ensureUnassigned(regions: number): Promise<readonly number[]> {
    return this.#grow(() => this.planPvGrowth(regions));
  }

  /** Adds empty physical volumes: files first, then their rows. @returns their numbers */
  addPvs(count: number): Promise<readonly number[]> {
    return this.#grow(() => count);
  }

  /**
   * Gives the store up. `clean`: nothing is left to recover (all data is durable, no intents), and the next owner is
   * told so. Closing again waits for the first.
   */
  close(options: { readonly clean: boolean }): Promise<void> {
    this.#closed ??= this.#closeAll(options.clean);
    return this.#closed;
  }

  /** One growth at a time: two commands that need regions do not both add them. */
  #grow(countOf: () => number): Promise<readonly number[]> {
    const grown = this.#growth.then(() => this.#addPvs(countOf()));
    this.#growth = grown.catch(() => undefined);
    return grown;
  }

  async #addPvs(count: number): Promise<readonly number[]> {
    if (count === 0) return [];
    if (this.#log === null) throw readOnlyFault();
    const first = (this.tables.pvs().at(-1)?.number ?? FIRST_NUMBER - 1) + 1;
    const numbers = Array.from({ length: count }, (_, index) => first + index);
    await this.#pvFiles.create(numbers, this.pvBytes);
    try {
      await this.#log.commit(numbers.map((number): TableOp => ({ op: 'pv-put', row: { number, regions: this.regionsPerPv } })));
    } catch (error) {
      await this.#pvFiles.discard(numbers);
      throw error;
    }
    return numbers;
  }

  async #closeAll(clean: boolean): Promise<void> {
    try {
      await this.#growth;
      await this.#log?.close({ clean });
    } finally {
      this.#pvFiles.close();
      this.#lock.release();
    }
  }
}

/**
 * Opens a store and becomes its owner.
 * @throws TwinvolError STORE_MISSING, STORE_LOCKED, STORE_VERSION, STORE_FOREIGN, STORE_DAMAGED (the store is left as it
 * was), STORE_FULL, STORE_IO
 */
export const openStore = async (directory: string, options: OpenOptions = {}): Promise<Store> => {
  const path = resolve(directory);
  const { files = realMetadataFiles, formats = FORMATS } = options;
  let lock: FileLock | null = null;
  try {
    await requireStore(files, path);
    lock = acquireFileLock(join(path, LOCK_NAME));
    const recovered = await MetadataLog.read(files, path, formats);
    return new Store(await openParts(path, files, recovered, lock, options));
  } catch (error) {
    lock?.release();
    throw storeFault(error, 'opening the store', path);
  }
};

/** Without this the lock's file would be made in a directory that is no store. */
export const requireStore = async (files: MetadataFiles, directory: string): Promise<void> => {
  if ((await files.readFile(superblockPath(directory))) !== null) return;
  throw new TwinvolError('STORE_MISSING', `${directory} is not a store: it has no superblock`, { details: { directory } });
};

const openParts = async (
  directory: string,
  files: MetadataFiles,
  recovered: Recovered,
  lock: FileLock,
  options: OpenOptions,
): Promise<Parts> => {
  const { readOnly = false, notice = (): void => undefined } = options;
  const pvFiles = PvFiles.open(directory, recovered.tables, readOnly);
  let log: MetadataLog | null = null;
  try {
    if (readOnly) return { directory, recovered, log, pvFiles, lock };
    log = await MetadataLog.start(files, directory, recovered, options);
    await pvFiles.repair(notice);
    return { directory, recovered, log, pvFiles, lock };
  } catch (error) {
    pvFiles.close();
    await log?.close({ clean: false });
    throw error;
  }
};
