/**
 * A directory in memory (tmpfs) for the stores and files of a run, so that the software is measured and not a disk. All of
 * it goes when its scope ends. Paths are short, because that of a unix socket may have 107 bytes.
 */
import { randomFillSync } from 'node:crypto';
import fs from 'node:fs';
import { mkdtemp, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/core/units.ts';

const PLACES = ['/dev/shm', '/tmp'];

export class Workplace implements AsyncDisposable {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  /** @param place a directory of the user's choice, or undefined. @throws Error when there is too little room */
  static async make(place: string | undefined, neededBytes: number): Promise<Workplace> {
    const parent = place ?? PLACES.find((path) => fs.existsSync(path)) ?? '/tmp';
    const { bavail, bsize } = await statfs(parent);
    if (bavail * bsize < neededBytes) {
      throw new Error(
        `${parent} has ${Math.round((bavail * bsize) / MiB)} MiB free, and ${Math.round(neededBytes / MiB)} MiB are needed: free some, or name another place with --place DIR`,
      );
    }
    return new Workplace(await mkdtemp(join(parent, 'tvb-')));
  }

  path(...names: string[]): string {
    return join(this.root, ...names);
  }

  async remove(...names: string[]): Promise<void> {
    await rm(this.path(...names), { recursive: true, force: true });
  }

  /** Removes what is in it. */
  async clear(): Promise<void> {
    for (const name of await readdir(this.root)) await this.remove(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.root, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** A file full of data that nothing can squeeze. */
export const writeFullFile = (path: string, bytes: number): void => {
  const block = randomFillSync(Buffer.allocUnsafe(MiB));
  const file = fs.openSync(path, 'w');
  for (let at = 0; at < bytes; at += MiB) {
    block.writeDoubleBE(at, 0);
    fs.writeSync(file, block, 0, Math.min(MiB, bytes - at), at);
  }
  fs.closeSync(file);
};

/** A sparse file of which a share holds data, in runs of 1 MiB that are spread evenly. */
export const writeSparseFile = (path: string, bytes: number, share: number): void => {
  const block = randomFillSync(Buffer.allocUnsafe(MiB));
  const file = fs.openSync(path, 'w');
  fs.ftruncateSync(file, bytes);
  const every = Math.round(1 / share);
  for (let index = 0; index * MiB < bytes; index += every) {
    block.writeDoubleBE(index, 0);
    fs.writeSync(file, block, 0, MiB, index * MiB);
  }
  fs.closeSync(file);
};
