/**
 * The task of the zero worker: long ranges of zeros for all lanes, one after another (data/zero-path.ts).
 *
 * It has a hole puncher of its own and an event loop of its own, because punching a hole waits for a program.
 */
import type { MessagePort } from 'node:worker_threads';
import { HolePuncher } from '../platform/hole-punch.ts';
import type { ZeroJob } from './lane-messages.ts';
import { type PictureMessage, WorkerVolumes } from './worker-volumes.ts';
import { type LegFailure, WritePath, type WorkerVolume } from './write-path.ts';
import { zeroVolume } from './zero-path.ts';

export type ZeroTask = { readonly port: MessagePort; readonly slot: number; readonly device: SharedArrayBuffer };
export type ToZeroWorker =
  | PictureMessage
  | { readonly type: 'zero'; readonly job: ZeroJob }
  | { readonly type: 'barrier'; readonly id: number }
  | { readonly type: 'stop' };
export type FromZeroWorker =
  | { readonly type: 'zeroed'; readonly job: number; readonly code: string }
  | { readonly type: 'leg-failed'; readonly failure: LegFailure }
  | { readonly type: 'answer'; readonly id: number; readonly value: unknown };

export default async (task: ZeroTask): Promise<void> => {
  const { port, slot } = task;
  const send = (message: FromZeroWorker): void => port.postMessage(message);
  const path = new WritePath(new Int32Array(task.device), slot, (failure) => send({ type: 'leg-failed', failure }));
  const picture = new WorkerVolumes<WorkerVolume>(slot, (base) => base);
  const puncher = new HolePuncher();
  let last: Promise<void> = Promise.resolve();

  const zero = async (job: ZeroJob): Promise<void> => {
    const volume = picture.volumes.get(job.volume);
    const code = volume === undefined ? 'EIO' : await zeroVolume(path, volume, job, puncher);
    send({ type: 'zeroed', job: job.job, code });
  };

  await new Promise<void>((resolve) => {
    port.on('message', (message: ToZeroWorker) => {
      // In order with the jobs: a picture changes between two of them, never within one.
      if (message.type === 'zero') last = last.then(() => zero(message.job));
      else if (message.type === 'barrier') last = last.then(() => send({ type: 'answer', id: message.id, value: true }));
      else if (message.type === 'stop') last = last.then(resolve);
      else last = last.then(() => picture.apply(message));
    });
  });
  await puncher.close();
  port.close();
};
