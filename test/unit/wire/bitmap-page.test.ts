/** Bitmap pages: what was written comes back, and what was damaged is never taken for good. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeHeader,
  decodePage,
  encodeHeader,
  encodePage,
  PAGE_BITS,
  PAGE_BYTES,
  PAGE_WORDS,
  pageOfBit,
  pageOffset,
  pagesOf,
} from '../../../src/wire/bitmap-page.ts';

const filled = (words: number): Int32Array => Int32Array.from({ length: words }, (_, index) => Math.imul(index + 1, 0x9e3779b1));

describe('a page of a bitmap', () => {
  it('lies behind the header sector, and holds 4,000 regions', () => {
    expect(PAGE_BITS).toBe(4000);
    expect([pageOffset(0), pageOffset(1)]).toEqual([PAGE_BYTES, 2 * PAGE_BYTES]);
    expect([pagesOf(1), pagesOf(4000), pagesOf(4001), pagesOf(2 ** 26)]).toEqual([1, 1, 2, 16_778]);
    expect([pageOfBit(0), pageOfBit(3999), pageOfBit(4000)]).toEqual([0, 0, 1]);
  });

  it('comes back as it was, at any position, and touches no other page', () => {
    const words = filled(PAGE_WORDS * 3);
    const bytes = Buffer.alloc(PAGE_BYTES * 3);
    for (const page of [0, 1, 2]) encodePage(words, page, bytes, page * PAGE_BYTES);
    const read = new Int32Array(PAGE_WORDS * 3);
    expect(decodePage(bytes, PAGE_BYTES, 1, read)).toBe(true);
    expect(read.subarray(PAGE_WORDS, PAGE_WORDS * 2)).toEqual(words.subarray(PAGE_WORDS, PAGE_WORDS * 2));
    expect(read.subarray(0, PAGE_WORDS).every((word) => word === 0)).toBe(true);
    expect(read.subarray(PAGE_WORDS * 2).every((word) => word === 0)).toBe(true);
  });

  it('writes zeros behind the end of the bitmap, and reads no further than it', () => {
    const bytes = Buffer.alloc(PAGE_BYTES, 0xff);
    encodePage(filled(3), 0, bytes, 0);
    const read = new Int32Array(2);
    expect(decodePage(bytes, 0, 0, read)).toBe(true);
    expect(read).toEqual(filled(3).subarray(0, 2));
    expect(bytes.subarray(8 + 12, 508).every((byte) => byte === 0)).toBe(true);
  });

  it('is refused when any byte of it changed, when it is cut, and when it is another page; the words stay as they were', () => {
    const bytes = Buffer.alloc(PAGE_BYTES);
    encodePage(filled(PAGE_WORDS), 0, bytes, 0);
    fc.assert(
      fc.property(fc.nat(PAGE_BYTES - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = Buffer.from(bytes);
        damaged[at] = (damaged[at] as number) ^ change;
        const read = new Int32Array(PAGE_WORDS).fill(7);
        return !decodePage(damaged, 0, 0, read) && read.every((word) => word === 7);
      }),
    );
    expect(decodePage(bytes.subarray(0, 511), 0, 0, new Int32Array(PAGE_WORDS))).toBe(false);
    expect(decodePage(bytes, 0, 1, new Int32Array(PAGE_WORDS * 2))).toBe(false);
    expect(decodePage(Buffer.alloc(PAGE_BYTES), 0, 0, new Int32Array(PAGE_WORDS))).toBe(false);
  });
});

describe('the header of a bitmap', () => {
  it('comes back, also where bits and bytes need more than 32 bits', () => {
    const header = { bits: 2 ** 40 + 5, bytesPerBit: 2 ** 33, owner: 4_000_000_000 };
    expect(decodeHeader(encodeHeader(header))).toEqual(header);
  });

  it('is refused when any byte of it changed, or it is cut', () => {
    const bytes = encodeHeader({ bits: 77, bytesPerBit: 65_536, owner: 3 });
    for (let at = 0; at < PAGE_BYTES; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      expect(decodeHeader(damaged), `byte ${at}`).toBeNull();
    }
    expect(decodeHeader(bytes.subarray(0, 100))).toBeNull();
    expect(decodeHeader(Buffer.alloc(0))).toBeNull();
  });
});
