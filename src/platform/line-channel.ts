/**
 * A connection that carries lines of text in both directions, with limits on what either side may make this one keep.
 *
 * A peer that sends a line that is too long or not text, or that does not read what it is sent, loses its connection.
 * `closed` is told once, with the reason, whoever ended it; afterwards no line comes and nothing is sent.
 */
import type { Socket } from 'node:net';

/** Cuts bytes into lines; see the line decoder of the wire layer. */
export interface LineSplitter {
  push(chunk: Uint8Array): string[];
  readonly fault: string | null;
}

export type LineHandlers = {
  line(line: string): void;
  closed(reason: string): void;
};

const LAST_WORDS_MS_MAX = 1000;

export class LineChannel {
  readonly #socket: Socket;
  readonly #splitter: LineSplitter;
  readonly #handlers: LineHandlers;
  readonly #unsentBytesMax: number;
  #isClosed = false;

  /** `unsentBytesMax`: how much may wait for a peer that does not read. */
  constructor(socket: Socket, splitter: LineSplitter, unsentBytesMax: number, handlers: LineHandlers) {
    this.#socket = socket;
    this.#splitter = splitter;
    this.#unsentBytesMax = unsentBytesMax;
    this.#handlers = handlers;
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('error', (error) => this.close(error.message));
    socket.on('end', () => this.close('the other side ended the connection'));
    socket.on('close', () => this.close('the connection was cut'));
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends a text that ends with a newline. False: the connection is closed, now or since before. */
  send(text: string): boolean {
    if (this.#isClosed) return false;
    this.#socket.write(text);
    if (this.#socket.writableLength > this.#unsentBytesMax) this.close('the other side does not read');
    return !this.#isClosed;
  }

  /** Ends the connection; what was sent before still goes out if the peer takes it soon. */
  close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.end();
    // A peer that does not take the rest, or keeps its end open, gets no more than this.
    this.#socket.setTimeout(LAST_WORDS_MS_MAX, () => this.#socket.destroy());
    this.#handlers.closed(reason);
  }

  #take(chunk: Uint8Array): void {
    for (const line of this.#splitter.push(chunk)) {
      if (this.#isClosed) return;
      this.#handlers.line(line);
    }
    if (this.#splitter.fault !== null) this.close(`the other side sent no text of lines (${this.#splitter.fault})`);
  }
}
