/**
 * One table: rows by key, with the memory of what a change in progress has replaced, so that the change can be checked
 * as a whole and taken back as a whole.
 *
 * Between two changes `changes` is empty. A change writes with `set` and `delete`, then either `settle`s (and gets what
 * it needs to take itself back later) or `restore`s at once.
 */

/** key -> the row before the change; undefined when there was none. */
export type Before<K, R> = ReadonlyMap<K, R | undefined>;

export class TrackedRows<K, R> {
  readonly #rows = new Map<K, R>();
  #before = new Map<K, R | undefined>();

  get size(): number {
    return this.#rows.size;
  }
  get(key: K): R | undefined {
    return this.#rows.get(key);
  }
  has(key: K): boolean {
    return this.#rows.has(key);
  }
  values(): IterableIterator<R> {
    return this.#rows.values();
  }

  set(key: K, row: R): void {
    this.#remember(key);
    this.#rows.set(key, row);
  }

  delete(key: K): boolean {
    this.#remember(key);
    return this.#rows.delete(key);
  }

  /** What the change in progress has replaced so far. */
  get changes(): Before<K, R> {
    return this.#before;
  }

  /** Ends the change, and returns what `restore` needs to take it back. */
  settle(): Before<K, R> {
    const before = this.#before;
    this.#before = new Map();
    return before;
  }

  restore(before: Before<K, R>): void {
    for (const [key, row] of before) {
      if (row === undefined) this.#rows.delete(key);
      else this.#rows.set(key, row);
    }
    this.#before.clear();
  }

  #remember(key: K): void {
    if (!this.#before.has(key)) this.#before.set(key, this.#rows.get(key));
  }
}
