/**
 * What may be read from each block of a volume, from what was asked and what was answered.
 *
 * A block has candidates: the writes whose content it may show. A write joins them when it is issued. When a write is
 * *promised* (acknowledged; or for power loss, acknowledged and covered by a flush), every candidate that had ended
 * before it was issued is out: to show it would be to show an older version than one that was promised. Writes that were
 * under way at the same time may end in either order, so both stay. A write without an answer stays a candidate: it may
 * have been done or not.
 *
 * Times are ticks of one counter, taken late for the end of a write and early for its start, so the history never
 * demands more than the engine promised.
 */
export type Write = {
  /** 0: zeros. */
  readonly sequence: number;
  readonly first: number;
  readonly count: number;
  readonly issuedAt: number;
  /** When it was answered, or when no answer could come any more; infinite before. */
  endedAt: number;
  isAcknowledged: boolean;
};

/** What has to have happened to a write for it to be promised. */
export type Promised = 'acknowledged' | 'flushed';

const NEVER: Write = { sequence: 0, first: 0, count: 0, issuedAt: 0, endedAt: 0, isAcknowledged: true };

/** Writes that are remembered by their number. */
const RECENT_WRITES = 512;

let tick = 0;
/** The next moment. */
export const nextTick = (): number => {
  tick += 1;
  return tick;
};

export class WriteHistory {
  readonly blocks: number;
  readonly #promised: Promised;
  /** Answers do not count at this time. */
  promisesNothing = false;
  #candidates: Write[][];
  /** Acknowledged and not yet covered by a flush. */
  #unflushed = new Set<Write>();
  /** Writes without an answer. */
  readonly #open = new Set<Write>();
  #recent: Write[] = [];
  /** Copies that are being taken: each gets what is issued meanwhile too. */
  readonly #recorders = new Set<WriteHistory>();

  constructor(blocks: number, promised: Promised) {
    this.blocks = blocks;
    this.#promised = promised;
    this.#candidates = Array.from({ length: blocks }, () => [NEVER]);
  }

  issue(first: number, count: number, sequence: number): Write {
    const write: Write = { sequence, first, count, issuedAt: nextTick(), endedAt: Number.POSITIVE_INFINITY, isAcknowledged: false };
    this.#open.add(write);
    this.#recent.push(write);
    if (this.#recent.length > 2 * RECENT_WRITES) this.#recent.splice(0, RECENT_WRITES);
    this.#add(write);
    for (const recorder of this.#recorders) recorder.#add(write);
    return write;
  }

  /** It was answered without an error. `durable`: with FUA. */
  acknowledge(write: Write, durable: boolean): void {
    this.#end(write);
    if (this.promisesNothing) return;
    write.isAcknowledged = true;
    if (durable || this.#promised === 'acknowledged') this.#promise(write);
    else this.#unflushed.add(write);
  }

  /** It was answered with an error, or its connection ended: it may have been done or not. */
  giveUp(write: Write): void {
    this.#end(write);
  }

  /** To be called when a flush is issued; the result when it was answered without an error. */
  flushing(): () => void {
    const covered = [...this.#unflushed];
    return () => {
      if (this.promisesNothing) return;
      for (const write of covered) if (this.#unflushed.delete(write)) this.#promise(write);
    };
  }

  /** Nobody writes any more: what has no answer by now gets none, and what was not flushed is not flushed any more. */
  settle(): void {
    for (const write of this.#open) this.#end(write);
    this.#unflushed.clear();
    this.promisesNothing = false;
  }

  /** The sequence numbers that a block may show now. */
  shownBy(block: number): ReadonlySet<number> {
    return new Set(this.#candidates[block]?.map((write) => write.sequence));
  }

  /** Whether a write with that number was issued after a moment: a read may meet one that came and was overwritten. */
  wasIssuedSince(moment: number, sequence: number): boolean {
    return this.#recent.some((write) => write.sequence === sequence && write.issuedAt > moment);
  }

  mayShow(block: number, sequence: number): boolean {
    return this.#candidates[block]?.some((write) => write.sequence === sequence) ?? false;
  }

  /** What a block was found to be after a restart is what it is from now on. */
  found(block: number, sequence: number): void {
    const write = this.#candidates[block]?.find((candidate) => candidate.sequence === sequence) ?? NEVER;
    this.#candidates[block] = [write];
  }

  /** For a message: what the block may show. */
  expectation(block: number): string {
    return (this.#candidates[block] ?? [])
      .map(
        ({ sequence, isAcknowledged }) => `${sequence === 0 ? 'zeros' : `write ${sequence}`}${isAcknowledged ? '' : ' (not acknowledged)'}`,
      )
      .join(' or ');
  }

  /**
   * The image of a moment between this call and the call of `done`: a split is under way. All that was acknowledged by
   * now is in it, for good; what is issued until then may be.
   */
  image(): { readonly history: WriteHistory; readonly done: () => void } {
    const history = this.#copy();
    for (const write of this.#unflushed) history.#promise(write);
    this.#recorders.add(history);
    return { history, done: () => void this.#recorders.delete(history) };
  }

  /**
   * What another volume may show once this one's content was put over it (a restore), at some moment between this call
   * and the call of `done`. What is written to either until then may be lost or not, and promises nothing.
   */
  over(other: WriteHistory): { readonly history: WriteHistory; readonly done: () => void } {
    const history = this.#copy();
    for (const write of other.#open) history.#add(write);
    const both = [this.#recorders, other.#recorders];
    for (const recorders of both) recorders.add(history);
    const done = (): void => {
      for (const recorders of both) recorders.delete(history);
    };
    return { history, done };
  }

  /** A longer volume: what was added reads as zeros. */
  grown(blocks: number): WriteHistory {
    const history = new WriteHistory(blocks, this.#promised);
    for (let block = 0; block < this.blocks; block += 1) history.#candidates[block] = this.#candidates[block] ?? [NEVER];
    history.#unflushed = this.#unflushed;
    return history;
  }

  #copy(): WriteHistory {
    const history = new WriteHistory(this.blocks, this.#promised);
    history.#candidates = this.#candidates.map((list) => [...list]);
    return history;
  }

  #add(write: Write): void {
    for (let block = write.first; block < write.first + write.count; block += 1) this.#candidates[block]?.push(write);
  }

  #end(write: Write): void {
    if (this.#open.delete(write)) write.endedAt = nextTick();
  }

  #promise(write: Write): void {
    for (let block = write.first; block < write.first + write.count; block += 1) {
      const list = this.#candidates[block];
      if (list === undefined || !list.includes(write)) continue;
      this.#candidates[block] = list.filter((candidate) => candidate === write || candidate.endedAt >= write.issuedAt);
    }
  }
}
