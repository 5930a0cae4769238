/** planted: layer */
import { workerFile } from '../platform/worker-file.ts';

export const used = workerFile('data/lane-worker');
