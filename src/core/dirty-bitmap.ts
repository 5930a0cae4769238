/**
 * Dirty-region bitmaps over shared memory: one bit for each dirty region, 32 to a word.
 *
 * Several threads set and clear bits at once, so every change is an atomic operation on a word; a bit that is set
 * already is found by a plain load, which is the common case and costs nanoseconds. Functions, not a class: the hot
 * path holds the word array itself.
 *
 * Invariant: the bits past the last region of the last word are always clear, so whole words can be counted.
 */

/** Words that `regions` bits take. */
export const bitmapWords = (regions: number): number => Math.ceil(regions / 32);

/** The bits `from` (included) to `to` (excluded) of one word, as a mask; `to` is at most 32. */
const maskOf = (from: number, to: number): number => {
  const high = to >= 32 ? -1 : (1 << to) - 1;
  return high & ~((1 << from) - 1);
};

/** Is any bit of [first, end) set? */
export const anySet = (words: Int32Array, first: number, end: number): boolean => {
  const lastWord = (end - 1) >>> 5;
  for (let word = first >>> 5; word <= lastWord; word += 1) {
    const value = Atomics.load(words, word);
    if (value === 0) continue;
    if ((value & maskOf(word === first >>> 5 ? first & 31 : 0, word === lastWord ? ((end - 1) & 31) + 1 : 32)) !== 0) return true;
  }
  return false;
};

/** Are all bits of [first, end) set? A plain scan; false negatives are harmless to its callers. */
export const allSet = (words: Int32Array, first: number, end: number): boolean => {
  const lastWord = (end - 1) >>> 5;
  for (let word = first >>> 5; word <= lastWord; word += 1) {
    const mask = maskOf(word === first >>> 5 ? first & 31 : 0, word === lastWord ? ((end - 1) & 31) + 1 : 32);
    if (((words[word] as number) & mask) !== mask) return false;
  }
  return true;
};

export const setRange = (words: Int32Array, first: number, end: number): void => {
  const lastWord = (end - 1) >>> 5;
  for (let word = first >>> 5; word <= lastWord; word += 1) {
    const mask = maskOf(word === first >>> 5 ? first & 31 : 0, word === lastWord ? ((end - 1) & 31) + 1 : 32);
    if (((words[word] as number) & mask) !== mask) Atomics.or(words, word, mask);
  }
};

export const clearRange = (words: Int32Array, first: number, end: number): void => {
  const lastWord = (end - 1) >>> 5;
  for (let word = first >>> 5; word <= lastWord; word += 1) {
    const mask = maskOf(word === first >>> 5 ? first & 31 : 0, word === lastWord ? ((end - 1) & 31) + 1 : 32);
    if (((words[word] as number) & mask) !== 0) Atomics.and(words, word, ~mask);
  }
};

/** The first set bit at or after `from`, or `regions` when there is none. */
export const nextSet = (words: Int32Array, from: number, regions: number): number => {
  if (from >= regions) return regions;
  let word = from >>> 5;
  let value = (words[word] as number) & maskOf(from & 31, 32);
  const end = bitmapWords(regions);
  while (value === 0) {
    word += 1;
    if (word >= end) return regions;
    value = words[word] as number;
  }
  return Math.min(regions, word * 32 + (31 - Math.clz32(value & -value)));
};

/** The first clear bit at or after `from`, or `end`. */
export const nextClear = (words: Int32Array, from: number, end: number): number => {
  if (from >= end) return end;
  let word = from >>> 5;
  let value = ~(words[word] as number) & maskOf(from & 31, 32);
  const lastWord = (end - 1) >>> 5;
  while (value === 0) {
    word += 1;
    if (word > lastWord) return end;
    value = ~(words[word] as number);
  }
  return Math.min(end, word * 32 + (31 - Math.clz32(value & -value)));
};

const ones = (value: number): number => {
  let bits = value - ((value >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
};

export const countSet = (words: Int32Array, wordCount: number = words.length): number => {
  let count = 0;
  for (let word = 0; word < wordCount; word += 1) {
    const value = words[word] as number;
    if (value !== 0) count += value === -1 ? 32 : ones(value);
  }
  return count;
};

/** Bits set in either of two bitmaps of one size. */
export const countUnion = (left: Int32Array, right: Int32Array): number => {
  let count = 0;
  for (let word = 0; word < left.length; word += 1) {
    const value = (left[word] as number) | (right[word] as number);
    if (value !== 0) count += ones(value);
  }
  return count;
};

/** `into |= from`, word by word. */
export const mergeInto = (into: Int32Array, from: Int32Array): void => {
  for (let word = 0; word < into.length; word += 1) {
    const value = from[word] as number;
    if (value !== 0) Atomics.or(into, word, value);
  }
};

/** Sets every region's bit, and none past the last region. */
export const setAll = (words: Int32Array, regions: number): void => {
  words.fill(0);
  const whole = regions >>> 5;
  words.fill(-1, 0, whole);
  if ((regions & 31) !== 0) words[whole] = (1 << (regions & 31)) - 1;
};
