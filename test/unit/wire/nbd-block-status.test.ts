/** Block-status chunks: layout, merging, cuts. */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import { BLOCK_STATUS_BYTES_MIN, BlockStatusWriter } from '../../../src/wire/nbd-block-status.ts';
import { NbdRequest, REPLY_EXTENDED, REPLY_STRUCTURED } from '../../../src/wire/nbd-transmission.ts';
import type { ReplyMode } from '../../../src/wire/nbd-transmission.ts';

const ask = (length: number, flags = 0): NbdRequest =>
  Object.assign(new NbdRequest(), { type: nbd.NBD_CMD_BLOCK_STATUS, length, flags, offset: 65_536 });

type Written = { extents: Array<[number, number]>; taken: boolean[]; bytes: Buffer };
const write = (request: NbdRequest, mode: ReplyMode, extents: Array<[number, number]>, room = 4096): Written => {
  const into = Buffer.alloc(room);
  const writer = new BlockStatusWriter();
  writer.begin(into, 0, room, mode, request, 7);
  const taken = extents.map(([length, status]) => writer.add(length, status));
  const bytes = into.subarray(0, writer.end(nbd.NBD_REPLY_FLAG_DONE));
  const found: Array<[number, number]> = [];
  if (mode === REPLY_EXTENDED) {
    expect(bytes.readUInt32BE(36)).toBe((bytes.length - 40) / 16);
    for (let at = 40; at < bytes.length; at += 16) found.push([Number(bytes.readBigUInt64BE(at)), Number(bytes.readBigUInt64BE(at + 8))]);
  } else {
    for (let at = 24; at < bytes.length; at += 8) found.push([bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)]);
  }
  return { extents: found, taken, bytes };
};

describe('BlockStatusWriter', () => {
  it('writes the layout of a compact chunk', () => {
    const { bytes } = write(ask(8192), REPLY_STRUCTURED, [
      [4096, 3],
      [4096, 0],
    ]);
    expect(bytes.toString('hex')).toBe(
      '668e33ef00010005' + '0000000000000000' + '00000014' + '00000007' + '0000100000000003' + '0000100000000000',
    );
  });

  it('writes the layout of an extended chunk', () => {
    const { bytes } = write(ask(2 ** 40), REPLY_EXTENDED, [[2 ** 40, 3]]);
    expect(bytes.toString('hex')).toBe(
      '6e8a278c00010006' +
        '0000000000000000' +
        '0000000000010000' +
        '0000000000000018' +
        '00000007' +
        '00000001' +
        '0000010000000000' +
        '0000000000000003',
    );
  });

  it.each([REPLY_STRUCTURED, REPLY_EXTENDED] as const)(
    'mode %i: merges neighbours of equal status and stops behind the request',
    (mode) => {
      const { extents, taken } = write(ask(20_000), mode, [
        [4096, 0],
        [4096, 0],
        [4096, 3],
        [16_384, 0],
        [4096, 3],
      ]);
      expect(extents).toEqual([
        [8192, 0],
        [4096, 3],
        [16_384, 0],
      ]);
      expect(taken).toEqual([true, true, true, false, false]);
    },
  );

  it.each([REPLY_STRUCTURED, REPLY_EXTENDED] as const)('mode %i: with REQ_ONE there is one extent, no longer than the request', (mode) => {
    const { extents } = write(ask(20_000, nbd.NBD_CMD_FLAG_REQ_ONE), mode, [
      [4096, 0],
      [4096, 0],
      [100_000, 0],
    ]);
    expect(extents).toEqual([[20_000, 0]]);
    expect(
      write(ask(20_000, nbd.NBD_CMD_FLAG_REQ_ONE), mode, [
        [4096, 0],
        [4096, 1],
      ]).extents,
    ).toEqual([[4096, 0]]);
  });

  it('cuts a compact extent that does not fit 32 bits, and never splits before the request is covered', () => {
    const { extents, taken } = write(ask(0xffff_ffff), REPLY_STRUCTURED, [[2 ** 40, 3]]);
    expect(extents).toEqual([
      [0xffff_0000, 3],
      [0xffff_0000, 3],
    ]);
    expect(taken).toEqual([false]);
    expect(write(ask(4096), REPLY_STRUCTURED, [[2 ** 40, 3]]).extents).toEqual([[0xffff_0000, 3]]);
  });

  it('stops when there is no room', () => {
    const { extents, taken } = write(
      ask(1_000_000),
      REPLY_EXTENDED,
      [
        [512, 0],
        [512, 1],
        [512, 1],
        [512, 0],
      ],
      BLOCK_STATUS_BYTES_MIN + 16,
    );
    expect(extents).toEqual([
      [512, 0],
      [1024, 1],
    ]);
    expect(taken).toEqual([true, true, true, false]);
  });

  it('says what it covered', () => {
    const writer = new BlockStatusWriter();
    writer.begin(Buffer.alloc(100), 0, 100, REPLY_STRUCTURED, ask(1000), 0);
    writer.add(300, 0);
    expect(writer.coveredBytes).toBe(300);
  });

  it('takes misuse for the bug that it is', () => {
    const writer = new BlockStatusWriter();
    expect(() => writer.begin(Buffer.alloc(8), 0, 8, REPLY_STRUCTURED, ask(1), 0)).toThrow('no room');
    expect(() => writer.add(1, 0)).toThrow();
    writer.begin(Buffer.alloc(100), 0, 100, REPLY_STRUCTURED, ask(1), 0);
    expect(() => writer.end(1)).toThrow('at least one');
    expect(() => writer.add(0, 0)).toThrow();
  });
});
