/** Every option of the server's handshake, one by one, and what ends a connection. */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import {
  decodeInfoReply,
  decodeMetaContext,
  decodeServerEntry,
  encodeClientFlags,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../../src/wire/nbd-handshake.ts';
import { ServerNegotiation } from '../../../src/wire/nbd-negotiation.ts';
import { NegotiationDriver, exportInfo } from '../../support/negotiation-driver.ts';

const FIXED = encodeClientFlags(nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES);
const STRUCTURED = encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY);
const go = (name: string, wanted: number[] = []): Buffer => encodeOption(nbd.NBD_OPT_GO, encodeInfoRequest(name, wanted));
const setContexts = (name: string, queries: string[]): Buffer =>
  encodeOption(nbd.NBD_OPT_SET_META_CONTEXT, encodeMetaContextRequest(name, queries));
const listContexts = (name: string, queries: string[]): Buffer =>
  encodeOption(nbd.NBD_OPT_LIST_META_CONTEXT, encodeMetaContextRequest(name, queries));
const contextNames = (driver: NegotiationDriver): string[] =>
  driver
    .replies()
    .filter((reply) => reply.type === nbd.NBD_REP_META_CONTEXT)
    .map((reply) => decodeMetaContext(reply.data)?.name ?? '');

describe('greeting and client flags', () => {
  it('offers fixed newstyle without zeroes', () => {
    const greeting = new ServerNegotiation({ tls: 'off' }).greeting();
    expect(greeting.toString('latin1', 0, 16)).toBe('NBDMAGICIHAVEOPT');
    expect(greeting.readUInt16BE(16)).toBe(3);
  });

  it('closes on a client flag that it does not know', () => {
    expect(new NegotiationDriver().feed(encodeClientFlags(0x8000_0001)).outcome.closed?.reason).toBe('protocol');
  });

  it('lets a client without fixed newstyle do nothing but EXPORT_NAME', () => {
    const asks = new NegotiationDriver().feed(encodeClientFlags(0)).feed(encodeOption(nbd.NBD_OPT_LIST));
    expect(asks.outcome.closed?.reason).toBe('protocol');
    const old = new NegotiationDriver().feed(encodeClientFlags(0)).feed(encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from('vol')));
    expect(old.outcome.transmission?.noZeroes).toBe(false);
    expect(old.outcome.sent.length).toBe(134);
  });

  it('closes on a wrong option magic', () => {
    expect(new NegotiationDriver().feed(FIXED).feed(Buffer.alloc(16)).outcome.closed?.reason).toBe('protocol');
  });
});

describe('EXPORT_NAME', () => {
  it('enters transmission with size and flags, and keeps what was read ahead', () => {
    const driver = new NegotiationDriver().feed(
      Buffer.concat([FIXED, encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from('vol')), Buffer.from('rest')]),
    );
    expect(driver.outcome.sent.length).toBe(10);
    expect(driver.outcome.sent.readBigUInt64BE(0)).toBe(BigInt(10 * 1024 ** 3));
    expect(driver.outcome.transmission).toMatchObject({ exportName: 'vol', structuredReplies: false, metaContexts: [] });
    expect(driver.outcome.transmission?.readAhead.toString()).toBe('rest');
  });

  it('closes when the export is refused, not a string, too long, or extended headers are on', () => {
    const name = (bytes: Buffer): NegotiationDriver =>
      new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_EXPORT_NAME, bytes));
    expect(name(Buffer.from('nothing')).outcome.closed?.reason).toBe('export-refused');
    expect(name(Buffer.from([0xff, 0xfe])).outcome.closed?.reason).toBe('export-refused');
    expect(name(Buffer.alloc(5000, 'a')).outcome.closed?.reason).toBe('export-refused');
    expect(name(Buffer.alloc(20_000, 'a')).outcome.closed?.reason).toBe('limit');
    const extended = new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_EXTENDED_HEADERS));
    expect(extended.feed(encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from('vol'))).outcome.closed?.reason).toBe('protocol');
  });
});

