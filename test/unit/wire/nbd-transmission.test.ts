/** Requests and replies of the transmission phase against their layout in the specification, and every refusal. */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import {
  ERROR_REPLY_BYTES_MAX,
  NbdRequest,
  REPLY_EXTENDED,
  REPLY_SIMPLE,
  REPLY_STRUCTURED,
  parseRequest,
  readHeaderBytes,
  replyModeOf,
  validateRequest,
  writeDone,
  writeError,
  writeErrorOffset,
  writeNone,
  writeOffsetHole,
  writeReadHeader,
} from '../../../src/wire/nbd-transmission.ts';
import type { RequestRules } from '../../../src/wire/nbd-transmission.ts';

const ALL_FLAGS =
  nbd.NBD_FLAG_HAS_FLAGS |
  nbd.NBD_FLAG_SEND_FLUSH |
  nbd.NBD_FLAG_SEND_FUA |
  nbd.NBD_FLAG_SEND_TRIM |
  nbd.NBD_FLAG_SEND_WRITE_ZEROES |
  nbd.NBD_FLAG_SEND_DF |
  nbd.NBD_FLAG_SEND_CACHE |
  nbd.NBD_FLAG_SEND_FAST_ZERO;
const MiB = 1024 * 1024;
const RULES: RequestRules = {
  sizeBytes: 100 * MiB,
  transmissionFlags: ALL_FLAGS,
  mode: REPLY_STRUCTURED,
  metaContextCount: 1,
  minimumBytes: 1,
  payloadBytesMax: 32 * MiB,
};

const request = (type: number, fields: Partial<NbdRequest> = {}): NbdRequest => {
  const made = Object.assign(new NbdRequest(), { type, offset: 0, length: 4096, cookieHigh: 0x01020304, cookieLow: -2 }, fields);
  made.payloadBytes = fields.payloadBytes ?? (type === nbd.NBD_CMD_WRITE ? made.length : 0);
  return made;
};
const hex = (bytes: Buffer): string => bytes.toString('hex');

describe('parseRequest', () => {
  const compact = Buffer.from('25609513' + '0001' + '0001' + 'ffffffff00000001' + '0000000100000200' + '00001000', 'hex');
  const extended = Buffer.from('21e41c71' + '0020' + '0001' + '8000000000000001' + '0000000100000200' + '0000000000001000', 'hex');

  it('reads a compact header', () => {
    const into = new NbdRequest();
    expect(parseRequest(Buffer.concat([Buffer.alloc(3), compact]), 3, REPLY_SIMPLE, into)).toBe(true);
    expect({ ...into }).toMatchObject({
      flags: 1,
      type: 1,
      cookieHigh: -1,
      cookieLow: 1,
      offset: 2 ** 32 + 512,
      length: 4096,
      payloadBytes: 4096,
    });
  });

  it('reads an extended header, where a flag says that a payload follows', () => {
    const into = new NbdRequest();
    expect(parseRequest(extended, 0, REPLY_EXTENDED, into)).toBe(true);
    expect({ ...into }).toMatchObject({
      flags: 32,
      type: 1,
      cookieHigh: -(2 ** 31),
      cookieLow: 1,
      offset: 2 ** 32 + 512,
      length: 4096,
      payloadBytes: 4096,
    });
    extended.writeUInt16BE(0, 4);
    parseRequest(extended, 0, REPLY_EXTENDED, into);
    expect(into.payloadBytes).toBe(0);
  });

  it('says that a magic is wrong, also the one of the other mode', () => {
    expect(parseRequest(compact, 0, REPLY_EXTENDED, new NbdRequest())).toBe(false);
    expect(parseRequest(extended, 0, REPLY_SIMPLE, new NbdRequest())).toBe(false);
  });

  it('gives Infinity for what a double cannot hold', () => {
    const into = new NbdRequest();
    const huge = Buffer.from(compact);
    huge.writeUInt32BE(0x0020_0000, 16);
    parseRequest(huge, 0, REPLY_SIMPLE, into);
    expect(into.offset).toBe(Number.POSITIVE_INFINITY);
    huge.writeUInt32BE(0x001f_ffff, 16);
    parseRequest(huge, 0, REPLY_SIMPLE, into);
    expect(Number.isSafeInteger(into.offset)).toBe(true);
  });

  it.each([2n ** 53n - 1n, 2n ** 53n, 2n ** 60n + 7n, 2n ** 63n + 5n, 2n ** 64n - 1n])(
    'an extended reply repeats the offset %d',
    (offset) => {
      const asked = Buffer.from(extended);
      asked.writeBigUInt64BE(offset, 16);
      const into = new NbdRequest();
      parseRequest(asked, 0, REPLY_EXTENDED, into);
      const reply = Buffer.alloc(256);
      for (const replied of [into, into.copy()]) {
        writeError(reply, 0, REPLY_EXTENDED, replied, nbd.NBD_EINVAL);
        expect(reply.readBigUInt64BE(16)).toBe(offset);
      }
    },
  );
});

