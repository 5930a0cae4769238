/** The task of a copy or verify worker: one pair, from its start to its end (data/copy-task.ts, data/verify-task.ts). */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { BitmapFile } from '../store/bitmap-file.ts';
import { type CopyResult, CopyTask } from './copy-task.ts';
import { type VerifyResult, VerifyTask } from './verify-task.ts';
import { type PairMessage, type PictureMessage, type VolumeMessage, WorkerVolumes } from './worker-volumes.ts';
import { type LegFailure, WritePath, type WorkerPair, type WorkerVolume } from './write-path.ts';

export type PairTask = {
  readonly port: MessagePort;
  readonly slot: number;
  readonly device: SharedArrayBuffer;
  readonly volumes: readonly VolumeMessage[];
  readonly pair: PairMessage;
  readonly survivesPowerLoss: boolean;
} & (
  | { readonly kind: 'copy'; readonly file: { readonly path: string; readonly fd: number } }
  | { readonly kind: 'verify'; readonly control: SharedArrayBuffer; readonly repair: boolean }
);

export type FromPairWorker = { readonly type: 'leg-failed'; readonly failure: LegFailure };

export default async (task: PairTask): Promise<CopyResult | VerifyResult> => {
  const device = new Int32Array(task.device);
  const send = (message: FromPairWorker): void => task.port.postMessage(message);
  const path = new WritePath(device, task.slot, (failure) => send({ type: 'leg-failed', failure }));
  const picture = new WorkerVolumes<WorkerVolume>(task.slot, (base) => base);
  picture.survivesPowerLoss = task.survivesPowerLoss;
  for (const volume of task.volumes) picture.apply(volume);
  picture.apply(task.pair);
  const pair = picture.pairs.get(task.pair.id) as WorkerPair;
  try {
    if (task.kind === 'verify') return new VerifyTask(pair, path, device, new Int32Array(task.control), task.repair).run();
    const file = BitmapFile.adopt(task.file.path, task.file.fd, {
      bits: task.pair.regions,
      bytesPerBit: task.pair.dirtyRegionBytes,
      owner: task.pair.id,
    });
    const copy = new CopyTask(pair, file, { device, slot: task.slot, path, survivesPowerLoss: () => picture.survivesPowerLoss });
    return await copy.run(() => {
      // The loop is busy, so messages are fetched, not awaited.
      for (let got = receiveMessageOnPort(task.port); got !== undefined; got = receiveMessageOnPort(task.port)) {
        picture.apply(got.message as PictureMessage);
      }
    });
  } finally {
    task.port.close();
  }
};
