/**
 * Whether a volume's medium keeps its callers waiting: reads that miss the cache, a file system over a network.
 *
 * A lane works by calls that return in microseconds as long as the page cache answers. On such a medium they do not, and
 * every other client of the lane would wait; then the volume's requests go to the slow worker until its calls are
 * quick again. A lane times a whole turn anyway; only when one took too long are single calls timed for a while.
 */

/** A call on the page cache takes at most this, and this much more for each byte. */
const CALL_US = 60;
const US_FOR_BYTE = 1 / 800;
/** One call counts no more than this: a thread that lost its processor for a while is no slow medium. */
const EXCESS_US_MAX = 300;
const SLOW_US = 1500;
const SCORE_US_MAX = 4000;
/** What a quick call makes good. */
const QUICK_US = 20;
const QUICK_ASIDE_US = 100;
/** Calls that are timed after a long turn. */
const TIMED_CALLS = 256;

/**
 * What a turn takes at most where the page cache answers.
 * @param work bytes read and written, and 4096 for each request
 */
export const turnUsMax = (work: number): number => 250 + work / 300;

export class MediumWatch {
  isSlow = false;
  /** Single calls are to be timed. */
  isTimed = false;
  #timedCalls = 0;
  #score = 0;

  /** A turn took longer than `turnUsMax`. */
  suspect(): void {
    this.isTimed = true;
    this.#timedCalls = TIMED_CALLS;
  }

  /** A call of the lane's own. */
  called(tookUs: number, bytes: number): void {
    this.#count(tookUs, bytes, QUICK_US);
    this.#timedCalls -= 1;
    if (this.#timedCalls <= 0 && this.#score === 0) this.isTimed = false;
    if (this.#score >= SLOW_US) this.isSlow = true;
  }

  /** A call of the slow worker. */
  calledAside(tookUs: number, bytes: number): void {
    this.#count(tookUs, bytes, QUICK_ASIDE_US);
    if (this.#score > 0) return;
    this.isSlow = false;
    this.suspect();
  }

  #count(tookUs: number, bytes: number, quickUs: number): void {
    const allowedUs = CALL_US + bytes * US_FOR_BYTE;
    const excessUs = tookUs - allowedUs;
    // A long call meets more of what else goes on in the machine, and counts as much when it was quick.
    const next = excessUs > 0 ? this.#score + Math.min(EXCESS_US_MAX, excessUs) : this.#score - Math.max(quickUs, allowedUs / 4);
    this.#score = Math.min(SCORE_US_MAX, Math.max(0, next));
  }
}
