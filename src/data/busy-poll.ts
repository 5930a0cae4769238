/**
 * Busy polling: a lane that has one busy client looks for its next request, or for room for its next reply, at the socket
 * itself for some microseconds, and only then goes back to its event loop. To sleep and to be woken costs more than
 * most requests do.
 *
 * It is a bet, and the lane learns whether it pays: it begins when the last turns all came from one connection, and a
 * row of misses ends it for a while that doubles. A turn of the event loop lasts at most `TURN_US` longer for it, so
 * messages, timers and other connections wait no longer than that.
 */

/** A look that finds nothing is repeated for so long. */
const WAIT_US = 60;
/** Time between two turns of the event loop. */
const TURN_US = 400;
/** Turns in a row that one connection must have had. */
const STREAK_MIN = 16;
/** Misses in a row that end it. */
const MISSES_MAX = 8;
const PAUSE_US_MIN = 5000;
const PAUSE_US_MAX = 500_000;

const nowUs = (): number => performance.now() * 1000;

export class BusyPoll {
  #owner: object | null = null;
  #streak = 0;
  #misses = 0;
  #pauseUs = PAUSE_US_MIN;
  #pausedUntilUs = 0;
  #turnEndsUs = 0;
  #waitEndsUs = 0;
  #isOn = false;

  /** One client is busy, and its socket is looked at without waiting for the event loop. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** The event loop gives `owner` a turn; `end` must follow. */
  begin(owner: object): void {
    this.#isOn = false;
    if (owner !== this.#owner) {
      this.#owner = owner;
      this.#streak = 0;
    } else if (this.#streak < STREAK_MIN) this.#streak += 1;
    else {
      const now = nowUs();
      if (now < this.#pausedUntilUs) return;
      this.#isOn = true;
      this.#turnEndsUs = now + TURN_US;
    }
  }

  end(): void {
    this.#isOn = false;
  }

  /** What was looked for was there and has been handled. True: look further. */
  hit(): boolean {
    this.#misses = 0;
    this.#pauseUs = PAUSE_US_MIN;
    return this.look();
  }

  /** True: look, from now on for as long as it may take. */
  look(): boolean {
    if (!this.#isOn) return false;
    const now = nowUs();
    this.#waitEndsUs = now + WAIT_US;
    return now < this.#turnEndsUs;
  }

  /** It was not there. True: look again. */
  miss(): boolean {
    if (!this.#isOn) return false;
    const now = nowUs();
    if (now < this.#waitEndsUs) return true;
    this.#isOn = false;
    this.#misses += 1;
    if (this.#misses >= MISSES_MAX) {
      this.#misses = 0;
      this.#pausedUntilUs = now + this.#pauseUs;
      this.#pauseUs = Math.min(PAUSE_US_MAX, this.#pauseUs * 2);
    }
    return false;
  }
}
