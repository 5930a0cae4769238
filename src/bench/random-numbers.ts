/**
 * Numbers that look random and come again from the same seed: sfc32 of Chris Doty-Humphrey's PractRand. `Math.random`
 * has no seed, and a run that found something must be repeatable.
 */

const WARM_UP_ROUNDS = 16;

export class RandomNumbers {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** Different streams of one seed have nothing to do with each other. */
  constructor(seed: number, stream: number = 0) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 2 ** 32) | 0;
    this.#c = stream | 0;
    for (let round = 0; round < WARM_UP_ROUNDS; round += 1) this.next32();
  }

  /** 0 to 2^32 - 1. */
  next32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** 0 to `limit` - 1; `limit` is a whole number up to 2^53. */
  below(limit: number): number {
    const high = this.next32() >>> 5;
    const low = this.next32() >>> 6;
    return Math.floor(((high * 2 ** 26 + low) / 2 ** 53) * limit);
  }

  fill(bytes: Buffer): void {
    let at = 0;
    for (; at + 4 <= bytes.length; at += 4) bytes.writeUInt32LE(this.next32(), at);
    for (; at < bytes.length; at += 1) bytes[at] = this.next32();
  }
}
