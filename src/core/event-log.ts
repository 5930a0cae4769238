/**
 * The event log: a bounded ring of numbered events, with readers that follow it at their own speed.
 *
 * Why a ring with cursors, and no queue for each reader: a slow reader then costs nobody memory. It falls behind, and
 * once the ring has overtaken it, it is told so (`EVENTS_GONE`) instead of missing events in silence.
 *
 * Numbers: `seq` grows by one with each event. The first number is the clock at construction (milliseconds since 1970),
 * so the numbers of a later run lie above those of an earlier one, and resuming across a restart is refused, not wrong.
 *
 * `exists` records (what is there, before the changes) are not events of the ring. All but the last carry `seq` 0; the
 * last carries the number of the last event that the snapshot includes. So "resume after the largest number seen" is
 * right wherever a reader stopped: in the middle of the snapshot that number is 0, which means "from the start".
 */
import { TwinvolError } from './faults.ts';
import type { EventView } from './views.ts';

/** Events kept; an event is about 300 bytes. */
export const EVENTS_KEPT_DEFAULT: number = 10_000;

/** One record of what is there. */
export type ExistsRecord = Pick<EventView, 'object' | 'id' | 'data'>;

export type SubscribeOptions = {
  /** Resume after this number, without `exists` records; absent or 0: from the start, with them. */
  readonly since?: number;
  /** What is there right now; called once, at the same moment at which the reader's cursor is set. */
  readonly exists?: () => readonly ExistsRecord[];
  /** Default true; false: end after what is there now. */
  readonly follow?: boolean;
  /** Ends the reading quietly. */
  readonly signal?: AbortSignal;
};

export class EventLog {
  readonly #ring: EventView[] = [];
  readonly #nowMs: () => number;
  readonly #kept: number;
  readonly #firstSeq: number;
  readonly #wakers = new Set<() => void>();
  #nextSeq: number;
  #closed = false;

  constructor(nowMs: () => number, kept: number = EVENTS_KEPT_DEFAULT) {
    if (!Number.isSafeInteger(kept) || kept < 1) throw new Error(`an event log keeps at least one event, not ${kept}`);
    this.#nowMs = nowMs;
    this.#kept = kept;
    this.#firstSeq = Math.max(1, Math.floor(nowMs()));
    this.#nextSeq = this.#firstSeq;
  }

  /** Number of the newest event; below `firstSeq` while there is none. */
  get lastSeq(): number {
    return this.#nextSeq - 1;
  }

  /** Readers that follow right now. */
  get readers(): number {
    return this.#wakers.size;
  }

  append(
    kind: Exclude<EventView['kind'], 'exists'>,
    object: EventView['object'],
    id: string | number,
    data: EventView['data'] = {},
  ): EventView {
    const event: EventView = { seq: this.#nextSeq, atMs: this.#nowMs(), kind, object, id: String(id), data };
    this.#ring[(event.seq - this.#firstSeq) % this.#kept] = event;
    this.#nextSeq += 1;
    for (const wake of this.#wakers) wake();
    return event;
  }

  /** Events after `seq`, oldest first; `gone` when some of them are no longer kept, or `seq` is of another run. */
  since(seq: number): EventView[] | 'gone' {
    if (!this.#holdsAfter(seq)) return 'gone';
    const events: EventView[] = [];
    for (let next = seq + 1; next < this.#nextSeq; next += 1) events.push(this.#at(next));
    return events;
  }

  /**
   * Reads from a point on. The cursor is set by this call, not by the first `next()`: what is appended in between is seen.
   * @throws TwinvolError `EVENTS_GONE` (from this call, or from the iteration when the reader was overtaken)
   */
  subscribe(options: SubscribeOptions = {}): AsyncIterable<EventView> {
    const since = options.since ?? 0;
    if (since !== 0) {
      if (!this.#holdsAfter(since)) throw this.#gone(since);
      return this.#read([], since, this.lastSeq, options);
    }
    const cursor = this.lastSeq;
    const atMs = this.#nowMs();
    const records = options.exists?.() ?? [];
    const snapshot = records.map((record, index): EventView => {
      return {
        seq: index === records.length - 1 ? cursor : 0,
        atMs,
        kind: 'exists',
        object: record.object,
        id: record.id,
        data: record.data,
      };
    });
    return this.#read(snapshot, cursor, cursor, options);
  }

  /** Ends every reading, after what was appended before. */
  close(): void {
    this.#closed = true;
    for (const wake of this.#wakers) wake();
  }

  async *#read(
    snapshot: readonly EventView[],
    cursorAtStart: number,
    endSeq: number,
    options: SubscribeOptions,
  ): AsyncGenerator<EventView, void, undefined> {
    const { follow = true, signal } = options;
    let cursor = cursorAtStart;
    for (const event of snapshot) {
      if (signal?.aborted === true) return;
      yield event;
    }
    while (signal?.aborted !== true) {
      if (cursor < (follow ? this.lastSeq : endSeq)) {
        if (!this.#holdsAfter(cursor)) throw this.#gone(cursor);
        cursor += 1;
        yield this.#at(cursor);
      } else if (!follow || this.#closed) {
        return;
      } else {
        await this.#appended(signal);
      }
    }
  }

  #appended(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#wakers.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }

  #holdsAfter(seq: number): boolean {
    const oldestKept = Math.max(this.#firstSeq, this.#nextSeq - this.#kept);
    return Number.isSafeInteger(seq) && seq >= oldestKept - 1 && seq < this.#nextSeq;
  }

  #at(seq: number): EventView {
    const event = this.#ring[(seq - this.#firstSeq) % this.#kept];
    if (event === undefined || event.seq !== seq) throw new Error(`event ${seq} is not where the ring should have it`);
    return event;
  }

  #gone(seq: number): TwinvolError {
    return new TwinvolError(
      'EVENTS_GONE',
      `the events after number ${seq} are not kept (any more), or belong to an earlier run of the engine`,
      {
        details: { since: seq, oldestKept: Math.max(this.#firstSeq, this.#nextSeq - this.#kept), last: this.lastSeq },
      },
    );
  }
}
