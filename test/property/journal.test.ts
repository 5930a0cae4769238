/**
 * The journal's and the superblock's bytes: what was written is read back; whatever happens to the bytes, the reader
 * gives a prefix of the records or refuses, and never something that was not written.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TwinvolError } from '../../src/core/faults.ts';
import { encodePayload, scanJournal } from '../../src/store/journal-scan.ts';
import {
  decodeFrame,
  decodeSuperblock,
  encodeFrame,
  encodeSuperblock,
  findFrame,
  SUPERBLOCK_BYTES,
  type Superblock,
} from '../../src/wire/store-records.ts';

const UUID = '6a1f0c9e-0b57-4c1e-9f58-2f1d7b1f9c11';
const IDENTITY = { file: 'journal.3', generation: 3, uuid: UUID };

/** Commits of one record: lists of lists of anything that JSON has. */
const record = fc.array(
  fc.array(
    fc.json({ maxDepth: 1 }).map((text) => JSON.parse(text) as unknown),
    { maxLength: 3 },
  ),
  { minLength: 1, maxLength: 3 },
);
const records = fc.array(record, { minLength: 1, maxLength: 6 });

type Records = readonly (readonly unknown[][])[];

const journalOf = (all: Records): { readonly bytes: Buffer; readonly offsets: readonly number[] } => {
  const offsets = [0];
  const frames = all.map((commits, index) => {
    const payload = encodePayload(
      commits.map((ops) => JSON.stringify(ops)),
      index === 0 ? UUID : null,
    );
    const frame = encodeFrame(index + 7, IDENTITY.generation, payload);
    offsets.push((offsets.at(-1) as number) + frame.length);
    return frame;
  });
  return { bytes: Buffer.concat(frames), offsets };
};

const read = (bytes: Buffer): readonly unknown[] => scanJournal(bytes, IDENTITY).records.map(({ commits }) => commits);
const asRead = (all: Records): unknown => JSON.parse(JSON.stringify(all));

test('what was written is read back, with and without reserved space behind it', () => {
  fc.assert(
    fc.property(records, fc.integer({ min: 0, max: 5000 }), (all, reserve) => {
      const { bytes, offsets } = journalOf(all);
      const scan = scanJournal(Buffer.concat([bytes, Buffer.alloc(reserve)]), IDENTITY);
      expect(scan.records.map(({ commits }) => commits)).toEqual(asRead(all));
      expect(scan.records.map(({ offset }) => offset)).toEqual(offsets.slice(0, -1));
      expect(scan).toMatchObject({ tornTail: null, endOffset: bytes.length, snapshotBytes: offsets[1] });
    }),
  );
});

test('a journal cut off anywhere is read up to the last whole record, and what is behind is a torn tail', () => {
  fc.assert(
    fc.property(records, fc.double({ min: 0, max: 1, noNaN: true }), (all, share) => {
      const { bytes, offsets } = journalOf(all);
      const length = (offsets[1] as number) + Math.floor(share * (bytes.length - (offsets[1] as number)));
      const whole = offsets.findLastIndex((offset) => offset <= length);
      const scan = scanJournal(bytes.subarray(0, length), IDENTITY);
      expect(scan.records.map(({ commits }) => commits)).toEqual((asRead(all) as unknown[]).slice(0, whole));
      const start = offsets[whole] as number;
      expect(scan.endOffset).toBe(start);
      if (length > start && bytes.subarray(start, length).some((byte) => byte !== 0)) {
        expect(scan.tornTail).toEqual({ offset: start, byteLength: length - start, record: whole + 1 });
      }
    }),
  );
});

test('any changed byte is found: named where records follow, cut off where none does', () => {
  fc.assert(
    fc.property(
      records,
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      fc.integer({ min: 1, max: 255 }),
      (all, share, flip) => {
        const { bytes, offsets } = journalOf(all);
        const at = Math.floor(share * bytes.length);
        bytes[at] = (bytes[at] as number) ^ flip;
        const bad = offsets.findLastIndex((offset) => offset <= at);
        if (bad === all.length - 1 && bad > 0) {
          expect(read(bytes)).toEqual((asRead(all) as unknown[]).slice(0, bad));
          return;
        }
        const error = ((): unknown => {
          try {
            return read(bytes);
          } catch (thrown) {
            return thrown;
          }
        })();
        expect(error).toBeInstanceOf(TwinvolError);
        // A journal of one record whose magic is gone could be anybody's file.
        if (all.length > 1)
          expect(error).toMatchObject({ code: 'STORE_DAMAGED', details: { file: 'journal.3', record: bad + 1, offset: offsets[bad] } });
        else expect(['STORE_DAMAGED', 'STORE_FOREIGN']).toContain((error as TwinvolError).code);
      },
    ),
    { numRuns: 400 },
  );
});

test('any bytes at all are refused or read, never more than that', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (noise) => {
      const bytes = Buffer.from(noise);
      expect(() => read(bytes)).toThrow(TwinvolError);
      expect(findFrame(bytes, 0)).toBe(-1);
      expect(decodeFrame(bytes, 0)).toBeNull();
      expect(['empty', 'foreign', 'damaged']).toContain(decodeSuperblock(bytes, 1).kind);
    }),
  );
});

const superblock: fc.Arbitrary<Superblock> = fc.record({
  formatVersion: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  uuid: fc.uuid(),
  generation: fc.maxSafeNat(),
  sequence: fc.maxSafeNat(),
  regionBytes: fc.maxSafeNat(),
  pvBytes: fc.maxSafeNat(),
});

test('a superblock is read back, and any changed byte is found', () => {
  fc.assert(
    fc.property(superblock, fc.integer({ min: 0, max: SUPERBLOCK_BYTES - 1 }), fc.integer({ min: 1, max: 255 }), (fields, at, flip) => {
      const bytes = encodeSuperblock(fields);
      expect(bytes.length).toBe(SUPERBLOCK_BYTES);
      expect(decodeSuperblock(bytes, 2 ** 32 - 1)).toEqual({ kind: 'ok', superblock: fields });
      if (fields.formatVersion > 1)
        expect(decodeSuperblock(bytes, fields.formatVersion - 1)).toEqual({ kind: 'newer', formatVersion: fields.formatVersion });
      bytes[at] = (bytes[at] as number) ^ flip;
      expect(decodeSuperblock(bytes, 2 ** 32 - 1).kind).toBe(at < 8 ? 'foreign' : 'damaged');
    }),
  );
});

test('a superblock of zeros was never written, and a part of one is damaged', () => {
  const bytes = encodeSuperblock({ formatVersion: 1, uuid: UUID, generation: 1, sequence: 1, regionBytes: 65_536, pvBytes: 2 ** 20 });
  expect(decodeSuperblock(Buffer.alloc(SUPERBLOCK_BYTES), 1).kind).toBe('empty');
  expect(decodeSuperblock(Buffer.alloc(0), 1).kind).toBe('empty');
  expect(decodeSuperblock(bytes.subarray(0, 100), 1).kind).toBe('damaged');
  expect(decodeSuperblock(Buffer.from('#!/bin/sh\n'), 1).kind).toBe('foreign');
});
