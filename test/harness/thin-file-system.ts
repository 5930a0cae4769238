/**
 * A file system on a medium that can run out of space behind its back, as thinly provisioned storage does: writes go into
 * the page cache and fail later, when they are written back. Then a sync fails, once; the pages count as clean, and
 * what they held is gone. An XFS in a sparse image on a small tmpfs. Needs root. (Not an ext4: Linux 6.18 was seen to lose
 * what is written again to such a block, after a sync that succeeds.)
 */
import { execFile } from 'node:child_process';
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { MiB } from '../../src/core/units.ts';
import { findProgram } from '../../src/platform/program.ts';
import { LoopFileSystem } from './loop-file-system.ts';

const runFile = promisify(execFile);

export class ThinFileSystem {
  readonly fileSystem: LoopFileSystem;
  readonly #medium: string;

  private constructor(fileSystem: LoopFileSystem, medium: string) {
    this.fileSystem = fileSystem;
    this.#medium = medium;
  }

  /** @param bytes of the file system; @param mediumBytes what its medium really holds */
  static async make(
    directory: string,
    bytes: number,
    mediumBytes: number,
    mountPoint: string = join(directory, 'mnt'),
  ): Promise<ThinFileSystem> {
    const medium = join(directory, 'medium');
    await mkdir(medium, { recursive: true });
    await runFile(findProgram('mount') ?? 'mount', ['-t', 'tmpfs', '-o', `size=${mediumBytes}`, 'none', medium]);
    try {
      return new ThinFileSystem(
        await LoopFileSystem.make({ directory, bytes, type: 'xfs', mountPoint, image: join(medium, 'image') }),
        medium,
      );
    } catch (error) {
      await runFile(findProgram('umount') ?? 'umount', [medium]);
      throw error;
    }
  }

  get mountPoint(): string {
    return this.fileSystem.mountPoint;
  }

  /** From now on no block can be written that was not written before. */
  async exhaust(): Promise<void> {
    const ballast = await open(join(this.#medium, 'ballast'), 'w');
    try {
      for (;;) await ballast.write(Buffer.alloc(MiB));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      await ballast.close();
    }
    // The last bytes of the last page too.
    for (let index = 0; index < 64; index += 1)
      await writeFile(join(this.#medium, `crumb-${index}`), Buffer.alloc(4096)).catch(() => undefined);
  }

  async relieve(): Promise<void> {
    await rm(join(this.#medium, 'ballast'));
  }

  /** Forgets what is in the page cache, so that what is read comes from the medium. */
  static async forgetCache(): Promise<void> {
    await writeFile('/proc/sys/vm/drop_caches', '1');
  }

  async remove(): Promise<void> {
    await this.fileSystem.remove();
    await runFile(findProgram('umount') ?? 'umount', [this.#medium]);
  }
}
