/**
 * What `seekData` and `seekHole` promise, run on both implementations.
 *
 * The oracle is a list of the blocks that were written, all of them with bytes that are not zero. An implementation may
 * call zeros data where the file system's blocks are larger than 4 KiB, but must never call data a hole.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory } from './temporary.ts';

export type HoleSeek = {
  seekData(fd: number, offset: number, end: number): number;
  seekHole(fd: number, offset: number, end: number): number;
};

const BLOCK = 4096;
const TIB = 1024 ** 4;

/** A sparse file of `sizeBytes` with data in the named blocks of 4 KiB, given to `use`. */
const withFile = async (sizeBytes: number, blocks: readonly number[], use: (fd: number) => void): Promise<void> => {
  await using temporary = await temporaryDirectory();
  const fd = openSync(temporary.path('sparse'), 'w+');
  try {
    ftruncateSync(fd, sizeBytes);
    for (const block of blocks) writeSync(fd, Buffer.alloc(BLOCK, 0xa5), 0, BLOCK, block * BLOCK);
    use(fd);
  } finally {
    closeSync(fd);
  }
};

/** Walks data and holes alternately, as a copy does. Returns the runs of data. */
const dataRuns = (seek: HoleSeek, fd: number, from: number, end: number): Array<{ from: number; to: number }> => {
  const runs: Array<{ from: number; to: number }> = [];
  for (let position = seek.seekData(fd, from, end); position < end; ) {
    const to = seek.seekHole(fd, position, end);
    expect(to).toBeGreaterThan(position);
    runs.push({ from: position, to });
    position = seek.seekData(fd, to, end);
    expect(position).toBeGreaterThanOrEqual(to);
  }
  return runs;
};

export const holeSeekConformance = (name: string, seek: HoleSeek): void => {
  describe(`hole seeking: ${name}`, () => {
    it('a file that was never written is one hole, however large', () =>
      withFile(8 * TIB, [], (fd) => {
        expect(seek.seekData(fd, 0, 8 * TIB)).toBe(8 * TIB);
        expect(seek.seekHole(fd, 12_345, 8 * TIB)).toBe(12_345);
      }));

    it('finds data and the hole after it', () =>
      withFile(1024 * BLOCK, [512, 513], (fd) => {
        expect(seek.seekData(fd, 0, 1024 * BLOCK)).toBe(512 * BLOCK);
        expect(seek.seekHole(fd, 512 * BLOCK, 1024 * BLOCK)).toBe(514 * BLOCK);
        expect(seek.seekData(fd, 514 * BLOCK, 1024 * BLOCK)).toBe(1024 * BLOCK);
      }));

    it('inside data, data begins where the search begins', () =>
      withFile(8 * BLOCK, [2], (fd) => expect(seek.seekData(fd, 2 * BLOCK + 17, 8 * BLOCK)).toBe(2 * BLOCK + 17)));

    it('never looks beyond the end that it was given', () =>
      withFile(1024 * BLOCK, [512], (fd) => {
        expect(seek.seekData(fd, 0, 100 * BLOCK)).toBe(100 * BLOCK);
        expect(seek.seekHole(fd, 512 * BLOCK, 512 * BLOCK + 100)).toBe(512 * BLOCK + 100);
      }));

    it('an empty search ends where it begins', () =>
      withFile(4 * BLOCK, [1], (fd) => {
        expect(seek.seekData(fd, BLOCK, BLOCK)).toBe(BLOCK);
        expect(seek.seekHole(fd, 0, 0)).toBe(0);
      }));

    it('beyond the end of the file there is a hole', () =>
      withFile(2 * BLOCK, [0, 1], (fd) => {
        expect(seek.seekHole(fd, 0, 8 * BLOCK)).toBe(2 * BLOCK);
        expect(seek.seekHole(fd, 4 * BLOCK, 8 * BLOCK)).toBe(4 * BLOCK);
        expect(seek.seekData(fd, 2 * BLOCK, 8 * BLOCK)).toBe(8 * BLOCK);
        expect(seek.seekData(fd, 4 * BLOCK, 8 * BLOCK)).toBe(8 * BLOCK);
      }));

    it('sees data beyond 4 GiB', () =>
      withFile(5 * 1024 ** 3, [1_200_000], (fd) => {
        const at = 1_200_000 * BLOCK;
        expect(seek.seekData(fd, at - 10 * BLOCK, at + 10 * BLOCK)).toBe(at);
        expect(seek.seekHole(fd, at, at + 10 * BLOCK)).toBe(at + BLOCK);
      }));

    it('a closed descriptor is an error', () => {
      expect(() => seek.seekData(1_000_000, 0, BLOCK)).toThrow(/EBADF/);
      expect(() => seek.seekHole(1_000_000, 0, BLOCK)).toThrow(/EBADF/);
    });

    it('whatever is written lies in the runs of data, and they are exact where the file system has 4 KiB blocks', () => {
      const blocks = fc.uniqueArray(fc.integer({ min: 0, max: 599 }), { maxLength: 40 });
      const range = fc.tuple(fc.integer({ min: 0, max: 600 * BLOCK }), fc.integer({ min: 0, max: 600 * BLOCK }));
      return fc.assert(
        fc.asyncProperty(blocks, range, (written, [one, other]) =>
          withFile(600 * BLOCK, written, (fd) => {
            const [from, end] = [Math.min(one, other), Math.max(one, other)];
            const runs = dataRuns(seek, fd, from, end);
            for (const block of written) {
              const [first, last] = [Math.max(from, block * BLOCK), Math.min(end, (block + 1) * BLOCK)];
              if (first < last) expect(runs.some((found) => found.from <= first && last <= found.to)).toBe(true);
            }
            const runBytes = runs.reduce((sum, found) => sum + found.to - found.from, 0);
            expect(runBytes).toBeLessThanOrEqual(written.length * BLOCK * 16);
          }),
        ),
        { numRuns: 60 },
      );
    });
  });
};