describe('INFO and GO', () => {
  it('INFO tells and stays; GO tells the same and enters transmission', () => {
    const wanted = [nbd.NBD_INFO_NAME, nbd.NBD_INFO_DESCRIPTION, nbd.NBD_INFO_BLOCK_SIZE, 77];
    const driver = new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_INFO, encodeInfoRequest('vol', wanted)));
    expect(driver.replies().map((reply) => (reply.type === nbd.NBD_REP_INFO ? decodeInfoReply(reply.data) : reply.type))).toEqual([
      { kind: 'export', sizeBytes: 10 * 1024 ** 3, transmissionFlags: 5 },
      { kind: 'name', text: 'vol' },
      { kind: 'description', text: 'volume vol' },
      { kind: 'block-size', sizes: { minimumBytes: 1, preferredBytes: 4096, maximumBytes: 33_554_432 } },
      nbd.NBD_REP_ACK,
    ]);
    expect(driver.outcome.transmission).toBeNull();
    driver.feed(go('vol', wanted));
    expect(
      driver
        .replies()
        .slice(5)
        .map((reply) => reply.data),
    ).toEqual(
      driver
        .replies()
        .slice(0, 5)
        .map((reply) => reply.data),
    );
    expect(driver.outcome.transmission?.transmissionFlags).toBe(5);
    expect(driver.outcome.asked).toEqual(['info:vol', 'go:vol']);
  });

  it('always tells the block sizes, and adds DF once replies are structured', () => {
    const driver = new NegotiationDriver().feed(FIXED).feed(STRUCTURED).feed(go('vol'));
    const infos = driver
      .replies()
      .filter((reply) => reply.type === nbd.NBD_REP_INFO)
      .map((reply) => decodeInfoReply(reply.data)?.kind);
    expect(infos).toEqual(['export', 'block-size']);
    expect((driver.outcome.transmission?.transmissionFlags ?? 0) & nbd.NBD_FLAG_SEND_DF).not.toBe(0);
  });

  it.each([
    ['unknown', nbd.NBD_REP_ERR_UNKNOWN],
    ['policy', nbd.NBD_REP_ERR_POLICY],
    ['tls-required', nbd.NBD_REP_ERR_TLS_REQD],
    ['shutdown', nbd.NBD_REP_ERR_SHUTDOWN],
  ] as const)('a refusal "%s" is answered and the client may go on', (refused, type) => {
    const negotiation = new ServerNegotiation({ tls: 'optional' });
    negotiation.feed(FIXED);
    expect(negotiation.feed(go('x'))).toEqual([{ kind: 'need-export', name: 'x', purpose: 'go' }]);
    const steps = negotiation.resumeExport({ refused, message: 'no' });
    expect(steps).toHaveLength(1);
    expect(steps[0]?.kind === 'send' ? steps[0].bytes.readUInt32BE(12) : 0).toBe(type);
    expect(negotiation.isOver).toBe(false);
  });

  it('refuses what is not well formed', () => {
    const tooManyWanted = encodeInfoRequest('vol', []);
    tooManyWanted.writeUInt16BE(9, tooManyWanted.length - 2);
    const longName = encodeInfoRequest('vol', []);
    longName.writeUInt32BE(4000, 0);
    const driver = new NegotiationDriver().feed(FIXED);
    for (const data of [tooManyWanted, longName, Buffer.alloc(3), encodeInfoRequest('a\0b', [])])
      driver.feed(encodeOption(nbd.NBD_OPT_GO, data));
    driver.feed(go('n'.repeat(5000)));
    expect(driver.types()).toEqual([...Array(4).fill(nbd.NBD_REP_ERR_INVALID), nbd.NBD_REP_ERR_TOO_BIG]);
  });
});

describe('LIST, ABORT, unknown options', () => {
  it('lists names and descriptions', () => {
    const driver = new NegotiationDriver(
      { tls: 'off' },
      new Map([exportInfo('a'), exportInfo('ü')].map((info) => [info.canonicalName, info])),
    );
    driver.feed(FIXED).feed(encodeOption(nbd.NBD_OPT_LIST));
    expect(driver.types()).toEqual([nbd.NBD_REP_SERVER, nbd.NBD_REP_SERVER, nbd.NBD_REP_ACK]);
    expect(decodeServerEntry(driver.replies()[1]?.data ?? Buffer.alloc(0))).toEqual({ name: 'ü', description: 'volume ü' });
    expect(
      driver
        .feed(encodeOption(nbd.NBD_OPT_LIST, Buffer.alloc(1)))
        .types()
        .at(-1),
    ).toBe(nbd.NBD_REP_ERR_INVALID);
  });

  it('acknowledges ABORT and closes', () => {
    const driver = new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_ABORT, Buffer.from('bye')));
    expect(driver.types()).toEqual([nbd.NBD_REP_ACK]);
    expect(driver.outcome.closed?.reason).toBe('client-abort');
    expect(driver.negotiation.feed(STRUCTURED)).toEqual([]);
  });

  it('refuses an unknown option and goes on', () => {
    const driver = new NegotiationDriver()
      .feed(FIXED)
      .feed(encodeOption(4711, Buffer.from('what')))
      .feed(go('vol'));
    expect(driver.types()[0]).toBe(nbd.NBD_REP_ERR_UNSUP);
    expect(driver.outcome.transmission).not.toBeNull();
  });
});

