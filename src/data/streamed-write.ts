/**
 * A long WRITE, carried out in pieces of 1 MiB as its payload comes in, so that announcing 32 MiB costs nothing and
 * sending them costs one piece. Each piece is a write of its own to gate, locks and legs; the host hears of all of them
 * at the end, or of the first error. A client that vanishes in between has written a part, as on any disk.
 *
 * A request that is refused from the start has its payload read and dropped.
 */
import type { NbdErrno } from '../core/faults.ts';
import type { NbdRequest } from '../wire/nbd-transmission.ts';

/** Longer payloads are written in pieces of this length. */
export const WRITE_PIECE_BYTES: number = 1024 * 1024;

export class StreamedWrite {
  /** The connection's own copy. */
  readonly request: NbdRequest;
  /** 0, or why nothing is written. */
  refused: 0 | NbdErrno;
  /** The system's code of the first piece that failed; nothing is written behind it. */
  failure = '';
  doneBytes = 0;
  /** Pieces that the slow worker has. */
  pieces = 0;

  constructor(request: NbdRequest, refused: 0 | NbdErrno) {
    this.request = request;
    this.refused = refused;
  }

  get leftBytes(): number {
    return this.request.payloadBytes - this.doneBytes;
  }

  /** The payload is only read and dropped. */
  get isVain(): boolean {
    return this.refused !== 0 || this.failure !== '';
  }

  /** Payload bytes that have to be together before the next step. */
  get neededBytes(): number {
    return this.isVain ? 1 : Math.min(WRITE_PIECE_BYTES, this.leftBytes);
  }
}
