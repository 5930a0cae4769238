/** The task of a lane's worker thread: serves connections until the engine stops (data/lane.ts). */
import type { MessagePort } from 'node:worker_threads';
import { Lane } from './lane.ts';
import type { LaneStart } from './lane-messages.ts';

export type LaneTask = LaneStart & { readonly port: MessagePort; readonly canPunch: boolean };

export default (task: LaneTask): Promise<void> => new Lane(task, task.port).run();
