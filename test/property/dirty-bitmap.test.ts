/** The bitmap against a set of numbers: any sequence of operations gives the same answers. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
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
} from '../../src/core/dirty-bitmap.ts';

const REGIONS_MAX = 300;

class Oracle {
  bits = new Set<number>();

  each(first: number, end: number, visit: (bit: number) => void): void {
    for (let bit = first; bit < end; bit += 1) visit(bit);
  }

  next(from: number, end: number, isSet: boolean): number {
    let bit = from;
    while (bit < end && this.bits.has(bit) !== isSet) bit += 1;
    return Math.min(bit, end);
  }
}

type Step = { readonly kind: number; readonly from: number; readonly length: number };
const steps = fc.array(fc.record({ kind: fc.nat(4), from: fc.nat(REGIONS_MAX - 1), length: fc.integer({ min: 1, max: 100 }) }), {
  maxLength: 60,
});

const same = (actual: unknown, expected: unknown, text: string): void => {
  if (actual !== expected) throw new Error(`${text}: ${String(actual)} instead of ${String(expected)}`);
};

const compare = (words: Int32Array, oracle: Oracle, regions: number, first: number, end: number): void => {
  let any = false;
  let all = true;
  oracle.each(first, end, (bit) => {
    if (oracle.bits.has(bit)) any = true;
    else all = false;
  });
  same(anySet(words, first, end), any, `any of [${first}, ${end})`);
  same(allSet(words, first, end), all, `all of [${first}, ${end})`);
  same(nextSet(words, first, regions), oracle.next(first, regions, true), `next set from ${first}`);
  same(nextClear(words, first, end), oracle.next(first, end, false), `next clear from ${first} to ${end}`);
  same(countSet(words), oracle.bits.size, 'count');
};

describe('a dirty-region bitmap', () => {
  it('is a set of region numbers, whatever is done to it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: REGIONS_MAX }), steps, steps, (regions, left, right) => {
        const run = (list: readonly Step[]): { words: Int32Array; oracle: Oracle } => {
          const words = new Int32Array(new SharedArrayBuffer(bitmapWords(regions) * 4));
          const oracle = new Oracle();
          for (const { kind, from, length } of list) {
            const first = from % regions;
            const end = Math.min(regions, first + length);
            if (kind === 0) {
              clearRange(words, first, end);
              oracle.each(first, end, (bit) => oracle.bits.delete(bit));
            } else if (kind === 4) {
              setAll(words, regions);
              oracle.each(0, regions, (bit) => oracle.bits.add(bit));
            } else {
              setRange(words, first, end);
              oracle.each(first, end, (bit) => oracle.bits.add(bit));
            }
            compare(words, oracle, regions, first, end);
          }
          return { words, oracle };
        };
        const one = run(left);
        const other = run(right);
        const union = new Set([...one.oracle.bits, ...other.oracle.bits]);
        same(countUnion(one.words, other.words), union.size, 'union');
        mergeInto(one.words, other.words);
        same(countSet(one.words), union.size, 'merged');
        for (const bit of union) same(anySet(one.words, bit, bit + 1), true, `merged bit ${bit}`);
      }),
      { numRuns: 300 },
    );
  });
});
