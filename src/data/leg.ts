/**
 * A leg: one volume's bytes on its physical volumes, read and written by positional system calls on the spot.
 *
 * One system call for each contiguous run. Nothing is thrown on the hot path: a failed call returns false and leaves
 * the system's code in `failure`. Descriptors are process-wide, so every worker uses the numbers that the store opened.
 */
import fs from 'node:fs';
import { systemCode } from '../core/faults.ts';
import { RegionMap } from '../core/region-map.ts';
import type { RegionRun } from '../core/rows.ts';
import { seekData, seekHole } from '../platform/hole-seek.ts';
import { type ActiveFault, faultError } from './fault-rules.ts';

/** A volume as workers are told of it. */
export type LegSpec = {
  readonly number: number;
  readonly capacityBytes: number;
  readonly regionBytes: number;
  readonly runs: readonly RegionRun[];
  /** Physical volume number -> descriptor and path, for the physical volumes of the runs. */
  readonly files: ReadonlyArray<readonly [pv: number, fd: number, path: string]>;
};

const ZEROS: Buffer = Buffer.alloc(1024 * 1024);

export class Leg {
  readonly number: number;
  readonly capacityBytes: number;
  /** Rules of a volume that misbehaves on purpose; null for every other one. */
  faults: readonly ActiveFault[] | null = null;
  /** The system's code of the last failed call: `EIO`, `ENOSPC`. */
  failure = '';
  readonly fds: readonly number[];
  /** Numbers of its physical volumes, in the order of `fds`. */
  readonly pvs: readonly number[];
  readonly #map: RegionMap;
  readonly #fdOf: number[] = [];
  readonly #pathOf: string[] = [];

  constructor(spec: LegSpec) {
    this.number = spec.number;
    this.capacityBytes = spec.capacityBytes;
    this.#map = RegionMap.fromRuns(spec.runs, spec.regionBytes, spec.capacityBytes);
    for (const [pv, fd, path] of spec.files) {
      this.#fdOf[pv] = fd;
      this.#pathOf[pv] = path;
    }
    this.fds = spec.files.map(([, fd]) => fd);
    this.pvs = spec.files.map(([pv]) => pv);
  }

  /** Reads [offset, offset + length) of the volume into `buffer` at `at`. */
  read(buffer: Uint8Array, at: number, offset: number, length: number): boolean {
    if (this.faults !== null && this.#struck('read', offset, length)) return false;
    const map = this.#map;
    let done = 0;
    try {
      while (done < length) {
        if (!map.locate(offset + done)) return this.#fail('EIO');
        const wanted = Math.min(length - done, map.length);
        const got = fs.readSync(this.#fdOf[map.pv] as number, buffer, at + done, wanted, map.offset);
        // A physical volume is never shorter than its regions; if it is, somebody cut it.
        if (got === 0) return this.#fail('EIO');
        done += got;
      }
      return true;
    } catch (error) {
      return this.#fail(systemCode(error));
    }
  }

  /** Writes `length` bytes of `buffer` at `at` to the volume at `offset`. */
  write(buffer: Uint8Array, at: number, offset: number, length: number): boolean {
    if (this.faults !== null && this.#struck('write', offset, length)) return false;
    const map = this.#map;
    let done = 0;
    try {
      while (done < length) {
        if (!map.locate(offset + done)) return this.#fail('EIO');
        const wanted = Math.min(length - done, map.length);
        done += fs.writeSync(this.#fdOf[map.pv] as number, buffer, at + done, wanted, map.offset);
      }
      return true;
    } catch (error) {
      return this.#fail(systemCode(error));
    }
  }

  /** Writes zeros, also over holes. */
  writeZeros(offset: number, length: number): boolean {
    for (let done = 0; done < length; done += ZEROS.length) {
      if (!this.write(ZEROS, 0, offset + done, Math.min(ZEROS.length, length - done))) return false;
    }
    return true;
  }

  /** Makes the range read as zeros; holes stay holes. */
  clear(offset: number, length: number): boolean {
    const end = offset + length;
    for (let at = this.nextData(offset, end); at < end; ) {
      const dataEnd = this.nextHole(at, end);
      if (!this.writeZeros(at, dataEnd - at)) return false;
      at = this.nextData(dataEnd, end);
    }
    return true;
  }

  /** First offset in [offset, end) that may hold data, or `end`. A failing call counts as data. */
  nextData(offset: number, end: number): number {
    const map = this.#map;
    let at = offset;
    try {
      while (at < end && map.locate(at)) {
        const stop = map.offset + Math.min(end - at, map.length);
        const found = seekData(this.#fdOf[map.pv] as number, map.offset, stop);
        if (found < stop) return at + (found - map.offset);
        at += stop - map.offset;
      }
      return end;
    } catch {
      return at;
    }
  }

  /** First offset in [offset, end) that is in a hole, or `end`. A failing call counts as data to the end. */
  nextHole(offset: number, end: number): number {
    const map = this.#map;
    let at = offset;
    try {
      while (at < end && map.locate(at)) {
        const stop = map.offset + Math.min(end - at, map.length);
        const found = seekHole(this.#fdOf[map.pv] as number, map.offset, stop);
        if (found < stop) return at + (found - map.offset);
        at += stop - map.offset;
      }
      return end;
    } catch {
      return end;
    }
  }

  isHole(offset: number, length: number): boolean {
    return this.nextData(offset, offset + length) === offset + length;
  }

  /** Calls `visit` for each piece of the range that is contiguous in one file. Stops, and returns false, when it does. */
  async eachPiece(
    offset: number,
    length: number,
    visit: (path: string, fileOffset: number, bytes: number, volumeOffset: number) => Promise<boolean>,
  ): Promise<boolean> {
    for (let done = 0; done < length; ) {
      if (!this.#map.locate(offset + done)) return this.#fail('EIO');
      const { pv, offset: fileOffset } = this.#map;
      const bytes = Math.min(length - done, this.#map.length);
      if (!(await visit(this.#pathOf[pv] as string, fileOffset, bytes, offset + done))) return false;
      done += bytes;
    }
    return true;
  }

  #struck(operation: 'read' | 'write', offset: number, length: number): boolean {
    const code = faultError(this.faults as readonly ActiveFault[], operation, offset, length);
    if (code === '') return false;
    this.failure = code;
    return true;
  }

  #fail(code: string): false {
    this.failure = code === '' ? 'EIO' : code;
    return false;
  }
}
