/** Self-describing blocks: what is right passes, and every way to be wrong is named. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockLedger, describeMismatch } from '../../../src/bench/block-ledger.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { KiB, MiB, TiB } from '../../../src/core/units.ts';

const BLOCK = 4 * KiB;
const ledgerOf = (offset = 1 * MiB): BlockLedger => new BlockLedger(offset, 1 * MiB, BLOCK, 77);
const written = (ledger: BlockLedger, block: number): Buffer => {
  const bytes = Buffer.alloc(BLOCK, 0xab);
  ledger.wrote(block, ledger.stamp(bytes, block), true);
  return bytes;
};
const mismatch = (ledger: BlockLedger, bytes: Buffer, block: number) => {
  ledger.check(bytes, block);
  return ledger.details.at(-1);
};

describe('BlockLedger', () => {
  it('accepts what was written last, and does not look at what it did not write', () => {
    const ledger = ledgerOf();
    written(ledger, 3);
    ledger.check(written(ledger, 3), 3);
    ledger.check(Buffer.alloc(BLOCK), 4);
    expect(ledger).toMatchObject({ checked: 1, mismatches: 0, known: 1 });
    expect([ledger.nextKnown(0), ledger.nextKnown(4)]).toEqual([3, -1]);
  });

  it('names a stale block', () => {
    const ledger = ledgerOf();
    const old = written(ledger, 5);
    written(ledger, 5);
    expect(mismatch(ledger, old, 5)).toEqual({
      offset: 1 * MiB + 5 * BLOCK,
      kind: 'stale',
      expectedSequence: 2,
      foundSequence: 1,
      foundOffset: null,
    });
  });

  it('names a torn one: sectors of two writes, in either order', () => {
    const ledger = ledgerOf();
    const old = written(ledger, 5);
    const next = written(ledger, 5);
    const offset = 1 * MiB + 5 * BLOCK + 1024;
    const newFirst = Buffer.concat([next.subarray(0, 1024), old.subarray(1024)]);
    expect(mismatch(ledger, newFirst, 5)).toMatchObject({ offset, kind: 'torn', foundSequence: 1 });
    const oldFirst = Buffer.concat([old.subarray(0, 1024), next.subarray(1024)]);
    expect(mismatch(ledger, oldFirst, 5)).toMatchObject({ kind: 'stale' });
  });

  it('names a block of another place, of another run, zeros, and damage', () => {
    const ledger = ledgerOf();
    const other = written(ledger, 9);
    const own = written(ledger, 8);
    expect(mismatch(ledger, other, 8)).toMatchObject({ kind: 'misplaced', foundOffset: 1 * MiB + 9 * BLOCK });
    expect(mismatch(ledger, Buffer.alloc(BLOCK), 8)).toMatchObject({ kind: 'foreign', foundSequence: null });
    const elsewhere = new BlockLedger(1 * MiB, 1 * MiB, BLOCK, 78);
    expect(mismatch(ledger, written(elsewhere, 8), 8)).toMatchObject({ kind: 'foreign' });
    own.writeUInt8(own.readUInt8(2000) ^ 1, 2000);
    expect(mismatch(ledger, own, 8)).toMatchObject({ kind: 'damaged', offset: 1 * MiB + 8 * BLOCK + 1536 });
  });

  it('notices any single changed bit', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: BLOCK * 8 - 1 }), (bit) => {
        const ledger = ledgerOf();
        const bytes = written(ledger, 0);
        bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        ledger.check(bytes, 0);
        expect(ledger.mismatches).toBe(1);
      }),
    );
  });

  it('knows nothing about a block whose write failed, until it is written again', () => {
    const ledger = ledgerOf();
    written(ledger, 1);
    ledger.wrote(1, ledger.stamp(Buffer.alloc(BLOCK), 1), false);
    ledger.check(Buffer.alloc(BLOCK), 1);
    expect(ledger).toMatchObject({ checked: 0, mismatches: 0, known: 0 });
    ledger.check(written(ledger, 1), 1);
    expect(ledger).toMatchObject({ checked: 1, mismatches: 0 });
  });

  it('gives a block to one request at a time', () => {
    const ledger = new BlockLedger(0, 4 * BLOCK, BLOCK, 1);
    expect([ledger.claim(2), ledger.claim(2), ledger.claim(2), ledger.claim(2), ledger.claim(2)]).toEqual([2, 3, 0, 1, -1]);
    ledger.release(3);
    expect(ledger.claim(0)).toBe(3);
  });

  it('gives a connection only its own blocks, where connections do not share what they see', () => {
    const ledger = new BlockLedger(0, 7 * BLOCK, BLOCK, 1);
    expect([ledger.claim(4, 3), ledger.claim(4, 3), ledger.claim(4, 3)]).toEqual([4, 1, -1]);
    expect([ledger.claim(8, 3), ledger.claim(2, 3), ledger.claim(2, 3)]).toEqual([2, 5, -1]);
    for (const block of [1, 4]) written(ledger, block);
    expect([ledger.nextKnown(1, 3), ledger.nextKnown(4, 3), ledger.nextKnown(7, 3), ledger.nextKnown(0, 3)]).toEqual([1, 4, -1, -1]);
  });

  it('keeps the details of the first few, and counts all', () => {
    const ledger = ledgerOf();
    for (let block = 0; block < 40; block += 1) {
      written(ledger, block);
      ledger.check(Buffer.alloc(BLOCK), block);
    }
    expect(ledger.mismatches).toBe(40);
    expect(ledger.details.length).toBe(16);
    expect(ledger.details.map(describeMismatch)[0]).toBe(
      `at ${1 * MiB}: foreign: write 1 was acknowledged, what is there was not written by this run`,
    );
  });

  it('refuses what it cannot stamp or remember', () => {
    expect(() => new BlockLedger(0, 1 * MiB, 1000, 1)).toThrow(TwinvolError);
    expect(() => new BlockLedger(100, 1 * MiB, BLOCK, 1)).toThrow(TwinvolError);
    expect(() => new BlockLedger(0, 1 * TiB, BLOCK, 1)).toThrow(/at most/);
  });
});
