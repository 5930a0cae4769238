/**
 * The task of a worker beside the lanes, for what would keep a lane's other clients waiting. Two threads run it: the zero
 * worker clears long ranges (data/zero-path.ts), the slow worker reads and writes on media that keep their callers
 * (data/medium-watch.ts).
 *
 * Jobs are done one after another, by the same write path as on a lane. Punching a hole waits for a program, therefore
 * each has a hole puncher and an event loop of its own.
 */
import type { MessagePort } from 'node:worker_threads';
import { HolePuncher } from '../platform/hole-punch.ts';
import type { AsideDone, AsideJob } from './lane-messages.ts';
import { type PictureMessage, WorkerVolumes } from './worker-volumes.ts';
import { type LegFailure, truthLeg, type WorkerVolume, WritePath } from './write-path.ts';
import { zeroVolume } from './zero-path.ts';

export type AsideTask = { readonly port: MessagePort; readonly slot: number; readonly device: SharedArrayBuffer };
export type ToAsideWorker =
  | PictureMessage
  | { readonly type: 'job'; readonly job: AsideJob }
  | { readonly type: 'barrier'; readonly id: number }
  | { readonly type: 'stop' };
export type FromAsideWorker =
  | { readonly type: 'done'; readonly done: AsideDone }
  | { readonly type: 'leg-failed'; readonly failure: LegFailure }
  | { readonly type: 'answer'; readonly id: number; readonly value: unknown };

const NOTHING: Uint8Array = new Uint8Array(0);

export default async (task: AsideTask): Promise<void> => {
  const { port, slot } = task;
  const send = (message: FromAsideWorker): void => port.postMessage(message);
  const path = new WritePath(new Int32Array(task.device), slot, (failure) => send({ type: 'leg-failed', failure }));
  const picture = new WorkerVolumes<WorkerVolume>(slot, (base) => base);
  const puncher = new HolePuncher();
  let last: Promise<void> = Promise.resolve();

  const carryOut = async (volume: WorkerVolume, job: AsideJob, data: Uint8Array): Promise<string> => {
    if (job.kind === 'zero') return zeroVolume(path, volume, job, puncher);
    if (job.kind === 'write') return path.write(volume, job.payload, 0, job.offset, job.length);
    const leg = truthLeg(volume);
    return leg.read(data, 0, job.offset, job.length) ? '' : leg.failure;
  };
  const run = async (job: AsideJob): Promise<void> => {
    const volume = picture.volumes.get(job.volume);
    const data = job.kind === 'read' ? new Uint8Array(job.length) : NOTHING;
    const began = performance.now();
    const code = volume === undefined ? 'EIO' : await carryOut(volume, job, data);
    const tookUs = (performance.now() - began) * 1000;
    const done: AsideDone = { job: job.job, code, tookUs, data: code === '' ? data : NOTHING };
    port.postMessage({ type: 'done', done } satisfies FromAsideWorker, done.data.length === 0 ? [] : [data.buffer as ArrayBuffer]);
  };

  await new Promise<void>((resolve) => {
    port.on('message', (message: ToAsideWorker) => {
      // In order with the jobs: a picture changes between two of them, never within one.
      if (message.type === 'job') last = last.then(() => run(message.job));
      else if (message.type === 'barrier') last = last.then(() => send({ type: 'answer', id: message.id, value: true }));
      else if (message.type === 'stop') last = last.then(resolve);
      else last = last.then(() => picture.apply(message));
    });
  });
  await puncher.close();
  port.close();
};
