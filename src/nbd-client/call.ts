/**
 * One request on its way: from the queue, through a slot of a connection, to its end. It outlives the connection it was
 * sent on, so that a reconnection can send it again.
 *
 * Invariants: it ends once (later endings are ignored); after its end nothing is read into its target any more.
 */
import * as nbd from '../wire/nbd-constants.ts';
import type { Session } from './negotiation.ts';
import { NbdError, errorOfReply } from './nbd-error.ts';

/** An extent as the server reported it, for one metadata context. */
export type Extent = { readonly offset: number; readonly length: number; readonly flags: number };

const NAMES: readonly string[] = ['read', 'write', 'disconnect', 'flush', 'trim', 'cache', 'write-zeroes', 'resize'];
const nameOf = (type: number): string => (type === nbd.NBD_CMD_BLOCK_STATUS ? 'block-status' : (NAMES[type] ?? `command ${type}`));

export class Call {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** The payload of a WRITE. */
  readonly data: Buffer | null;
  /** Where a READ goes; null when nobody wants the data any more. */
  target: Buffer | null;
  /** Extents of a BLOCK_STATUS by context id. */
  extents: Map<number, Extent[]> | null = null;
  /** Bytes of a READ that arrived. */
  receivedBytes = 0;
  /** How often it was sent. */
  attempts = 0;
  /** When it must be done, on the monotonic clock; Infinity without a time limit. */
  deadlineMs: number = Number.POSITIVE_INFINITY;
  /** Of the connection that it was sent on last. */
  session: Session | null = null;
  /** Of a FLUSH: how many writes were complete when it was asked for. */
  coveredWrites = 0;
  isOver = false;
  #signal: AbortSignal | null = null;
  #errno = 0;
  #serverMessage = '';
  readonly #onEnd: (error: NbdError | null) => void;

  constructor(
    type: number,
    flags: number,
    offset: number,
    length: number,
    data: Buffer | null,
    target: Buffer | null,
    onEnd: (error: NbdError | null) => void,
  ) {
    this.type = type;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.data = data;
    this.target = target;
    this.#onEnd = onEnd;
  }

  get name(): string {
    return nameOf(this.type);
  }

  /** The caller may end it with this signal. */
  watch(signal: AbortSignal): void {
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
    if (signal.aborted) this.#onAbort();
  }

  get isAbortable(): boolean {
    return this.#signal !== null;
  }

  readonly #onAbort = (): void => {
    this.end(new NbdError('NBD_ABORTED', `${this.name} was given up by the caller`, { cause: this.#signal?.reason }));
  };

  /** Forgets what an earlier attempt brought. */
  restart(): void {
    this.receivedBytes = 0;
    this.extents = null;
    this.#errno = 0;
    this.#serverMessage = '';
  }

  /** An error of the server; the first one counts. */
  fail(errno: number, serverMessage: string): void {
    if (this.#errno !== 0) return;
    this.#errno = errno === 0 ? nbd.NBD_EINVAL : errno;
    this.#serverMessage = serverMessage;
  }

  get errno(): number {
    return this.#errno;
  }

  /** The reply is complete. */
  finish(): void {
    if (this.#errno === 0) this.end(null);
    else this.end(errorOfReply(this.#errno, this.#serverMessage, `${this.name} of ${this.length} bytes at ${this.offset}`));
  }

  end(error: NbdError | null): void {
    if (this.isOver) return;
    this.isOver = true;
    this.target = null;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#onEnd(error);
  }
}
