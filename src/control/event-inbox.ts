/**
 * Where a client's events wait until they are read: filled by the connection, emptied by one reader.
 * Bounded by its owner: `isFull` says that the connection should be left alone until `onEmpty`.
 */
import type { TwinvolError } from '../core/faults.ts';
import type { EventView } from '../core/views.ts';

/** Events that are read ahead. */
const EVENTS_AHEAD_MAX = 256;

export class EventInbox {
  readonly #queue: EventView[] = [];
  readonly #onEmpty: () => void;
  #end: TwinvolError | 'ended' | null = null;
  #isAborted = false;
  #wake: () => void = () => {};

  /** @param onEmpty called whenever the reader has read all and waits for more */
  constructor(onEmpty: () => void) {
    this.#onEmpty = onEmpty;
  }

  get isFull(): boolean {
    return this.#queue.length >= EVENTS_AHEAD_MAX;
  }

  push(event: EventView): void {
    this.#queue.push(event);
    this.#wake();
  }

  /** No more will come: by an error, or because it was all. What waits is still read; the first call counts. */
  finish(how: TwinvolError | 'ended'): void {
    this.#end ??= how;
    this.#wake();
  }

  /** The reader wants no more, not even what waits. */
  abort(): void {
    this.#isAborted = true;
    this.#wake();
  }

  /** The next event, or null at the end; throws the error that ended it. */
  async next(): Promise<EventView | null> {
    while (!this.#isAborted) {
      const event = this.#queue.shift();
      if (event !== undefined) return event;
      if (this.#end === 'ended') return null;
      if (this.#end !== null) throw this.#end;
      this.#onEmpty();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return null;
  }
}