describe('validateRequest', () => {
  const { NBD_EINVAL, NBD_ENOSPC, NBD_EPERM, NBD_EOVERFLOW } = nbd;
  const check = (made: NbdRequest, changes: Partial<RequestRules> = {}): number => validateRequest(made, { ...RULES, ...changes });

  it('lets every command through that was offered', () => {
    for (const type of [0, 1, 4, 5, 6, 7]) expect(check(request(type)), `command ${type}`).toBe(0);
    expect(check(request(nbd.NBD_CMD_FLUSH, { length: 0 }))).toBe(0);
  });

  it('refuses what was not offered, and unknown commands', () => {
    const bare = { transmissionFlags: nbd.NBD_FLAG_HAS_FLAGS, metaContextCount: 0 };
    for (const type of [4, 5, 6, 7, 8, 99]) expect(check(request(type), bare), `command ${type}`).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_FLUSH, { length: 0 }), bare)).toBe(NBD_EINVAL);
  });

  it('lets FUA stand on every command once offered, and other flags only where they belong', () => {
    for (const type of [0, 1, 4, 5, 6, 7]) {
      expect(check(request(type, { flags: nbd.NBD_CMD_FLAG_FUA }))).toBe(0);
      expect(check(request(type, { flags: nbd.NBD_CMD_FLAG_FUA }), { transmissionFlags: ALL_FLAGS & ~nbd.NBD_FLAG_SEND_FUA })).toBe(
        NBD_EINVAL,
      );
      expect(check(request(type, { flags: 0x8000 }))).toBe(NBD_EINVAL);
    }
    expect(check(request(nbd.NBD_CMD_READ, { flags: nbd.NBD_CMD_FLAG_DF }))).toBe(0);
    expect(check(request(nbd.NBD_CMD_READ, { flags: nbd.NBD_CMD_FLAG_DF }), { transmissionFlags: ALL_FLAGS & ~nbd.NBD_FLAG_SEND_DF })).toBe(
      NBD_EINVAL,
    );
    expect(check(request(nbd.NBD_CMD_WRITE, { flags: nbd.NBD_CMD_FLAG_DF }))).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_WRITE_ZEROES, { flags: nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO }))).toBe(0);
    expect(
      check(request(nbd.NBD_CMD_WRITE_ZEROES, { flags: nbd.NBD_CMD_FLAG_FAST_ZERO }), {
        transmissionFlags: ALL_FLAGS & ~nbd.NBD_FLAG_SEND_FAST_ZERO,
      }),
    ).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_TRIM, { flags: nbd.NBD_CMD_FLAG_NO_HOLE }))).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_BLOCK_STATUS, { flags: nbd.NBD_CMD_FLAG_REQ_ONE }))).toBe(0);
  });

  it('refuses writing to a read-only export with EPERM', () => {
    const readOnly = { transmissionFlags: ALL_FLAGS | nbd.NBD_FLAG_READ_ONLY };
    for (const type of [1, 4, 6]) expect(check(request(type), readOnly)).toBe(NBD_EPERM);
    for (const type of [0, 5, 7]) expect(check(request(type), readOnly)).toBe(0);
  });

  it('holds the range against the size: EINVAL for reads, ENOSPC for writes', () => {
    const beyond = { offset: RULES.sizeBytes - 4095 };
    for (const type of [0, 4, 5, 7]) expect(check(request(type, beyond)), `command ${type}`).toBe(NBD_EINVAL);
    for (const type of [1, 6]) expect(check(request(type, beyond)), `command ${type}`).toBe(NBD_ENOSPC);
    for (const type of [0, 1, 4, 5, 6, 7]) expect(check(request(type, { offset: RULES.sizeBytes - 4096 }))).toBe(0);
    expect(check(request(nbd.NBD_CMD_READ, { offset: Number.POSITIVE_INFINITY }))).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_WRITE_ZEROES, { length: Number.POSITIVE_INFINITY }))).toBe(NBD_ENOSPC);
  });

  it('refuses lengths of zero, and a FLUSH with a range', () => {
    for (const type of [0, 1, 4, 5, 6, 7]) expect(check(request(type, { length: 0 }))).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_FLUSH, { length: 1 }))).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_FLUSH, { length: 0, offset: 1 }))).toBe(NBD_EINVAL);
  });

  it('holds alignment and the payload limit', () => {
    expect(check(request(nbd.NBD_CMD_READ, { offset: 512, length: 512 }), { minimumBytes: 4096 })).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_READ, { offset: 4096, length: 8192 }), { minimumBytes: 4096 })).toBe(0);
    const large = request(nbd.NBD_CMD_READ, { length: 33 * MiB });
    expect(check(large)).toBe(NBD_EOVERFLOW);
    expect(check(large, { mode: REPLY_SIMPLE })).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_WRITE_ZEROES, { length: 90 * MiB }))).toBe(0);
  });

  it('wants a payload announced with extended headers', () => {
    const extended = { mode: REPLY_EXTENDED } as const;
    expect(check(request(nbd.NBD_CMD_WRITE, { payloadBytes: 0 }), extended)).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_WRITE, { flags: nbd.NBD_CMD_FLAG_PAYLOAD_LEN }), extended)).toBe(0);
    expect(check(request(nbd.NBD_CMD_READ, { flags: nbd.NBD_CMD_FLAG_PAYLOAD_LEN, payloadBytes: 4096 }), extended)).toBe(NBD_EINVAL);
    expect(check(request(nbd.NBD_CMD_WRITE, { flags: nbd.NBD_CMD_FLAG_PAYLOAD_LEN }))).toBe(NBD_EINVAL);
  });
});

