/**
 * Cuts a byte stream into lines of UTF-8 text.
 *
 * Pure. Gives the same lines however the bytes are split, keeps at most one unfinished line of the limit, and copies
 * each byte a bounded number of times. After a line that is too long, or bytes that are not UTF-8, it is broken and gives
 * nothing more: what follows in the stream has no known beginning.
 */
const NEWLINE = 0x0a;
/** A buffer up to this size stays for the next line. */
const HELD_BYTES_KEPT = 64 * 1024;

export type LineFault = 'line-too-long' | 'not-utf8';

export class LineDecoder {
  readonly #text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #lineBytesMax: number;
  #held = new Uint8Array(0);
  #heldBytes = 0;
  #fault: LineFault | null = null;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** Why it is broken; null while it is not. */
  get fault(): LineFault | null {
    return this.#fault;
  }

  /** Another limit from the next chunk on. */
  allow(lineBytesMax: number): void {
    this.#lineBytesMax = lineBytesMax;
  }

  /** The lines that `chunk` completes, without their newline; empty lines are left out. `chunk` may be reused afterwards. */
  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    while (this.#fault === null && start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline === -1 ? chunk.length : newline;
      if (this.#heldBytes + (end - start) > this.#lineBytesMax) {
        this.#break('line-too-long');
        break;
      }
      if (newline === -1) {
        this.#hold(chunk.subarray(start));
        break;
      }
      const line = this.#completeLine(chunk.subarray(start, end));
      if (line.trim() !== '') lines.push(line);
      start = newline + 1;
    }
    return lines;
  }

  #completeLine(rest: Uint8Array): string {
    if (this.#heldBytes === 0) return this.#decode(rest);
    this.#hold(rest);
    const line = this.#decode(this.#held.subarray(0, this.#heldBytes));
    this.#release();
    return line;
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#text.decode(bytes);
    } catch {
      this.#break('not-utf8');
      return '';
    }
  }

  /** Copies into one growing buffer: a held line costs at most twice its length, however small its pieces are. */
  #hold(part: Uint8Array): void {
    const neededBytes = this.#heldBytes + part.length;
    if (neededBytes > this.#held.length) {
      const grown = new Uint8Array(Math.max(neededBytes, Math.min(this.#held.length * 2, this.#lineBytesMax)));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes = neededBytes;
  }

  #release(): void {
    this.#heldBytes = 0;
    if (this.#held.length > HELD_BYTES_KEPT) this.#held = new Uint8Array(0);
  }

  #break(fault: LineFault): void {
    this.#fault = fault;
    this.#heldBytes = 0;
    this.#held = new Uint8Array(0);
  }
}
