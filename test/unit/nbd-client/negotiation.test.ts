/** The client's handshake against our own server's, without a socket, and against servers that are old, odd or wrong. */
import { describe, expect, it } from 'vitest';
import * as nbd from '../../../src/wire/nbd-constants.ts';
import * as codec from '../../../src/wire/nbd-handshake.ts';
import { type ClientStep, type NegotiationWish, negotiateExport, negotiateList } from '../../../src/nbd-client/negotiation.ts';
import { NbdError, type NbdErrorCode } from '../../../src/nbd-client/nbd-error.ts';
import type { NegotiationPolicy } from '../../../src/wire/nbd-negotiation-steps.ts';
import { NegotiationDriver, exportInfo } from '../../support/negotiation-driver.ts';

const WISH: NegotiationWish = {
  exportName: 'vol',
  tls: false,
  structuredReplies: true,
  extendedHeaders: true,
  metaContexts: ['base:allocation', 'x:none'],
};

type Handshake<Result> = Generator<ClientStep, Result, Buffer>;

/** Runs the coroutine; `answer` gets what it sends and gives what comes back. */
const drive = <Result>(client: Handshake<Result>, first: Buffer, answer: (sent: Buffer) => Buffer): Result => {
  let received = first;
  let turn = client.next();
  while (turn.done !== true) {
    const step = turn.value;
    let resumed: Buffer = Buffer.alloc(0);
    if (step.kind === 'send') received = Buffer.concat([received, answer(step.bytes)]);
    if (step.kind === 'need') {
      if (received.length < step.bytes) throw new Error('the server says no more');
      resumed = received.subarray(0, step.bytes);
      received = received.subarray(step.bytes);
    }
    turn = client.next(resumed);
  }
  return turn.value;
};

const againstOurs = <Result>(
  client: Handshake<Result>,
  policy: NegotiationPolicy = { tls: 'off' },
): { result: Result; server: NegotiationDriver } => {
  const server = new NegotiationDriver(policy, new Map([['vol', exportInfo('vol')]]));
  let told = 0;
  const result = drive(client, server.negotiation.greeting(), (sent) => {
    server.feed(sent);
    const news = server.outcome.sent.subarray(told);
    told = server.outcome.sent.length;
    return news;
  });
  return { result, server };
};

const failing = (run: () => unknown): NbdErrorCode | null => {
  try {
    run();
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(NbdError);
    return (error as NbdError).code;
  }
};

/** A server of fixed newstyle that answers each option from a table, and others with UNSUP. */
const tableServer =
  (table: Record<number, (data: Buffer) => Buffer[]>) =>
  (sent: Buffer): Buffer => {
    if (sent.length === 4) return Buffer.alloc(0);
    const option = sent.readUInt32BE(8);
    const answer = table[option]?.(sent.subarray(16)) ?? [codec.encodeOptionReply(option, nbd.NBD_REP_ERR_UNSUP)];
    return Buffer.concat(answer);
  };
const GREETING = codec.encodeGreeting(3);

describe('against our own server', () => {
  it('settles on extended headers, contexts and all information', () => {
    const { result, server } = againstOurs(negotiateExport(WISH));
    expect(result).toMatchObject({
      canonicalName: 'vol',
      description: 'volume vol',
      sizeBytes: 10 * 1024 ** 3,
      mode: 2,
      metaContexts: [{ id: 0, name: 'base:allocation' }],
    });
    expect(server.outcome.transmission).toMatchObject({ extendedHeaders: true, exportName: 'vol' });
  });

  it('falls back to structured and to simple replies', () => {
    expect(againstOurs(negotiateExport(WISH), { tls: 'off', extendedHeaders: false }).result.mode).toBe(1);
    const simple = againstOurs(negotiateExport({ ...WISH, extendedHeaders: false, structuredReplies: false })).result;
    expect(simple).toMatchObject({ mode: 0, metaContexts: [] });
  });

  it('starts TLS first', () => {
    const { server } = againstOurs(negotiateExport({ ...WISH, tls: true }), { tls: 'required' });
    expect(server.outcome).toMatchObject({ tlsStarts: 1, closed: null });
    expect(server.replies()[0]).toMatchObject({ option: nbd.NBD_OPT_STARTTLS });
  });

  it('says when TLS is missing on one side', () => {
    expect(failing(() => againstOurs(negotiateExport({ ...WISH, tls: true })))).toBe('NBD_TLS');
    expect(failing(() => againstOurs(negotiateExport(WISH), { tls: 'required' }))).toBe('NBD_TLS');
    expect(failing(() => againstOurs(negotiateList(false), { tls: 'required' }))).toBe('NBD_TLS');
  });

  it('says that the export is refused', () => {
    expect(failing(() => againstOurs(negotiateExport({ ...WISH, exportName: 'other' })))).toBe('NBD_REFUSED');
  });

  it('lists the exports and takes leave', () => {
    const { result, server } = againstOurs(negotiateList(false));
    expect(result).toEqual([{ name: 'vol', description: 'volume vol' }]);
    expect(server.outcome.closed?.reason).toBe('client-abort');
  });
});

