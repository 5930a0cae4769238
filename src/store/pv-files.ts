/**
 * The physical volumes' files: opened once for the life of the store, checked against the tables, made when more
 * regions are needed.
 *
 * A file that is missing or short is damage when a volume has regions in the part that is not there. Where none has
 * (the regions are unassigned, or wait to be scrubbed), the part is made again: it would have to read as zeros anyway.
 */
import { join } from 'node:path';
import type { VolumeRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import { syncDirectory } from '../platform/durable-file.ts';
import { closeFile, createSparseFile, extendSparseFile, openSparseFile, removeFile } from '../platform/sparse-file.ts';
import { PV_DIRECTORY, pvPath } from './layout.ts';
import { damaged, storeFault } from './store-faults.ts';

type Repair = { readonly number: number; readonly byteLength: number };

export class PvFiles {
  readonly #directory: string;
  readonly #fds = new Map<number, number>();
  #repairs: Repair[] = [];

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens and checks all files; changes nothing. @throws TwinvolError STORE_DAMAGED, STORE_IO */
  static open(directory: string, tables: Tables, readOnly: boolean): PvFiles {
    const files = new PvFiles(directory);
    try {
      for (const row of tables.pvs()) files.#openOne(tables, row.number, row.regions, readOnly);
    } catch (error) {
      files.close();
      throw error;
    }
    return files;
  }

  path(number: number): string {
    return pvPath(this.#directory, number);
  }

  /** The descriptor, open for reading and writing. */
  fd(number: number): number {
    const fd = this.#fds.get(number);
    if (fd === undefined) throw new Error(`physical volume ${number} is not open`);
    return fd;
  }

  /** Makes again the missing parts that `open` found to be of no volume. */
  async repair(notice: (text: string) => void): Promise<void> {
    for (const { number, byteLength } of this.#repairs.splice(0)) {
      const path = this.path(number);
      notice(`${path} was missing or short where no volume has regions; it is made ${byteLength} bytes long again`);
      try {
        const fd = this.#fds.get(number);
        if (fd === undefined) this.#fds.set(number, await createSparseFile(path, byteLength));
        else await extendSparseFile(fd, byteLength);
        syncDirectory(join(this.#directory, PV_DIRECTORY));
      } catch (error) {
        throw storeFault(error, 'making a physical volume again', path);
      }
    }
  }

  /** Makes new files, empty and durable; the caller commits their rows, or calls `discard`. */
  async create(numbers: readonly number[], byteLength: number): Promise<void> {
    const made: number[] = [];
    try {
      for (const number of numbers) {
        this.#fds.set(number, await createSparseFile(this.path(number), byteLength));
        made.push(number);
      }
      syncDirectory(join(this.#directory, PV_DIRECTORY));
    } catch (error) {
      await this.discard(made);
      throw storeFault(error, 'making a physical volume', this.path(numbers[made.length] ?? 0));
    }
  }

  /** Removes files that were made and not committed. */
  async discard(numbers: readonly number[]): Promise<void> {
    for (const number of numbers) {
      const fd = this.#fds.get(number);
      this.#fds.delete(number);
      if (fd !== undefined) closeFile(fd);
      await removeFile(this.path(number));
    }
  }

  close(): void {
    for (const fd of this.#fds.values()) closeFile(fd);
    this.#fds.clear();
  }

  #openOne(tables: Tables, number: number, regions: number, readOnly: boolean): void {
    const path = this.path(number);
    const byteLength = regions * tables.regionBytes;
    const opened = openOrExplain(path, readOnly);
    if (opened !== null) this.#fds.set(number, opened.fd);
    const present = opened?.byteLength ?? 0;
    if (present >= byteLength) return;
    const victim = firstVolumeBehind(tables, number, Math.floor(present / tables.regionBytes));
    if (victim !== null) throw lostPart(path, opened === null ? null : present, byteLength, victim);
    this.#repairs.push({ number, byteLength });
  }
}

const openOrExplain = (path: string, readOnly: boolean): ReturnType<typeof openSparseFile> => {
  try {
    return openSparseFile(path, readOnly);
  } catch (error) {
    throw storeFault(error, 'opening a physical volume', path);
  }
};

/** A volume that has a region of the physical volume at or behind `region`. */
export const firstVolumeBehind = (tables: Tables, pv: number, region: number): VolumeRow | null =>
  tables.volumes().find((volume) => volume.runs.some((run) => run.pv === pv && run.start + run.count > region)) ?? null;

const lostPart = (path: string, present: number | null, byteLength: number, victim: VolumeRow): Error => {
  const what = present === null ? 'is missing' : `is ${present} bytes long instead of ${byteLength}`;
  return damaged(`${path} ${what}, and volume ${victim.number} (${victim.name}) has data there`, { file: path });
};