describe('replies', () => {
  const read = request(nbd.NBD_CMD_READ, { offset: 2 ** 32 + 512, length: 4096 });
  const COOKIE = '01020304fffffffe';
  const written = (write: (into: Buffer, at: number) => number): string => {
    const into = Buffer.alloc(ERROR_REPLY_BYTES_MAX + 8, 0xaa);
    const end = write(into, 4);
    expect(into.subarray(end).every((byte) => byte === 0xaa)).toBe(true);
    return hex(into.subarray(4, end));
  };

  it('success without data', () => {
    expect(written((into, at) => writeDone(into, at, REPLY_SIMPLE, read))).toBe(`67446698${'00000000'}${COOKIE}`);
    expect(written((into, at) => writeDone(into, at, REPLY_STRUCTURED, read))).toBe(`67446698${'00000000'}${COOKIE}`);
    expect(written((into, at) => writeDone(into, at, REPLY_EXTENDED, read))).toBe(
      `6e8a278c00010000${COOKIE}00000001000002000000000000000000`,
    );
    expect(written((into, at) => writeNone(into, at, REPLY_STRUCTURED, read))).toBe(`668e33ef00010000${COOKIE}00000000`);
  });

  it('what goes before the data of a READ', () => {
    expect(written((into, at) => writeReadHeader(into, at, REPLY_SIMPLE, read))).toBe(`67446698${'00000000'}${COOKIE}`);
    expect(written((into, at) => writeReadHeader(into, at, REPLY_STRUCTURED, read))).toBe(
      `668e33ef00010001${COOKIE}000010080000000100000200`,
    );
    expect(written((into, at) => writeReadHeader(into, at, REPLY_EXTENDED, read))).toBe(
      `6e8a278c00010001${COOKIE}0000000100000200000000000000100800000001${'00000200'}`,
    );
    expect([REPLY_SIMPLE, REPLY_STRUCTURED, REPLY_EXTENDED].map((mode) => readHeaderBytes(mode as 0 | 1 | 2))).toEqual([16, 28, 40]);
  });

  it('a hole', () => {
    expect(written((into, at) => writeOffsetHole(into, at, REPLY_STRUCTURED, read, 0, 2 ** 32 + 1024, 0xffff_fe00))).toBe(
      `668e33ef00000002${COOKIE}0000000c0000000100000400fffffe00`,
    );
  });

  it('errors, with their message where there is room', () => {
    expect(written((into, at) => writeError(into, at, REPLY_SIMPLE, read, nbd.NBD_EIO, 'lost'))).toBe(`6744669800000005${COOKIE}`);
    expect(written((into, at) => writeError(into, at, REPLY_STRUCTURED, read, nbd.NBD_EIO, 'lost'))).toBe(
      `668e33ef00018001${COOKIE}0000000a${'00000005'}0004${hex(Buffer.from('lost'))}`,
    );
    expect(written((into, at) => writeErrorOffset(into, at, REPLY_STRUCTURED, read, 1, nbd.NBD_EIO, 2 ** 32 + 513, 'ü'))).toBe(
      `668e33ef00018002${COOKIE}00000010${'00000005'}0002c3bc0000000100000201`,
    );
  });

  it('a long message is cut between characters, and fits the room that is stated', () => {
    const into = Buffer.alloc(ERROR_REPLY_BYTES_MAX);
    const end = writeErrorOffset(into, 0, REPLY_EXTENDED, read, 1, nbd.NBD_EIO, 0, 'aü'.repeat(1000));
    expect(end).toBeLessThanOrEqual(ERROR_REPLY_BYTES_MAX);
    const textBytes = into.readUInt16BE(36);
    expect(into.toString('utf8', 38, 38 + textBytes)).not.toContain('\ufffd');
  });

  it('the mode follows the handshake', () => {
    expect(replyModeOf({ structuredReplies: false, extendedHeaders: false })).toBe(REPLY_SIMPLE);
    expect(replyModeOf({ structuredReplies: true, extendedHeaders: false })).toBe(REPLY_STRUCTURED);
    expect(replyModeOf({ structuredReplies: true, extendedHeaders: true })).toBe(REPLY_EXTENDED);
  });
});
