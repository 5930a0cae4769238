/**
 * The region map as the data path reads it: logical byte offset of a volume -> physical volume, byte offset there, and
 * how many bytes follow without a break.
 *
 * `locate` is called for each request, so it allocates nothing: its result is in `pv`, `offset` and `length`. Physical
 * runs that follow each other are merged; a volume in one run (the usual case) costs two comparisons; otherwise the
 * last hit is tried before a binary search.
 *
 * The whole map is one Float64Array (`table`), so that it can be posted to a worker or laid over shared memory:
 * three numbers for each run: [end of the run in the volume, physical volume, what to add to a volume's byte offset to
 * get the byte offset in the physical volume], all in bytes. Invariants: ends rise; the last one is the capacity (the
 * last region may be used in part). All numbers are below 2^53.
 */
import type { RegionRun } from './rows.ts';
import { mergeNeighbours } from './runs.ts';

const WORDS_PER_RUN = 3;

export class RegionMap {
  /** Result of `locate`: number of the physical volume. */
  pv = 0;
  /** Result of `locate`: byte offset in the physical volume. */
  offset = 0;
  /** Result of `locate`: bytes from there to the end of the contiguous run. */
  length = 0;
  readonly capacityBytes: number;
  readonly runCount: number;
  readonly table: Float64Array;
  /** Word index of the run of the last hit. */
  #last = 0;

  /** @param table as described above, of a map made by `fromRuns` */
  constructor(table: Float64Array) {
    if (table.length === 0 || table.length % WORDS_PER_RUN !== 0) throw new Error('a region map has three words for each run');
    this.table = table;
    this.runCount = table.length / WORDS_PER_RUN;
    this.capacityBytes = table[table.length - WORDS_PER_RUN] as number;
  }

  /** @throws Error when the runs are fewer or more regions than the capacity needs (the tables have checked it) */
  static fromRuns(runs: readonly RegionRun[], regionBytes: number, capacityBytes: number): RegionMap {
    const merged = mergeNeighbours(runs);
    const table = new Float64Array(merged.length * WORDS_PER_RUN);
    let start = 0;
    for (const [index, run] of merged.entries()) {
      const end = start + run.count * regionBytes;
      table[index * WORDS_PER_RUN] = Math.min(end, capacityBytes);
      table[index * WORDS_PER_RUN + 1] = run.pv;
      table[index * WORDS_PER_RUN + 2] = run.start * regionBytes - start;
      start = end;
    }
    if (start < capacityBytes || start - capacityBytes >= regionBytes) {
      throw new Error(`${start} bytes of regions do not make a capacity of ${capacityBytes}`);
    }
    return new RegionMap(table);
  }

  /**
   * Where the volume's byte `offset` lies: sets `pv`, `offset`, `length`.
   * @returns false, with nothing set, when the offset is outside of the volume
   */
  locate(offset: number): boolean {
    const table = this.table;
    let word = this.#last;
    if (!(offset >= 0 && offset < this.capacityBytes)) return false;
    if (offset >= (table[word] as number) || (word > 0 && offset < (table[word - WORDS_PER_RUN] as number))) {
      word = this.#search(offset);
      this.#last = word;
    }
    this.pv = table[word + 1] as number;
    this.offset = offset + (table[word + 2] as number);
    this.length = (table[word] as number) - offset;
    return true;
  }

  /** Word index of the run that holds `offset`: the first one that ends behind it. */
  #search(offset: number): number {
    let low = 0;
    let high = this.runCount - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.table[middle * WORDS_PER_RUN] as number) > offset) high = middle;
      else low = middle + 1;
    }
    return low * WORDS_PER_RUN;
  }
}
