/**
 * The clock as a thing that can be handed over: code that waits takes one of these, and tests give it a clock of theirs.
 */
export type Timer = { cancel(): void };

export interface Clock {
  /** Milliseconds since 1970. */
  nowMs(): number;
  /** Milliseconds that only ever grow, to measure durations by. */
  elapsedMs(): number;
  /** Runs `action` once after that time, unless it is cancelled before. The wait keeps the process alive. */
  after(delayMs: number, action: () => void): Timer;
}

export class SystemClock implements Clock {
  nowMs(): number {
    return Date.now();
  }

  elapsedMs(): number {
    return performance.now();
  }

  after(delayMs: number, action: () => void): Timer {
    const timer = setTimeout(action, delayMs);
    return { cancel: () => clearTimeout(timer) };
  }
}
