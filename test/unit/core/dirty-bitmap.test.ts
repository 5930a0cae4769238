/** Dirty-region bitmaps at their edges: word borders, the last region, and the largest bitmap of all. */
import { describe, expect, it } from 'vitest';
import {
  allSet,
  anySet,
  bitmapWords,
  clearRange,
  countSet,
  countUnion,
  mergeInto,
  nextClear,
  nextSet,
  setAll,
  setRange,
} from '../../../src/core/dirty-bitmap.ts';

const bitmap = (regions: number): Int32Array => new Int32Array(new SharedArrayBuffer(bitmapWords(regions) * 4));
const bitsOf = (words: Int32Array, regions: number): number[] =>
  Array.from({ length: regions }, (_, bit) => bit).filter((bit) => (((words[bit >>> 5] as number) >>> (bit & 31)) & 1) === 1);

describe('a dirty-region bitmap', () => {
  it('sets and clears every range around the word borders, and nothing beside it', () => {
    const regions = 100;
    for (let first = 0; first < regions; first += 1) {
      for (const end of [first + 1, first + 31, first + 32, first + 33, first + 64, regions]) {
        if (end > regions || end <= first) continue;
        const words = bitmap(regions);
        setRange(words, first, end);
        const wanted = Array.from({ length: end - first }, (_, index) => first + index);
        expect(bitsOf(words, words.length * 32), `set [${first}, ${end})`).toEqual(wanted);
        expect(allSet(words, first, end)).toBe(true);
        expect(countSet(words)).toBe(end - first);
        words.fill(-1);
        clearRange(words, first, end);
        expect(countSet(words), `clear [${first}, ${end})`).toBe(words.length * 32 - (end - first));
        expect(anySet(words, first, end)).toBe(false);
      }
    }
  });

  it('finds the next set and the next clear bit on both sides of a word border', () => {
    const words = bitmap(96);
    for (const bit of [0, 31, 32, 63, 64, 95]) setRange(words, bit, bit + 1);
    expect([0, 1, 31, 32, 33, 64, 65, 95].map((from) => nextSet(words, from, 96))).toEqual([0, 31, 31, 32, 63, 64, 95, 95]);
    expect([0, 31, 32, 63, 95].map((from) => nextClear(words, from, 96))).toEqual([1, 33, 33, 65, 96]);
    expect(nextSet(words, 96, 96)).toBe(96);
    expect(nextClear(words, 96, 96)).toBe(96);
  });

  it('never answers with a bit behind the end that it was given', () => {
    const words = bitmap(64);
    setRange(words, 20, 40);
    expect(nextSet(words, 0, 10)).toBe(10);
    expect(nextClear(words, 20, 30)).toBe(30);
    expect(nextClear(words, 20, 40)).toBe(40);
  });

  it('keeps the bits past the last region clear, so that words can be counted', () => {
    for (const regions of [1, 31, 32, 33, 63, 64, 65, 4000, 4001]) {
      const words = bitmap(regions);
      setAll(words, regions);
      expect(countSet(words), `${regions} regions`).toBe(regions);
      expect(nextClear(words, 0, regions)).toBe(regions);
    }
  });

  it('counts a union without counting a region twice', () => {
    const left = bitmap(80);
    const right = bitmap(80);
    setRange(left, 0, 50);
    setRange(right, 40, 80);
    expect(countUnion(left, right)).toBe(80);
    mergeInto(left, right);
    expect(countSet(left)).toBe(80);
    expect(countSet(right)).toBe(40);
  });

  it('works with the largest bitmap there is: 2^26 regions', () => {
    const regions = 2 ** 26;
    const words = bitmap(regions);
    setRange(words, regions - 1, regions);
    expect(nextSet(words, 0, regions)).toBe(regions - 1);
    setRange(words, 5, regions - 5);
    expect(countSet(words)).toBe(regions - 9);
    expect(nextClear(words, 5, regions)).toBe(regions - 5);
    clearRange(words, 6, regions - 6);
    expect(bitsOf(words.subarray(0, 1), 32)).toEqual([5]);
    expect(countSet(words)).toBe(3);
    setAll(words, regions);
    expect(countSet(words)).toBe(regions);
  });
});
