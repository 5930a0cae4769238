/**
 * Range locks: overlapping host writes reach both legs in one order, and a copy step and a host write never
 * interleave (specification 4).
 *
 * A volume is cut into granules of 1 MiB; a granule's lock is one of 4,096 words, found by a hash of volume and
 * granule. Two granules may share a word: then they exclude each other needlessly, never wrongly. Words are taken in
 * ascending order, each once, so two holders never wait for each other in a circle. A word holds its owner's slot
 * number, so that the locks of a worker that died can be freed: `owner << 1 | somebody waits`.
 */
import { LOCK_GRANULE_BYTES, NBD_PAYLOAD_BYTES_MAX, REGION_BYTES_MAX } from '../core/units.ts';
import { LOCK_COUNT, LOCK_FIRST } from './shared-memory.ts';

const WAIT_MS = 5;
const SPINS = 200;
/** Granules of one holder: the largest request, unaligned, or the largest dirty region. */
const GRANULES_MAX: number = Math.max(NBD_PAYLOAD_BYTES_MAX, REGION_BYTES_MAX) / LOCK_GRANULE_BYTES + 1;

const wordOf = (volume: number, granule: number): number => {
  let hash = Math.imul(volume, 0x9e3779b1) ^ Math.imul(granule, 0x85ebca6b);
  hash ^= hash >>> 15;
  return LOCK_FIRST + (hash & (LOCK_COUNT - 1));
};

/** What a writer needs of range locks. */
export interface RangeExclusion {
  /** Waits until nobody else holds any part of [offset, offset + length) of the volume. One range at a time. */
  acquire(volume: number, offset: number, length: number): void;
  release(): void;
}

export class RangeLocks implements RangeExclusion {
  readonly #words: Int32Array;
  readonly #mine: number;
  readonly #held = new Int32Array(GRANULES_MAX);
  #count = 0;

  constructor(device: Int32Array, slot: number) {
    this.#words = device;
    this.#mine = (slot + 1) << 1;
  }

  /** Takes the locks of [offset, offset + length) of a volume. A holder holds one range at a time. */
  acquire(volume: number, offset: number, length: number): void {
    const first = Math.floor(offset / LOCK_GRANULE_BYTES);
    const last = Math.floor((offset + length - 1) / LOCK_GRANULE_BYTES);
    if (first === last) {
      this.#held[0] = wordOf(volume, first);
      this.#count = 1;
    } else {
      this.#sortWords(volume, first, last);
    }
    for (let index = 0; index < this.#count; index += 1) this.#take(this.#held[index] as number);
  }

  release(): void {
    for (let index = this.#count - 1; index >= 0; index -= 1) {
      const word = this.#held[index] as number;
      if ((Atomics.exchange(this.#words, word, 0) & 1) !== 0) Atomics.notify(this.#words, word);
    }
    this.#count = 0;
  }

  #sortWords(volume: number, first: number, last: number): void {
    const words = this.#held;
    let count = 0;
    for (let granule = first; granule <= last; granule += 1) {
      const word = wordOf(volume, granule);
      let at = count;
      while (at > 0 && (words[at - 1] as number) > word) at -= 1;
      if (at > 0 && words[at - 1] === word) continue;
      words.copyWithin(at + 1, at, count);
      words[at] = word;
      count += 1;
    }
    this.#count = count;
  }

  #take(word: number): void {
    const words = this.#words;
    for (let spin = 0; spin < SPINS; spin += 1) {
      if (Atomics.compareExchange(words, word, 0, this.#mine) === 0) return;
    }
    for (;;) {
      const value = Atomics.load(words, word);
      if (value === 0) {
        // Others may be waiting too: keep them woken.
        if (Atomics.compareExchange(words, word, 0, this.#mine | 1) === 0) return;
        continue;
      }
      if ((value & 1) === 0 && Atomics.compareExchange(words, word, value, value | 1) !== value) continue;
      Atomics.wait(words, word, value | 1, WAIT_MS);
    }
  }

  /** Frees every lock of a worker that died. */
  static forget(device: Int32Array, slot: number): void {
    const owner = slot + 1;
    for (let word = LOCK_FIRST; word < LOCK_FIRST + LOCK_COUNT; word += 1) {
      const value = Atomics.load(device, word);
      if (value >> 1 !== owner) continue;
      Atomics.store(device, word, 0);
      Atomics.notify(device, word);
    }
  }
}
