/** A pair whose copy has everything to do, on real files and without an engine: for a lead and a helper that a test runs by hand. */
import { MiB } from '../../src/core/units.ts';
import { CopyTask } from '../../src/data/copy-task.ts';
import { deviceBlock, SLOT_COPY_FIRST } from '../../src/data/shared-memory.ts';
import { type WorkerPair, WritePath } from '../../src/data/write-path.ts';
import { type LegPair, legPair, legStore, workerPair } from './plane-legs.ts';
import { temporaryDirectory } from './temporary.ts';

export type CopyRig = AsyncDisposable & {
  readonly legs: LegPair;
  readonly pair: WorkerPair;
  readonly device: Int32Array;
  /** A folder for more files; it goes with the rig. */
  path(name: string): string;
  lead(survivesPowerLoss?: boolean): CopyTask;
};

/** @param mebibytes of the volumes, each with content of its own */
export const copyRig = async (mebibytes: number): Promise<CopyRig> => {
  const temporary = await temporaryDirectory();
  const legs = legPair(legStore(temporary.root), mebibytes);
  const pair = workerPair(legs);
  const device = deviceBlock();
  for (let at = 0; at < mebibytes; at += 1) pair.primary.leg.write(Buffer.alloc(MiB, at + 1), 0, at * MiB, MiB);
  legs.pair.apply('copying', 'all');
  return {
    legs,
    pair,
    device,
    path: (name) => temporary.path(name),
    lead: (survivesPowerLoss = false) =>
      new CopyTask(pair, legs.pair.primaryFile, {
        device,
        slot: SLOT_COPY_FIRST,
        path: new WritePath(device, SLOT_COPY_FIRST, () => {}),
        survivesPowerLoss: () => survivesPowerLoss,
      }),
    [Symbol.asyncDispose]: async () => {
      legs.close();
      await temporary[Symbol.asyncDispose]();
    },
  };
};
