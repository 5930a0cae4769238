/**
 * The requests of one connection of a stream, one after another, always the same ones for the same seed. Nothing is
 * allocated for a request: `next` leaves it in `isWrite` and `block`.
 *
 * A sequential stream starts at a place of its own on each connection, so that connections do not read the same blocks
 * out of a cache, and starts over at the end of the range. In a mix each request is a read or a write by chance.
 */
import { RandomNumbers } from './random-numbers.ts';
import type { Stream } from './workload.ts';

export class RequestSource {
  isWrite = false;
  /** Number of the block in the range. */
  block = 0;
  readonly blocks: number;
  readonly #isRandom: boolean;
  readonly #readPercent: number;
  readonly #numbers: RandomNumbers;
  #position: number;

  /** @param index number of the connection in the stream; @param key tells the streams of a workload apart */
  constructor(stream: Stream, length: number, seed: number, index: number, key: number) {
    this.blocks = Math.floor(length / stream.blockBytes);
    this.#isRandom = stream.pattern === 'random';
    this.#readPercent = stream.readPercent;
    this.#numbers = new RandomNumbers(seed, key * 65_536 + index);
    this.#position = Math.floor((this.blocks / stream.connections) * index);
  }

  next(): void {
    this.isWrite = this.#readPercent < 100 && (this.#readPercent === 0 || this.#numbers.below(100) >= this.#readPercent);
    if (this.#isRandom) {
      this.block = this.#numbers.below(this.blocks);
      return;
    }
    this.block = this.#position;
    this.#position = this.#position + 1 === this.blocks ? 0 : this.#position + 1;
  }
}
