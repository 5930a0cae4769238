/**
 * Jobs that a worker beside the lanes has taken: who asked for each, under which number.
 *
 * The answer goes to the lane that asked, not to the one that has its place by now, which numbers its jobs anew.
 */
import type { AsideDone, AsideJob } from './lane-messages.ts';
import type { LaneLink } from './worker-set.ts';

const NOTHING: Uint8Array = new Uint8Array(0);

export class AsideDesk {
  readonly #jobs = new Map<number, { readonly link: LaneLink; readonly job: number }>();
  #last = 0;

  /** @returns the job under a number of its own */
  take(link: LaneLink, job: AsideJob): AsideJob {
    this.#last += 1;
    this.#jobs.set(this.#last, { link, job: job.job });
    return { ...job, job: this.#last };
  }

  answer(done: AsideDone): void {
    const asked = this.#jobs.get(done.job);
    this.#jobs.delete(done.job);
    asked?.link.send({ type: 'aside', done: { ...done, job: asked.job } }, done.data.length === 0 ? [] : [done.data.buffer as ArrayBuffer]);
  }

  /** The worker died: what it had taken is answered with `code`. */
  failAll(code: string): void {
    for (const job of [...this.#jobs.keys()]) this.answer({ job, code, tookUs: 0, data: NOTHING });
  }
}
