/**
 * The server's handshake under any bytes: how they are split changes nothing, garbage ends in a clean close or in
 * silence, and nothing that the client sends makes the machine keep more than its limits.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as nbd from '../../src/wire/nbd-constants.ts';
import { encodeClientFlags, encodeInfoRequest, encodeMetaContextRequest, encodeOption } from '../../src/wire/nbd-handshake.ts';
import { formatNbdUri, parseNbdUri } from '../../src/wire/nbd-uri.ts';
import type { NbdUri } from '../../src/wire/nbd-uri.ts';
import { NegotiationDriver, exportInfo } from '../support/negotiation-driver.ts';
import type { Outcome } from '../support/negotiation-driver.ts';

const EXPORTS = new Map(['vol', 'two', ''].map((name) => [name, exportInfo(name)]));
const name = fc.constantFrom('vol', 'two', '', 'missing', 'ünïcode');
const query = fc.constantFrom('base:allocation', 'base:', 'twinvol:dirty', 'twinvol:', 'qemu:dirty-bitmap:vol', 'x:y', 'nocolon', '');

/** One option as a client may send it: right, wrong, or nonsense. */
const option = fc.oneof(
  name.map((text) => encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from(text))),
  fc
    .tuple(fc.constantFrom(nbd.NBD_OPT_INFO, nbd.NBD_OPT_GO), name, fc.array(fc.nat(5), { maxLength: 4 }))
    .map(([which, text, wanted]) => encodeOption(which, encodeInfoRequest(text, wanted))),
  fc
    .tuple(fc.constantFrom(nbd.NBD_OPT_LIST_META_CONTEXT, nbd.NBD_OPT_SET_META_CONTEXT), name, fc.array(query, { maxLength: 3 }))
    .map(([which, text, queries]) => encodeOption(which, encodeMetaContextRequest(text, queries))),
  fc
    .constantFrom(nbd.NBD_OPT_LIST, nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_OPT_EXTENDED_HEADERS, nbd.NBD_OPT_ABORT)
    .map((which) => encodeOption(which)),
  // Not a proper STARTTLS: whether clear text was slipped in behind it does depend on what arrived by then.
  fc
    .tuple(fc.nat(20), fc.uint8Array({ maxLength: 40 }))
    .map(([which, data]) => encodeOption(which, Buffer.from(which === nbd.NBD_OPT_STARTTLS ? [0, ...data] : data))),
  fc.nat(40_000).map((bytes) => encodeOption(nbd.NBD_OPT_INFO, Buffer.alloc(bytes, 7))),
);
const conversation = fc
  .tuple(fc.constantFrom(0, 1, 2, 3, 3, 3, 3, 4), fc.array(option, { maxLength: 8 }), fc.uint8Array({ maxLength: 30 }))
  .map(([flags, options, rest]) => Buffer.concat([encodeClientFlags(flags), ...options, Buffer.from(rest)]));
const policy = fc.record({ tls: fc.constantFrom('off' as const, 'optional' as const, 'required' as const), tlsActive: fc.boolean() });

const outcomeOf = (policyOf: { tls: 'off' | 'optional' | 'required'; tlsActive: boolean }, pieces: readonly Buffer[]): Outcome => {
  const driver = new NegotiationDriver(policyOf, EXPORTS);
  for (const piece of pieces) driver.feed(piece);
  return driver.outcome;
};

const split = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, index) => bytes.subarray(from, at[index] ?? bytes.length));
};

/** Where a conversation may go on behind the handshake, the bytes read ahead depend on the split; the start does not. */
const comparable = (outcome: Outcome): unknown => ({
  ...outcome,
  transmission: outcome.transmission === null ? null : { ...outcome.transmission, readAhead: null },
});

describe('the handshake', () => {
  it('does the same however its bytes are split', () => {
    fc.assert(
      fc.property(policy, conversation, fc.array(fc.nat(), { maxLength: 12 }), (rules, bytes, cuts) => {
        expect(comparable(outcomeOf(rules, split(bytes, cuts)))).toEqual(comparable(outcomeOf(rules, [bytes])));
      }),
      { numRuns: 500 },
    );
  });

  it('does the same byte by byte, and gives everything behind the handshake on', () => {
    fc.assert(
      fc.property(conversation, (bytes) => {
        const whole = outcomeOf({ tls: 'off', tlsActive: false }, [bytes]);
        const short = bytes.subarray(0, 600);
        const single = outcomeOf(
          { tls: 'off', tlsActive: false },
          [...short].map((byte) => Buffer.from([byte])),
        );
        expect(comparable(single)).toEqual(comparable(outcomeOf({ tls: 'off', tlsActive: false }, [short])));
        const rest = whole.transmission?.readAhead;
        if (rest !== undefined) expect(bytes.subarray(bytes.length - rest.length)).toEqual(rest);
      }),
      { numRuns: 100 },
    );
  });

  it('never throws, whatever it is fed', () => {
    fc.assert(
      fc.property(policy, fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }), fc.boolean(), (rules, pieces, greets) => {
        const bytes = pieces.map((piece) => Buffer.from(piece));
        const outcome = outcomeOf(rules, greets ? [encodeClientFlags(3), ...bytes] : bytes);
        expect(outcome.closed === null || outcome.transmission === null).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

describe('NBD URIs', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 30 }).filter((value) => !value.includes('\0'));
  const where = fc.oneof(
    fc.record({
      kind: fc.constant('tcp' as const),
      host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
      port: fc.integer({ min: 1, max: 65_535 }),
    }),
    fc.record({ kind: fc.constant('unix' as const), path: text.filter((value) => value !== '') }),
  );
  it('survive being written and read', () => {
    fc.assert(
      fc.property(
        fc.record(
          { tls: fc.boolean(), where, exportName: text, tlsHostname: text, tlsCertificates: text, tlsVerifyPeer: fc.boolean() },
          { requiredKeys: ['tls', 'where', 'exportName'] },
        ),
        (parts) => {
          expect(parseNbdUri(formatNbdUri(parts as NbdUri))).toEqual(parts);
        },
      ),
      { numRuns: 300 },
    );
  });
});
