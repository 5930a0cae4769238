/**
 * Whether a volume's medium keeps its callers waiting: reads that miss the cache, a file system over a network.
 *
 * A lane works by calls that return in microseconds as long as the page cache answers. On such a medium they do not, and
 * every other client of the lane would wait; then the volume's requests go to the slow worker until its calls are
 * quick again. A lane times a whole turn anyway; only when one took too long are single calls timed for a while.
 */

/** What a call on the page cache takes at most more for each byte. */
const US_FOR_BYTE = 1 / 800;
/** One call counts no more than this: a thread that lost its processor for a while is no slow medium. */
const EXCESS_US_MAX = 300;
const SLOW_US = 1500;
const SCORE_US_MAX = 4000;

export type MediumKind = {
  /** A call on the page cache takes at most this, and more for its bytes. */
  readonly callUs: number;
  /** What a quick call makes good: on the lane, and on the slow worker. */
  readonly quickUs: number;
  readonly quickAsideUs: number;
};
/** A read waits for nobody but the medium. */
export const READS: MediumKind = { callUs: 60, quickUs: 20, quickAsideUs: 100 };
/** A write also waits for other writes to the file and for a copy's step, and is slow only if most are, and by far. */
export const WRITES: MediumKind = { callUs: 1500, quickUs: EXCESS_US_MAX, quickAsideUs: EXCESS_US_MAX };

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
  readonly #kind: MediumKind;
  #timedCalls = 0;
  #score = 0;

  constructor(kind: MediumKind) {
    this.#kind = kind;
  }

  /** A turn took longer than `turnUsMax`. */
  suspect(): void {
    this.isTimed = true;
    this.#timedCalls = TIMED_CALLS;
  }

  /** A call of the lane's own. */
  called(tookUs: number, bytes: number): void {
    this.#count(tookUs, bytes, this.#kind.quickUs);
    this.#timedCalls -= 1;
    if (this.#timedCalls <= 0 && this.#score === 0) this.isTimed = false;
    if (this.#score >= SLOW_US) this.isSlow = true;
  }

  /** A call of the slow worker. */
  calledAside(tookUs: number, bytes: number): void {
    this.#count(tookUs, bytes, this.#kind.quickAsideUs);
    if (this.#score > 0) return;
    this.isSlow = false;
    this.suspect();
  }

  #count(tookUs: number, bytes: number, quickUs: number): void {
    const allowedUs = this.#kind.callUs + bytes * US_FOR_BYTE;
    const excessUs = tookUs - allowedUs;
    // A long call meets more of what else goes on in the machine, and counts as much when it was quick.
    const next = excessUs > 0 ? this.#score + Math.min(EXCESS_US_MAX, excessUs) : this.#score - Math.max(quickUs, allowedUs / 4);
    this.#score = Math.min(SCORE_US_MAX, Math.max(0, next));
  }
}
