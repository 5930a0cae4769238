/**
 * A crash trial whose crash is a power loss: the store lies on an XFS on a loop device, which is shut down without a
 * flush of its log. What was not synced never reaches the medium, as if the cable had been pulled.
 *
 * Before the cut, parts of the store's files are written back at random, as the kernel may do at any time, so that what
 * is lost is not always everything. What this does not show: a disk that loses what it said it had written, since the
 * image itself is on a file system that goes on.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB, MiB } from '../../src/core/units.ts';
import { initStore } from '../../src/store/init.ts';
import { CrashTrial, type TrialOptions, type TrialReport } from './crash-trial.ts';
import { LoopFileSystem } from './loop-file-system.ts';
import type { Random } from './random.ts';

const IMAGE_BYTES = 512 * MiB;
const WRITE_BACKS_MAX = 3;

export type PowerOptions = Pick<TrialOptions, 'random' | 'crashes' | 'restMs' | 'say' | 'onRound'> & {
  /** For the image and the mount point. */
  readonly directory: string;
};

/** Parts of files of the store, as the kernel's write-back might choose them. */
const writeBackSome = async (fileSystem: LoopFileSystem, store: string, random: Random): Promise<void> => {
  const folders = ['pv', 'bitmaps', 'intents', '.'];
  for (let left = random.int(0, WRITE_BACKS_MAX); left > 0; left -= 1) {
    const folder = join(store, random.pick(folders));
    const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isFile()).map(({ name }) => name);
    if (names.length === 0) continue;
    const path = join(folder, random.pick(names.sort()));
    const { size } = await stat(path).catch(() => ({ size: 0 }));
    const offset = Math.floor((random.next() * size) / (4 * KiB)) * 4 * KiB;
    await fileSystem.writeBack(path, offset, random.int(1, 1024) * 4 * KiB).catch(() => undefined);
  }
};

/** @throws TrialViolation */
export const runPowerTrial = async ({ directory, ...options }: PowerOptions): Promise<TrialReport> => {
  const fileSystem = await LoopFileSystem.make({ directory, bytes: IMAGE_BYTES, type: 'xfs' });
  try {
    const store = join(fileSystem.mountPoint, 's');
    await initStore(store, { pvBytes: 64 * MiB });
    const writeBacks = options.random.fork('write-back');
    const trial = new CrashTrial({
      ...options,
      store,
      promised: 'flushed',
      durability: 'power',
      crash: async (engine, mediumGoes) => {
        await writeBackSome(fileSystem, store, writeBacks);
        mediumGoes();
        await fileSystem.cutPower();
        await engine.kill();
        await fileSystem.unmount();
        await fileSystem.mount();
      },
    });
    return await trial.run();
  } finally {
    await fileSystem.remove();
  }
};
