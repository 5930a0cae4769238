/**
 * A map from numbers to numbers in the order of its keys, for hundreds of thousands of entries.
 *
 * Why not a sorted array: an insertion into 500,000 entries moves megabytes. Why not a tree: one object for each entry
 * costs five times the memory. So: short sorted arrays (chunks) of at most CHUNK_ENTRIES keys, found by binary search
 * over their first keys. A lookup, an insertion and a removal cost microseconds at 500,000 entries.
 *
 * Invariants: no chunk is empty; keys rise within a chunk and from chunk to chunk; `size` is the number of keys.
 * `floor`, `ceiling` and `first` leave what they found in `key` and `value`, so that nothing is allocated.
 */
const CHUNK_ENTRIES = 512;

type Chunk = { readonly keys: number[]; readonly values: number[] };

/** Index of the last key that is <= `key`, or -1. */
const floorIndex = (keys: readonly number[], key: number): number => {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as number) <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
};

export class SortedMap {
  /** What the last successful `floor`, `ceiling` or `first` found. */
  key = 0;
  value = 0;
  #chunks: Chunk[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Index of the last chunk whose first key is <= `key`, or -1. */
  #chunkIndex(key: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle]?.keys[0] as number) <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #found(chunk: Chunk, index: number): boolean {
    this.key = chunk.keys[index] as number;
    this.value = chunk.values[index] as number;
    return true;
  }

  /** Finds the entry with the greatest key <= `key`. */
  floor(key: number): boolean {
    const chunk = this.#chunks[this.#chunkIndex(key)];
    return chunk !== undefined && this.#found(chunk, floorIndex(chunk.keys, key));
  }

  /** Finds the entry with the smallest key >= `key`. */
  ceiling(key: number): boolean {
    const chunkIndex = Math.max(0, this.#chunkIndex(key));
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) return false;
    const below = floorIndex(chunk.keys, key);
    const index = below >= 0 && chunk.keys[below] === key ? below : below + 1;
    if (index < chunk.keys.length) return this.#found(chunk, index);
    const next = this.#chunks[chunkIndex + 1];
    return next !== undefined && this.#found(next, 0);
  }

  first(): boolean {
    const chunk = this.#chunks[0];
    return chunk !== undefined && this.#found(chunk, 0);
  }

  get(key: number): number | undefined {
    const chunk = this.#chunks[this.#chunkIndex(key)];
    if (chunk === undefined) return undefined;
    const index = floorIndex(chunk.keys, key);
    return chunk.keys[index] === key ? chunk.values[index] : undefined;
  }

  set(key: number, value: number): void {
    const chunkIndex = Math.max(0, this.#chunkIndex(key));
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) {
      this.#chunks.push({ keys: [key], values: [value] });
      this.#size = 1;
      return;
    }
    const below = floorIndex(chunk.keys, key);
    if (below >= 0 && chunk.keys[below] === key) {
      chunk.values[below] = value;
      return;
    }
    chunk.keys.splice(below + 1, 0, key);
    chunk.values.splice(below + 1, 0, value);
    this.#size += 1;
    if (chunk.keys.length <= CHUNK_ENTRIES) return;
    // Rising insertions (a load in order) leave full chunks behind; others halve.
    const cut = below + 2 === chunk.keys.length ? CHUNK_ENTRIES : CHUNK_ENTRIES / 2;
    this.#chunks.splice(chunkIndex + 1, 0, { keys: chunk.keys.splice(cut), values: chunk.values.splice(cut) });
  }

  delete(key: number): boolean {
    const chunkIndex = this.#chunkIndex(key);
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) return false;
    const index = floorIndex(chunk.keys, key);
    if (chunk.keys[index] !== key) return false;
    chunk.keys.splice(index, 1);
    chunk.values.splice(index, 1);
    this.#size -= 1;
    if (chunk.keys.length === 0) this.#chunks.splice(chunkIndex, 1);
    return true;
  }

  /** Entries in the order of their keys. The map must not change meanwhile. */
  *entries(): IterableIterator<readonly [key: number, value: number]> {
    for (const chunk of this.#chunks) {
      for (const [index, key] of chunk.keys.entries()) yield [key, chunk.values[index] as number];
    }
  }

  /** Keys in order. The map must not change meanwhile. */
  *keys(): IterableIterator<number> {
    for (const chunk of this.#chunks) yield* chunk.keys;
  }
}
