/**
 * The worker threads that this process starts, so that a test can end one in the middle of its work: from another
 * thread, at any instruction, as a fault of the run-time would.
 *
 *     using threads = watchWorkerThreads();
 *     ...
 *     await threads.since(mark).at(-1)?.terminate();
 */
import type { Worker } from 'node:worker_threads';

export type WorkerThreads = Disposable & {
  /** How many were started so far. */
  readonly count: number;
  /** Those that were started after the first `count` ones and still run. */
  since(count: number): readonly Worker[];
};

export const watchWorkerThreads = (): WorkerThreads => {
  const started: Worker[] = [];
  const gone = new Set<Worker>();
  const listener = (worker: Worker): void => {
    started.push(worker);
    worker.once('exit', () => gone.add(worker));
  };
  process.on('worker', listener);
  return {
    get count() {
      return started.length;
    },
    since: (count) => started.slice(count).filter((worker) => !gone.has(worker)),
    [Symbol.dispose]: () => {
      process.off('worker', listener);
    },
  };
};
