/**
 * A copy's helper as the main thread sees it (copy-helper.ts is the helper itself). The copy's lead asks for it.
 */
import type { HelpResult } from './copy-helper.ts';
import type { CopyFailure } from './copy-steps.ts';
import type { PairState } from './plane-state.ts';
import { PAIR } from './shared-memory.ts';
import type { PairTaskPort } from './worker-set.ts';
import type { PictureMessage } from './worker-volumes.ts';

/** Runs the helper's task; null: it was given up before its turn. */
export type RunHelp = (port: Omit<PairTaskPort, 'onMessage'>) => Promise<HelpResult | null>;

export class CopyHelp {
  /** How to tell it of a changed volume. */
  send: (message: PictureMessage) => void = () => {};
  readonly #words: Int32Array;
  readonly #ended: Promise<CopyFailure | null>;
  #cancel: () => void = () => {};

  constructor(pair: PairState, run: RunHelp) {
    this.#words = pair.block.words;
    Atomics.store(this.#words, PAIR.HELPER_END, 0);
    const task = run({
      link: (send) => {
        this.send = send;
      },
      queued: (cancel) => {
        this.#cancel = cancel;
      },
    });
    this.#ended = task.then(
      (result) => this.#failureOf(result),
      // Its thread is gone, which the operators were told; the copy goes on without it.
      () => null,
    );
  }

  /** A leg that it could not read or write stops the copy. */
  #failureOf(result: HelpResult | null): CopyFailure | null {
    if (result?.end !== 'failed') return null;
    Atomics.store(this.#words, PAIR.COPY_STOP, 1);
    Atomics.notify(this.#words, PAIR.COPY_STOP);
    return result;
  }

  /** Tells it to end. @returns when it has let go of the pair: the failure of a leg that it met, or null */
  end(): Promise<CopyFailure | null> {
    this.#cancel();
    Atomics.store(this.#words, PAIR.HELPER_END, 1);
    Atomics.notify(this.#words, PAIR.HELPER_END);
    return this.#ended;
  }
}
