/**
 * One connection in its transmission phase: slots for the calls in flight, the queue to the server, the receiver.
 *
 * A cookie is the slot's index with a count that grows at every use, so that a stray reply to an earlier call of the
 * slot is noticed. Invariants: at most `depth` calls in flight; a call leaves its slot when its reply is complete or the
 * connection is lost, and only then can the slot be used again.
 */
import * as nbd from '../wire/nbd-constants.ts';
import { writeRequest } from '../wire/nbd-client-transmission.ts';
import type { Call } from './call.ts';
import type { Dialled } from './dial.ts';
import type { Session } from './negotiation.ts';
import { NbdError } from './nbd-error.ts';
import { type ReceiverOwner, ReplyReceiver } from './reply-receiver.ts';
import { SendQueue } from './send-queue.ts';

export type ConnectionOwner = {
  /** A call's reply is complete; its slot is free again. The owner ends the call, or sends it once more. */
  onReply(connection: Connection, call: Call): void;
  /** It is over. `calls` were in flight. Called once, and not after `close` or `destroy`. */
  onLost(connection: Connection, error: NbdError, calls: readonly Call[]): void;
};

/** How long a server may take to close after we said that we go. */
const DISCONNECT_MS = 5000;

export class Connection implements ReceiverOwner {
  readonly session: Session;
  /** Takes no new calls: the server said that it is stopping, or we go. */
  isDraining = false;
  readonly #dialled: Dialled<Session>;
  readonly #owner: ConnectionOwner;
  readonly #receiver: ReplyReceiver;
  readonly #queue: SendQueue;
  readonly #slots: Array<Call | null>;
  readonly #counts: Int32Array;
  readonly #free: number[] = [];
  #isOver = false;
  #onClosed: (() => void) | null = null;

  constructor(dialled: Dialled<Session>, depth: number, owner: ConnectionOwner) {
    this.session = dialled.result;
    this.#dialled = dialled;
    this.#owner = owner;
    this.#receiver = new ReplyReceiver(this.session.mode, this);
    this.#queue = new SendQueue(dialled.stream);
    this.#slots = Array.from({ length: depth }, () => null);
    this.#counts = new Int32Array(depth);
    for (let slot = depth - 1; slot >= 0; slot -= 1) this.#free.push(slot);
  }

  /** Separate from the constructor because bytes may be there already. */
  start(): void {
    this.#dialled.attach({
      nextBuffer: () => this.#receiver.nextBuffer(),
      onBytes: (bytes, length) => {
        if (!this.#isOver) this.#receiver.receive(bytes, length);
      },
      onEnd: (error) => {
        if (this.#onClosed !== null) this.#onClosed();
        else
          this.lose(
            new NbdError(
              'NBD_DISCONNECTED',
              error === null ? 'the server closed the connection' : error.message,
              error === null ? {} : { cause: error },
            ),
          );
      },
    });
  }

  get inFlight(): number {
    return this.#slots.length - this.#free.length;
  }

  get hasRoom(): boolean {
    return this.#free.length > 0 && !this.isDraining && !this.#isOver;
  }

  /** Sends a call; there must be room. */
  submit(call: Call): void {
    const slot = this.#free.pop();
    if (slot === undefined || this.#isOver) throw new Error('no slot for the call');
    const count = ((this.#counts[slot] ?? 0) + 1) | 0;
    this.#counts[slot] = count;
    this.#slots[slot] = call;
    call.attempts += 1;
    call.session = this.session;
    this.#write(call.type, call.flags, count, slot, call.offset, call.length);
    if (call.data !== null) this.#queue.push(call.data);
  }

  callsInFlight(): readonly Call[] {
    return this.#slots.filter((call) => call !== null);
  }

  /** Says goodbye (soft disconnect) and waits until the server has closed. There must be nothing in flight. */
  close(): Promise<void> {
    if (this.#isOver) return Promise.resolve();
    this.isDraining = true;
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.destroy();
        resolve();
      };
      const timer = setTimeout(finish, DISCONNECT_MS);
      this.#onClosed = finish;
      this.#write(nbd.NBD_CMD_DISC, 0, 0, 0, 0, 0);
      this.#queue.flush();
      this.#dialled.stream.end();
    });
  }

  /** Ends it at once, without a word to the owner. @returns the calls that were in flight */
  destroy(): readonly Call[] {
    const calls = this.callsInFlight();
    this.#isOver = true;
    this.#slots.fill(null);
    this.#dialled.stream.destroy();
    return calls;
  }

  /** Ends it at once, and its calls with the error where the owner wants it so. */
  lose(error: NbdError): void {
    if (this.#isOver) return;
    const calls = this.destroy();
    this.#owner.onLost(this, error, calls);
  }

  // What the receiver asks and tells.

  callOf(cookieHigh: number, cookieLow: number): Call | null {
    return this.#counts[cookieLow] === cookieHigh ? (this.#slots[cookieLow] ?? null) : null;
  }

  onDone(_cookieHigh: number, cookieLow: number): void {
    const call = this.#slots[cookieLow];
    if (call === null || call === undefined) throw new Error('a reply to an empty slot');
    this.#slots[cookieLow] = null;
    this.#free.push(cookieLow);
    this.#owner.onReply(this, call);
  }

  onBroken(why: string): void {
    this.lose(new NbdError('NBD_PROTOCOL', `the server broke the protocol: ${why}`));
  }

  #write(type: number, flags: number, cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    const queue = this.#queue;
    queue.reserve(nbd.NBD_EXTENDED_REQUEST_BYTES);
    queue.advance(writeRequest(queue.buffer, queue.position, this.session.mode, type, flags, cookieHigh, cookieLow, offset, length));
  }
}
