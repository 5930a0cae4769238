/**
 * Runs the user's command for each warning of the device, with the event as one line of JSON on its standard input.
 *
 * It never holds anything up: a few run at a time, each for a limited time, a bounded number waits, and what is more is
 * dropped and counted in the log. What the command answers changes nothing.
 */
import type { EventView } from '../core/views.ts';
import { notify } from '../platform/notification.ts';
import type { ControlLog } from './control-log.ts';

export type WarningCommandOptions = {
  /** A command line of the shell. */
  readonly command: string;
  readonly log: ControlLog;
  /** After this it is killed. Default 10 s. */
  readonly timeoutMs?: number;
  readonly runningMax?: number;
  readonly waitingMax?: number;
};

const CLOSE_MS = 1000;

export class WarningCommand {
  readonly #command: string;
  readonly #log: ControlLog;
  readonly #timeoutMs: number;
  readonly #runningMax: number;
  readonly #waitingMax: number;
  readonly #waiting: EventView[] = [];
  readonly #running = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #dropped = 0;

  constructor({ command, log, timeoutMs = 10_000, runningMax = 2, waitingMax = 100 }: WarningCommandOptions) {
    this.#command = command;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
    this.#runningMax = runningMax;
    this.#waitingMax = waitingMax;
  }

  take(event: EventView): void {
    if (event.kind !== 'warning' || this.#stop.signal.aborted) return;
    if (this.#waiting.length >= this.#waitingMax) {
      this.#dropped += 1;
      this.#log.warn({ event: event.seq, dropped: this.#dropped }, 'the warning command is too slow: a warning was not handed to it');
      return;
    }
    this.#waiting.push(event);
    this.#startNext();
  }

  /** What runs may end within a second; what waits is dropped. */
  async close(): Promise<void> {
    this.#waiting.length = 0;
    const timer = setTimeout(() => this.#stop.abort(), CLOSE_MS);
    await Promise.all(this.#running);
    clearTimeout(timer);
    this.#stop.abort();
  }

  #startNext(): void {
    if (this.#running.size >= this.#runningMax) return;
    const event = this.#waiting.shift();
    if (event === undefined) return;
    const running = this.#run(event);
    this.#running.add(running);
    void running.then(() => {
      this.#running.delete(running);
      this.#startNext();
    });
  }

  async #run(event: EventView): Promise<void> {
    const { status, isLate, complaint } = await notify(this.#command, `${JSON.stringify(event)}\n`, {
      timeoutMs: this.#timeoutMs,
      signal: this.#stop.signal,
      env: { TWINVOL_EVENT: String(event.seq), TWINVOL_EVENT_OBJECT: event.object },
    });
    if (status === 0) return;
    const why = isLate
      ? `it was killed after ${this.#timeoutMs} ms`
      : status === null
        ? 'it did not run to its end'
        : `exit status ${status}`;
    this.#log.warn({ event: event.seq, status, complaint }, `the warning command failed: ${why}`);
  }
}