describe('structured replies and extended headers', () => {
  it('extended headers include structured replies and cannot be taken back', () => {
    const driver = new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_EXTENDED_HEADERS)).feed(STRUCTURED).feed(go('vol'));
    expect(driver.types().slice(0, 2)).toEqual([nbd.NBD_REP_ACK, nbd.NBD_REP_ERR_EXT_HEADER_REQD]);
    expect(driver.outcome.transmission).toMatchObject({ structuredReplies: true, extendedHeaders: true });
  });

  it('can be switched off', () => {
    const driver = new NegotiationDriver({ tls: 'off', extendedHeaders: false })
      .feed(FIXED)
      .feed(encodeOption(nbd.NBD_OPT_EXTENDED_HEADERS));
    expect(driver.types()).toEqual([nbd.NBD_REP_ERR_UNSUP]);
  });

  it('take no data', () => {
    const driver = new NegotiationDriver().feed(FIXED);
    driver
      .feed(encodeOption(nbd.NBD_OPT_EXTENDED_HEADERS, Buffer.alloc(1)))
      .feed(encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(1)));
    expect(driver.types()).toEqual([nbd.NBD_REP_ERR_INVALID, nbd.NBD_REP_ERR_INVALID]);
  });
});

describe('metadata contexts', () => {
  it('need structured replies', () => {
    expect(
      new NegotiationDriver()
        .feed(FIXED)
        .feed(setContexts('vol', ['base:allocation']))
        .types(),
    ).toEqual([nbd.NBD_REP_ERR_INVALID]);
  });

  it('are listed by whole name and by wildcard, all of them without a query', () => {
    const list = (queries: string[]): string[] =>
      contextNames(new NegotiationDriver().feed(FIXED).feed(STRUCTURED).feed(listContexts('vol', queries)));
    expect(list([])).toEqual(['base:allocation', 'twinvol:dirty', 'qemu:dirty-bitmap:vol']);
    expect(list(['base:'])).toEqual(['base:allocation']);
    expect(list(['twinvol:', 'base:allocation'])).toEqual(['base:allocation', 'twinvol:dirty']);
    expect(list(['qemu:dirty-bitmap:'])).toEqual(['qemu:dirty-bitmap:vol']);
    expect(list(['x-other:', 'base:nothing'])).toEqual([]);
  });

  it('are selected by whole name, with unique ids, for the export that GO names', () => {
    const driver = new NegotiationDriver().feed(FIXED).feed(STRUCTURED);
    driver.feed(setContexts('vol', ['qemu:dirty-bitmap:vol', 'base:allocation', 'base:allocation', 'base:', 'y:z'])).feed(go('vol'));
    expect(contextNames(driver)).toEqual(['base:allocation', 'qemu:dirty-bitmap:vol']);
    expect(driver.outcome.transmission?.metaContexts).toEqual([
      { id: 0, name: 'base:allocation' },
      { id: 1, name: 'qemu:dirty-bitmap:vol' },
    ]);
  });

  it('do not count when GO names another export, or when a later request failed', () => {
    const exports = new Map([exportInfo('vol'), exportInfo('two')].map((info) => [info.canonicalName, info]));
    const start = (): NegotiationDriver =>
      new NegotiationDriver({ tls: 'off' }, exports)
        .feed(FIXED)
        .feed(STRUCTURED)
        .feed(setContexts('vol', ['base:allocation']));
    expect(start().feed(go('two')).outcome.transmission?.metaContexts).toEqual([]);
    expect(
      start()
        .feed(setContexts('vol', ['nocolon']))
        .feed(go('vol')).outcome.transmission?.metaContexts,
    ).toEqual([]);
    expect(start().feed(setContexts('vol', [])).feed(go('vol')).outcome.transmission?.metaContexts).toEqual([]);
    expect(start().feed(listContexts('vol', [])).feed(go('vol')).outcome.transmission?.metaContexts).toHaveLength(1);
  });
});