describe('against other servers', () => {
  const exportNameReply = (noZeroes: boolean): Buffer => codec.encodeExportNameReply(4096, nbd.NBD_FLAG_HAS_FLAGS, noZeroes);
  const ack = (option: number): Buffer => codec.encodeOptionReply(option, nbd.NBD_REP_ACK);

  it('uses EXPORT_NAME where GO is not known, and where there is no fixed newstyle', () => {
    const old = (sent: Buffer): Buffer =>
      sent.length > 4 && sent.readUInt32BE(8) === nbd.NBD_OPT_EXPORT_NAME ? exportNameReply(false) : Buffer.alloc(0);
    expect(drive(negotiateExport(WISH), codec.encodeGreeting(0), old)).toMatchObject({ sizeBytes: 4096, mode: 0, description: null });
    const noGo = tableServer({ [nbd.NBD_OPT_EXPORT_NAME]: () => [exportNameReply(true)] });
    expect(drive(negotiateExport(WISH), GREETING, noGo)).toMatchObject({ sizeBytes: 4096, mode: 0 });
  });

  it('ignores information and handshake flags that it does not know', () => {
    const info = (data: Buffer): Buffer => codec.encodeOptionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, data);
    const answer = tableServer({
      [nbd.NBD_OPT_GO]: () => [info(Buffer.from([0x12, 0x34, 5])), info(codec.encodeInfoExport(99, 1)), ack(nbd.NBD_OPT_GO)],
    });
    expect(drive(negotiateExport(WISH), codec.encodeGreeting(0xff03), answer).sizeBytes).toBe(99);
  });

  it('refuses oldstyle and what is no NBD server', () => {
    const oldstyle = Buffer.alloc(152);
    oldstyle.write('NBDMAGIC');
    oldstyle.writeBigUInt64BE(0x420281861253n, 8);
    expect(failing(() => drive(negotiateExport(WISH), oldstyle, () => Buffer.alloc(0)))).toBe('NBD_PROTOCOL');
    expect(failing(() => drive(negotiateExport(WISH), Buffer.from('HTTP/1.1 400 Bad Request'), () => Buffer.alloc(0)))).toBe(
      'NBD_PROTOCOL',
    );
  });

  const go = (...replies: Array<[number, Buffer | null]>) =>
    tableServer({ [nbd.NBD_OPT_GO]: () => replies.map(([type, data]) => codec.encodeOptionReply(nbd.NBD_OPT_GO, type, data)) });
  it.each<[string, NbdErrorCode, (sent: Buffer) => Buffer]>([
    ['an acknowledgement without a size', 'NBD_PROTOCOL', go([nbd.NBD_REP_ACK, null])],
    ['a broken information', 'NBD_PROTOCOL', go([nbd.NBD_REP_INFO, Buffer.alloc(3)])],
    ['a reply type of another option', 'NBD_PROTOCOL', go([nbd.NBD_REP_SERVER, null])],
    [
      'impossible block sizes',
      'NBD_PROTOCOL',
      go([nbd.NBD_REP_INFO, codec.encodeInfoBlockSize({ minimumBytes: 3, preferredBytes: 4096, maximumBytes: 4096 })]),
    ],
    [
      'an export beyond 2^53',
      'NBD_PROTOCOL',
      go([nbd.NBD_REP_INFO, Buffer.from('0000ffffffffffffffff0001', 'hex')], [nbd.NBD_REP_ACK, null]),
    ],
    ['a server that stops', 'NBD_ESHUTDOWN', go([nbd.NBD_REP_ERR_SHUTDOWN, null])],
    ['a policy', 'NBD_REFUSED', go([nbd.NBD_REP_ERR_POLICY, Buffer.from('not you')])],
    ['a reply to another option', 'NBD_PROTOCOL', () => ack(4711)],
    [
      'a reply of 4 GiB',
      'NBD_PROTOCOL',
      (sent) => (sent.length === 4 ? Buffer.alloc(0) : Buffer.from(`0003e889045565a9${'0000000b'}00000001ffffffff`, 'hex')),
    ],
    ['a wrong reply magic', 'NBD_PROTOCOL', (sent) => (sent.length === 4 ? Buffer.alloc(0) : Buffer.alloc(20))],
  ])('%s is %s', (_, code, answer) => {
    expect(failing(() => drive(negotiateExport(WISH), GREETING, answer))).toBe(code);
  });
});
