/**
 * Jobs that the zero worker has taken: who asked for each, under which number.
 *
 * The answer goes to the lane that asked, not to the one that has its place by now, which numbers its jobs anew.
 */
import type { ZeroJob } from './lane-messages.ts';
import type { LaneLink } from './worker-set.ts';

export class ZeroDesk {
  readonly #jobs = new Map<number, { readonly link: LaneLink; readonly job: number }>();
  #last = 0;

  /** @returns the job under a number of its own */
  take(link: LaneLink, job: ZeroJob): ZeroJob {
    this.#last += 1;
    this.#jobs.set(this.#last, { link, job: job.job });
    return { ...job, job: this.#last };
  }

  answer(id: number, code: string): void {
    const asked = this.#jobs.get(id);
    this.#jobs.delete(id);
    asked?.link.send({ type: 'zeroed', job: asked.job, code });
  }

  /** The zero worker died: what it had taken is answered with `code`. */
  failAll(code: string): void {
    for (const id of [...this.#jobs.keys()]) this.answer(id, code);
  }
}