describe('TLS', () => {
  it('off: STARTTLS is refused and clear text goes on', () => {
    const driver = new NegotiationDriver().feed(FIXED).feed(encodeOption(nbd.NBD_OPT_STARTTLS)).feed(go('vol'));
    expect(driver.types()[0]).toBe(nbd.NBD_REP_ERR_POLICY);
    expect(driver.outcome.transmission).not.toBeNull();
  });

  it('required: everything but STARTTLS and ABORT is refused until it runs, and never afterwards', () => {
    const driver = new NegotiationDriver({ tls: 'required' }).feed(FIXED);
    driver
      .feed(encodeOption(nbd.NBD_OPT_LIST))
      .feed(encodeOption(99))
      .feed(go('vol'))
      .feed(encodeOption(99, Buffer.alloc(20_000)));
    expect(driver.types()).toEqual(Array(4).fill(nbd.NBD_REP_ERR_TLS_REQD));
    driver.feed(encodeOption(nbd.NBD_OPT_STARTTLS));
    expect(driver.outcome.tlsStarts).toBe(1);
    driver.feed(encodeOption(nbd.NBD_OPT_STARTTLS)).feed(go('vol'));
    expect(driver.types().slice(4, 6)).toEqual([nbd.NBD_REP_ACK, nbd.NBD_REP_ERR_INVALID]);
    expect(driver.outcome.transmission).not.toBeNull();
  });

  it('required: EXPORT_NAME in clear text ends the connection', () => {
    const driver = new NegotiationDriver({ tls: 'required' }).feed(FIXED).feed(encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from('vol')));
    expect(driver.outcome.closed?.reason).toBe('tls-required');
  });

  it('a single export that insists on it says so to INFO and GO only, and never once TLS runs', () => {
    const refused = { refused: 'tls-required', message: 'only with TLS' } as const;
    const typeOf = (tlsActive: boolean, option: Buffer): number => {
      const negotiation = new ServerNegotiation({ tls: 'optional', tlsActive });
      negotiation.feed(Buffer.concat([FIXED, STRUCTURED, option]));
      const [step] = negotiation.resumeExport(refused);
      return step?.kind === 'send' ? step.bytes.readUInt32BE(12) : 0;
    };
    expect(typeOf(false, go('vol'))).toBe(nbd.NBD_REP_ERR_TLS_REQD);
    expect(typeOf(false, setContexts('vol', []))).toBe(nbd.NBD_REP_ERR_POLICY);
    expect(typeOf(true, go('vol'))).toBe(nbd.NBD_REP_ERR_POLICY);
  });

  it('forgets what was negotiated before', () => {
    const driver = new NegotiationDriver({ tls: 'optional' })
      .feed(FIXED)
      .feed(STRUCTURED)
      .feed(setContexts('vol', ['base:allocation']));
    driver.feed(encodeOption(nbd.NBD_OPT_STARTTLS)).feed(go('vol'));
    expect(driver.outcome.transmission).toMatchObject({ structuredReplies: false, metaContexts: [] });
  });

  it('closes when clear text was slipped in behind STARTTLS', () => {
    const driver = new NegotiationDriver({ tls: 'optional' })
      .feed(FIXED)
      .feed(Buffer.concat([encodeOption(nbd.NBD_OPT_STARTTLS), go('vol')]));
    expect(driver.outcome).toMatchObject({ tlsStarts: 0, closed: { reason: 'protocol' }, transmission: null });
  });
});

describe('limits', () => {
  it('skips the data of a long option and refuses it; an absurd one ends the connection', () => {
    const driver = new NegotiationDriver()
      .feed(FIXED)
      .feed(encodeOption(nbd.NBD_OPT_INFO, Buffer.alloc(100_000)))
      .feed(STRUCTURED);
    expect(driver.types()).toEqual([nbd.NBD_REP_ERR_TOO_BIG, nbd.NBD_REP_ACK]);
    const header = encodeOption(nbd.NBD_OPT_INFO);
    header.writeUInt32BE(0xffff_ffff, 12);
    expect(driver.feed(header).outcome.closed?.reason).toBe('limit');
  });

  it('cuts off a client that guesses, lists for ever, or floods while an answer is pending', () => {
    const guesser = new NegotiationDriver({ tls: 'off', limits: { refusalsMax: 10 } }).feed(FIXED);
    for (let guess = 0; guess < 20; guess += 1) guesser.feed(go(`guess${guess}`));
    expect(guesser.outcome.closed?.reason).toBe('limit');
    const lister = new NegotiationDriver({ tls: 'off', limits: { listsMax: 3 } }).feed(FIXED);
    for (let list = 0; list < 6; list += 1) lister.feed(encodeOption(nbd.NBD_OPT_LIST));
    expect(lister.outcome.closed?.reason).toBe('limit');
    const negotiation = new ServerNegotiation({ tls: 'off' });
    negotiation.feed(Buffer.concat([FIXED, go('vol')]));
    const steps = negotiation.feed(Buffer.alloc(300_000));
    expect(steps[0]).toMatchObject({ kind: 'close', reason: 'limit' });
    expect(negotiation.resumeExport(exportInfo('vol'))).toEqual([]);
  });

  it('keeps no reference to the buffer that it was fed from', () => {
    const driver = new NegotiationDriver();
    const reused = Buffer.alloc(64);
    for (const byte of Buffer.concat([FIXED, go('vol')])) {
      reused[0] = byte;
      driver.feed(reused.subarray(0, 1));
      reused.fill(0xee);
    }
    expect(driver.outcome.transmission?.exportName).toBe('vol');
  });
});
