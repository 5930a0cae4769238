/** The task of a copy worker, its helper or a verify worker: one pair, from its start to its end. */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { BitmapFile } from '../store/bitmap-file.ts';
import { CopyHelper, type HelpResult } from './copy-helper.ts';
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
  | { readonly kind: 'help' }
  | { readonly kind: 'verify'; readonly control: SharedArrayBuffer; readonly repair: boolean }
);

export type FromPairWorker =
  | { readonly type: 'leg-failed'; readonly failure: LegFailure }
  /** A copy that takes longer wants its helper. */
  | { readonly type: 'help-wanted' };

export default async (task: PairTask): Promise<CopyResult | HelpResult | VerifyResult> => {
  const device = new Int32Array(task.device);
  const send = (message: FromPairWorker): void => task.port.postMessage(message);
  const path = new WritePath(device, task.slot, (failure) => send({ type: 'leg-failed', failure }));
  const picture = new WorkerVolumes<WorkerVolume>(task.slot, (base) => base);
  picture.survivesPowerLoss = task.survivesPowerLoss;
  for (const volume of task.volumes) picture.apply(volume);
  picture.apply(task.pair);
  const pair = picture.pairs.get(task.pair.id) as WorkerPair;
  // The loop of a copy is busy, so messages are fetched, not awaited.
  const between = (): void => {
    for (let got = receiveMessageOnPort(task.port); got !== undefined; got = receiveMessageOnPort(task.port)) {
      picture.apply(got.message as PictureMessage);
    }
  };
  try {
    if (task.kind === 'verify') return new VerifyTask(pair, path, device, new Int32Array(task.control), task.repair).run();
    if (task.kind === 'help') return await new CopyHelper(pair, { device, path }).run(between);
    const file = BitmapFile.adopt(task.file.path, task.file.fd, {
      bits: task.pair.regions,
      bytesPerBit: task.pair.dirtyRegionBytes,
      owner: task.pair.id,
    });
    const survivesPowerLoss = (): boolean => picture.survivesPowerLoss;
    const askForHelp = (): void => send({ type: 'help-wanted' });
    return await new CopyTask(pair, file, { device, slot: task.slot, path, survivesPowerLoss, askForHelp }).run(between);
  } finally {
    task.port.close();
  }
};
