/** A `worker.ts` of one tree, asked over a channel; every answer has a time limit, and the process ends with its scope. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { CaseName } from './verdict.ts';
import type { WorkerAnswer, WorkerQuestion } from './worker.ts';

/** Preparing a table of a million regions takes a while on a slow machine. */
const ANSWER_MS_MAX = 60_000;

export class WorkerProcess implements AsyncDisposable {
  readonly #child: ChildProcess;

  constructor(tree: string) {
    this.#child = fork(join(tree, 'bench/micro/worker.ts'), [], {
      cwd: tree,
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
  }

  async cases(): Promise<readonly CaseName[]> {
    const answer = await this.#ask({ ask: 'cases' });
    if (!('cases' in answer)) throw new Error('the worker does not name its cases');
    return answer.cases;
  }

  async measure(name: string, timeMs: number): Promise<number> {
    const answer = await this.#ask({ ask: 'measure', name, timeMs });
    if ('error' in answer) throw new Error(answer.error);
    if (!('nsPerOperation' in answer)) throw new Error('the worker did not measure');
    return answer.nsPerOperation;
  }

  #ask(question: WorkerQuestion): Promise<WorkerAnswer> {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(() => reject(new Error(`no answer within ${ANSWER_MS_MAX} ms`))), ANSWER_MS_MAX);
      const onMessage = (answer: unknown): void => end(() => resolve(answer as WorkerAnswer));
      const onExit = (status: number | null): void => end(() => reject(new Error(`the worker ended with status ${status}`)));
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        child.off('message', onMessage).off('exit', onExit);
        settle();
      };
      child.on('message', onMessage).on('exit', onExit);
      if (child.exitCode !== null) onExit(child.exitCode);
      else child.send(question);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}
