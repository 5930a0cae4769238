/**
 * What a connection has to send, gathered and written once for everything that was asked in one turn of the event loop.
 *
 * Headers and small payloads are copied one behind the other into a batch buffer; large payloads are sent from where
 * they are. The flush is scheduled with `process.nextTick`, which runs after the promise reactions of this turn: a loop
 * of "await read, read again" over many requests ends up in one system call.
 *
 * Invariant: a batch buffer is used again only when everything that was written from it has left.
 */
import type { ClientStream } from '../platform/client-stream.ts';

const BATCH_BYTES = 128 * 1024;
/** Up to this size copying a payload costs less than one more piece for the system call. */
const COPY_BYTES_MAX = 16 * 1024;
const BATCHES_KEPT = 4;

class Batch {
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(BATCH_BYTES);
  used = 0;
  /** From here on it has not been handed to the stream yet. */
  sealed = 0;
  /** Flushes that have not left yet. */
  pending = 0;
  readonly onWritten: () => void;

  constructor(onIdle: (batch: Batch) => void) {
    this.onWritten = () => {
      this.pending -= 1;
      if (this.pending === 0) onIdle(this);
    };
  }
}

export class SendQueue {
  readonly #stream: ClientStream;
  readonly #spare: Batch[] = [];
  #batch: Batch;
  /** Whole pieces that go out before what the batch holds. */
  #pieces: Buffer[] = [];
  #isScheduled = false;

  constructor(stream: ClientStream) {
    this.#stream = stream;
    this.#batch = new Batch(this.#onIdle);
  }

  /** Room for a header: write it at `position` of `buffer`, then `advance`. */
  reserve(bytes: number): void {
    if (this.#batch.used + bytes > BATCH_BYTES) this.#nextBatch();
  }

  get buffer(): Buffer {
    return this.#batch.bytes;
  }

  get position(): number {
    return this.#batch.used;
  }

  advance(position: number): void {
    this.#batch.used = position;
    this.#schedule();
  }

  /** A payload; unless it is small it must stay as it is until it has left. */
  push(payload: Buffer): void {
    if (payload.length <= COPY_BYTES_MAX) {
      this.reserve(payload.length);
      this.#batch.bytes.set(payload, this.#batch.used);
      this.advance(this.#batch.used + payload.length);
      return;
    }
    this.#seal();
    this.#pieces.push(payload);
    this.#schedule();
  }

  /** Sends now what was gathered. */
  flush(): void {
    this.#isScheduled = false;
    const batch = this.#batch;
    if (this.#pieces.length === 0) {
      if (batch.used === batch.sealed) return;
      const bytes = batch.bytes.subarray(batch.sealed, batch.used);
      batch.sealed = batch.used;
      batch.pending += 1;
      this.#stream.write(bytes, batch.onWritten);
      return;
    }
    this.#seal();
    const pieces = this.#pieces;
    this.#pieces = [];
    batch.pending += 1;
    this.#stream.writeTogether(pieces, batch.onWritten);
  }

  readonly #onTick = (): void => {
    if (this.#isScheduled) this.flush();
  };

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    process.nextTick(this.#onTick);
  }

  /** Moves what the batch holds behind the pieces. */
  #seal(): void {
    const batch = this.#batch;
    if (batch.used > batch.sealed) this.#pieces.push(batch.bytes.subarray(batch.sealed, batch.used));
    batch.sealed = batch.used;
  }

  #nextBatch(): void {
    this.flush();
    this.#batch = this.#spare.pop() ?? new Batch(this.#onIdle);
  }

  readonly #onIdle = (batch: Batch): void => {
    if (batch === this.#batch) {
      if (batch.used !== batch.sealed) return;
    } else if (this.#spare.length < BATCHES_KEPT) {
      this.#spare.push(batch);
    }
    batch.used = 0;
    batch.sealed = 0;
  };
}
