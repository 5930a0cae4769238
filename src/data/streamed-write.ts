/**
 * A WRITE whose payload is long and not there in full: carried out in pieces as it comes in, from where the socket's read put them.
 * Announcing 32 MiB costs nothing, and nothing is copied to wait for its rest: with 64 KiB and 1 MiB blocks a fifth of the time went
 * into that. Each piece is a write of its own to gate, locks and legs; the host hears of all of them at the end, or of the
 * first error. A client that vanishes in between has written a part, as on any disk.
 *
 * A volume with a second leg that follows it waits for up to 1 MiB all the same: a split falls between two pieces, and a write of that
 * length is on its image as a whole or not at all. (Unless its payload takes longer to come than a copy that begins behind its header.)
 *
 * A request that is refused from the start has its payload read and dropped.
 */
import type { NbdErrno } from '../core/faults.ts';
import type { NbdRequest } from '../wire/nbd-transmission.ts';

/** The longest piece, and the longest payload that is written at once where it is there in full. */
export const WRITE_PIECE_BYTES: number = 1024 * 1024;
/** A payload of that length is not waited for; its pieces have that length at least, but for the last. */
export const STREAM_BYTES_MIN: number = 32 * 1024;
const BLOCK_BYTES = 4096;

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
    return this.isVain ? 1 : Math.min(STREAM_BYTES_MIN, this.leftBytes);
  }

  /** How much of `bytes` that are there is written now: whole blocks, and what is left at the end. */
  pieceOf(bytes: number): number {
    if (this.isVain || bytes >= this.leftBytes) return Math.min(bytes, this.leftBytes);
    const past = (this.request.offset + this.doneBytes + bytes) % BLOCK_BYTES;
    return Math.min(WRITE_PIECE_BYTES, bytes - past);
  }
}
