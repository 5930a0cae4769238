/**
 * A file system of its own in an image file on a loop device: to fill, to freeze, to let lose its power. Needs root and
 * the programs that `scripts/install-clients` installs; what was mounted here is unmounted here.
 */
import { execFile } from 'node:child_process';
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from '../../src/platform/program.ts';

const runFile = promisify(execFile);
const UNMOUNT_ATTEMPTS_MAX = 100;

export type LoopOptions = {
  /** Holds the image and the mount point; made if it is missing. */
  readonly directory: string;
  readonly bytes: number;
  readonly type: 'xfs' | 'ext4';
  readonly makeOptions?: readonly string[];
  /** Default: `image` in the directory. */
  readonly image?: string;
  /** Default: `mnt` in the directory. */
  readonly mountPoint?: string;
  /** Of mount. */
  readonly mountOptions?: string;
};

const run = async (program: string, ...args: readonly string[]): Promise<string> => {
  const { stdout } = await runFile(findProgram(program) ?? program, [...args]);
  return stdout.trim();
};

/** Why no such file system can be made here; null when it can. */
export const loopImpossible = (type: LoopOptions['type']): string | null => {
  if (process.getuid?.() !== 0) return 'it needs root, for a loop device and mount';
  for (const program of ['losetup', 'mount', 'umount', `mkfs.${type}`, ...(type === 'xfs' ? ['xfs_io'] : [])]) {
    if (findProgram(program) === null) return `${program} is not installed (scripts/install-clients installs it)`;
  }
  return null;
};

export class LoopFileSystem {
  readonly image: string;
  readonly mountPoint: string;
  readonly device: string;
  #isMounted = false;

  private constructor(image: string, mountPoint: string, device: string) {
    this.image = image;
    this.mountPoint = mountPoint;
    this.device = device;
  }

  static async make(options: LoopOptions): Promise<LoopFileSystem> {
    const { directory, bytes, type, makeOptions = [], image = join(directory, 'image'), mountPoint = join(directory, 'mnt') } = options;
    await mkdir(directory, { recursive: true });
    await mkdir(mountPoint, { recursive: true });
    const file = await open(image, 'w');
    await file.truncate(bytes);
    await file.close();
    await run(`mkfs.${type}`, ...makeOptions, '-q', image);
    const device = await run('losetup', '--find', '--show', image);
    const fileSystem = new LoopFileSystem(image, mountPoint, device);
    try {
      await fileSystem.mount(options.mountOptions);
      return fileSystem;
    } catch (error) {
      await fileSystem.remove();
      throw error;
    }
  }

  /** @param options of mount, such as `errors=remount-ro` */
  async mount(options = 'rw'): Promise<void> {
    await run('mount', '-o', options, this.device, this.mountPoint);
    this.#isMounted = true;
  }

  /** Waits for whoever still has a file open: a process that was killed is not gone at once. */
  async unmount(): Promise<void> {
    if (!this.#isMounted) return;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await run('umount', this.mountPoint);
        break;
      } catch (error) {
        if (attempt >= UNMOUNT_ATTEMPTS_MAX) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    this.#isMounted = false;
  }

  /**
   * XFS: as if the power went off, now. What was not synced is gone: the log in memory is not written, no page reaches
   * the medium any more, and everybody gets EIO.
   */
  async cutPower(): Promise<void> {
    await run('xfs_io', '-x', '-c', 'shutdown', this.mountPoint);
  }

  /** XFS: has the kernel write back a part of a file, as it may at any time by itself. Nothing of it is promised. */
  async writeBack(path: string, offset: number, length: number): Promise<void> {
    await run('xfs_io', '-c', `sync_range -w ${offset} ${length}`, path);
  }

  /** A file system that found an error and went read-only (ext4, mounted with errors=remount-ro). */
  async failOnError(): Promise<void> {
    await writeFile(`/sys/fs/ext4/${this.device.split('/').at(-1)}/trigger_fs_error`, 'a test');
  }

  async remount(options: string): Promise<void> {
    await run('mount', '-o', `remount,${options}`, this.mountPoint);
  }

  async remove(): Promise<void> {
    await this.unmount();
    await run('losetup', '--detach', this.device);
    await rm(this.image, { force: true });
  }
}
