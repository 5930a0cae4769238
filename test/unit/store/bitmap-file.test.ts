/** Bitmap files: whatever happened to one, what cannot be trusted is dirty and nothing dirty is lost. */
import fs from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bitmapWords, countSet, setRange } from '../../../src/core/dirty-bitmap.ts';
import { BitmapFile } from '../../../src/store/bitmap-file.ts';
import { PAGE_BITS, PAGE_BYTES, pageOffset } from '../../../src/wire/bitmap-page.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const REGIONS = PAGE_BITS * 2 + 500;
const HEADER = { bits: REGIONS, bytesPerBit: 65_536, owner: 9 };
const empty = (): Int32Array => new Int32Array(new SharedArrayBuffer(bitmapWords(REGIONS) * 4));

/** A file with some regions of each page dirty. */
const make = (path: string): Int32Array => {
  const words = empty();
  for (const first of [0, 3990, 4000, 7999, 8400]) setRange(words, first, first + 20);
  BitmapFile.create(path, HEADER, words).close();
  return words;
};

describe('a bitmap file', () => {
  it('gives back what was written, and says that nothing was wrong', async () => {
    await using temporary = await temporaryDirectory();
    const words = make(temporary.path('a'));
    const read = empty();
    const { file, load } = BitmapFile.open(temporary.path('a'), HEADER, read);
    expect(load).toEqual({ damagedPages: 0, missing: false });
    expect(read).toEqual(words);
    setRange(read, 4100, 4101);
    file.writeBits(read, 4100, 4101);
    file.sync();
    file.close();
    const again = empty();
    BitmapFile.open(temporary.path('a'), HEADER, again).file.close();
    expect(again).toEqual(read);
  });

  it('writes the pages of a range and no others', async () => {
    await using temporary = await temporaryDirectory();
    make(temporary.path('a'));
    const before = fs.readFileSync(temporary.path('a'));
    const words = empty();
    const { file } = BitmapFile.open(temporary.path('a'), HEADER, words);
    words.fill(-1, 0, words.length);
    file.writeBits(words, 4000, 8000);
    file.close();
    const after = fs.readFileSync(temporary.path('a'));
    expect(after.length).toBe(before.length);
    const changed = Array.from({ length: after.length / PAGE_BYTES }, (_, sector) => sector).filter(
      (sector) =>
        before.compare(after, sector * PAGE_BYTES, (sector + 1) * PAGE_BYTES, sector * PAGE_BYTES, (sector + 1) * PAGE_BYTES) !== 0,
    );
    expect(changed).toEqual([2]);
  });

  it('takes the regions of a damaged or missing page as dirty, and the other pages as they are', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('a');
    const words = make(path);
    const intact = fs.readFileSync(path);
    for (const page of [0, 1, 2]) {
      const damaged = Buffer.from(intact);
      damaged.writeUInt8(damaged.readUInt8(pageOffset(page) + 100) ^ 1, pageOffset(page) + 100);
      fs.writeFileSync(path, damaged);
      const read = empty();
      const { file, load } = BitmapFile.open(path, HEADER, read);
      file.close();
      expect(load).toEqual({ damagedPages: 1, missing: false });
      const wanted = words.slice();
      setRange(wanted, page * PAGE_BITS, Math.min(REGIONS, (page + 1) * PAGE_BITS));
      expect([...read], `page ${page}`).toEqual([...wanted]);
    }
    fs.writeFileSync(path, intact.subarray(0, pageOffset(1) + 200));
    const cut = empty();
    const { file, load } = BitmapFile.open(path, HEADER, cut);
    file.close();
    expect(load).toEqual({ damagedPages: 2, missing: false });
    expect(countSet(cut)).toBe(20 + 10 + (REGIONS - PAGE_BITS));
  });

  it('never shows a dirty region as clean, whatever bytes of it are changed', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('a');
    const words = make(path);
    const intact = fs.readFileSync(path);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(intact.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.option(fc.nat(intact.length)),
        (changes, end) => {
          const damaged = Buffer.from(intact.subarray(0, end ?? intact.length));
          for (const [at, byte] of changes) if (at < damaged.length) damaged[at] = byte;
          fs.writeFileSync(path, damaged);
          const read = empty();
          BitmapFile.open(path, HEADER, read).file.close();
          return words.every((word, index) => (word & ~(read[index] as number)) === 0);
        },
      ),
      { numRuns: 200 },
    );
  });

  it.each([
    ['is missing', () => undefined],
    ['is empty', (path: string) => fs.writeFileSync(path, '')],
    ["is somebody else's", (path: string) => fs.writeFileSync(path, Buffer.alloc(4096, 'x'))],
    ['belongs to another pair', (path: string) => BitmapFile.create(path, { ...HEADER, owner: 10 }, empty()).close()],
    ['has another region size', (path: string) => BitmapFile.create(path, { ...HEADER, bytesPerBit: 4096 }, empty()).close()],
    ['has another number of regions', (path: string) => BitmapFile.create(path, { ...HEADER, bits: REGIONS - 1 }, empty()).close()],
  ])('is all dirty when it %s, and is a good file from then on', async (_text, prepare) => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('a');
    prepare(path);
    const read = empty();
    const { file, load } = BitmapFile.open(path, HEADER, read);
    expect(load.missing).toBe(true);
    expect(countSet(read)).toBe(REGIONS);
    file.close();
    const again = empty();
    const reopened = BitmapFile.open(path, HEADER, again);
    reopened.file.close();
    expect(reopened.load).toEqual({ damagedPages: 0, missing: false });
    expect(countSet(again)).toBe(REGIONS);
  });

  it('is an error, and no reason to call everything dirty, when it cannot be opened at all', async () => {
    await using temporary = await temporaryDirectory();
    fs.mkdirSync(temporary.path('a'));
    expect(() => BitmapFile.open(temporary.path('a'), HEADER, empty())).toThrow(expect.objectContaining({ code: 'STORE_IO' }));
  });

  it('refuses a write after it was closed: the descriptor may be another file by then', async () => {
    await using temporary = await temporaryDirectory();
    const file = BitmapFile.create(temporary.path('a'), HEADER, empty());
    file.close();
    const stranger = fs.openSync(temporary.path('b'), 'w+');
    expect(stranger).toBe(file.fd);
    expect(() => file.writePages(empty(), 0, 1)).toThrow('was closed');
    expect(() => file.sync()).toThrow('was closed');
    file.close();
    expect(fs.fstatSync(stranger).size).toBe(0);
    fs.closeSync(stranger);
  });
});
