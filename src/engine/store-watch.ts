/**
 * Looks now and then whether the store is still where it was, and tells the operators when it is gone or back.
 *
 * A directory that is deleted or moved takes nothing from an engine that has its files open: hosts go on reading and
 * writing what no next start will find. So it is said at once, flushes fail (data/flush-group.ts), and no change of the
 * tables is taken (`Store.commit`), until the directory is back.
 */
import type { DeviceContext } from './context.ts';

const PERIOD_MS = 1000;

export class StoreWatch {
  readonly #context: DeviceContext;
  readonly #timer: NodeJS.Timeout;
  #wasGone = false;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.#timer = setInterval(() => this.#look(), PERIOD_MS).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { store, events, log } = this.#context;
    const { isGone, directory } = store;
    if (isGone === this.#wasGone) return;
    this.#wasGone = isGone;
    const text = isGone
      ? 'the store was deleted or moved while the engine runs: flushes fail and nothing can be changed; move it back, or copy the volumes elsewhere over NBD before the engine ends'
      : 'the store is back where it was';
    log[isGone ? 'error' : 'info']({ directory }, text);
    events.append(isGone ? 'warning' : 'notice', 'device', 'store', { text, directory });
  }
}
