/**
 * The client's receiver under any split of the reply stream, with the socket reading into its buffers as it does in
 * life: every call gets exactly its bytes and extents; garbage breaks the connection once and never throws.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Call } from '../../src/nbd-client/call.ts';
import { ReplyReceiver } from '../../src/nbd-client/reply-receiver.ts';
import { BlockStatusWriter } from '../../src/wire/nbd-block-status.ts';
import * as nbd from '../../src/wire/nbd-constants.ts';
import {
  NbdRequest,
  REPLY_SIMPLE,
  type ReplyMode,
  writeDone,
  writeError,
  writeNone,
  writeOffsetData,
  writeOffsetHole,
  writeReadHeader,
} from '../../src/wire/nbd-transmission.ts';

type Planned = { kind: 'read' | 'pieces' | 'write' | 'error' | 'status'; offset: number; length: number };

const byteAt = (offset: number): number => ((offset * 31) >> 3) & 0xff;
const dataOf = (offset: number, length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, index) => byteAt(offset + index)));

const requestOf = (planned: Planned, slot: number): NbdRequest => {
  const types = {
    read: nbd.NBD_CMD_READ,
    pieces: nbd.NBD_CMD_READ,
    write: nbd.NBD_CMD_WRITE,
    error: nbd.NBD_CMD_READ,
    status: nbd.NBD_CMD_BLOCK_STATUS,
  };
  return Object.assign(new NbdRequest(), {
    type: types[planned.kind],
    offset: planned.offset,
    length: planned.length,
    cookieHigh: -5,
    cookieLow: slot,
  });
};

/** The chunks of one reply, each of which may have chunks of other replies before it. */
const chunksOf = (planned: Planned, slot: number, mode: ReplyMode): Buffer[] => {
  const request = requestOf(planned, slot);
  const written = (write: (into: Buffer) => number, data: Buffer = Buffer.alloc(0)): Buffer => {
    const into = Buffer.alloc(1024);
    return Buffer.concat([into.subarray(0, write(into)), data]);
  };
  const { offset, length } = planned;
  switch (planned.kind) {
    case 'write':
      return [written((into) => writeDone(into, 0, mode, request))];
    case 'error':
      return [written((into) => writeError(into, 0, mode, request, nbd.NBD_EIO, 'broken'))];
    case 'status': {
      const writer = new BlockStatusWriter();
      return [
        written((into) => {
          writer.begin(into, 0, into.length, mode, request, 3);
          writer.add(Math.ceil(length / 2), 1);
          writer.add(length, 0);
          return writer.end(nbd.NBD_REPLY_FLAG_DONE);
        }),
      ];
    }
    case 'pieces': {
      const half = Math.floor(length / 2);
      if (mode === REPLY_SIMPLE || half === 0) break;
      return [
        written((into) => writeOffsetHole(into, 0, mode, request, 0, offset + half, length - half)),
        written((into) => writeOffsetData(into, 0, mode, request, 0, offset, half), dataOf(offset, half)),
        written((into) => writeNone(into, 0, mode, request)),
      ];
    }
    default:
  }
  return [written((into) => writeReadHeader(into, 0, mode, request), dataOf(offset, length))];
};

const planned = fc.record({
  kind: fc.constantFrom('read' as const, 'pieces' as const, 'write' as const, 'error' as const, 'status' as const),
  offset: fc.nat(2 ** 40),
  length: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 30_000, max: 140_000 })),
});

const run = (mode: ReplyMode, plans: readonly Planned[], order: readonly number[], reads: readonly number[]) => {
  const broken: string[] = [];
  const results: string[] = plans.map(() => 'open');
  const targets = plans.map((plan) => Buffer.alloc(plan.length, 0xcc));
  const calls: Array<Call | null> = plans.map((plan, slot) => {
    const { type, offset, length } = requestOf(plan, slot);
    return new Call(
      type,
      0,
      offset,
      length,
      null,
      type === nbd.NBD_CMD_READ ? (targets[slot] ?? null) : null,
      (error) => (results[slot] = error?.code ?? 'done'),
    );
  });
  const kept = [...calls];
  const receiver = new ReplyReceiver(mode, {
    callOf: (high, low) => (high === -5 ? (calls[low] ?? null) : null),
    onDone: (_, low) => {
      const call = calls[low];
      calls[low] = null;
      call?.finish();
    },
    onBroken: (why) => broken.push(why),
  });
  const queues = plans.map((plan, slot) => chunksOf(plan, slot, mode));
  const stream: Buffer[] = [];
  for (const pick of order) stream.push(queues[pick % Math.max(1, queues.length)]?.shift() ?? Buffer.alloc(0));
  for (const queue of queues) stream.push(...queue);
  const bytes = Buffer.concat(stream);
  let at = 0;
  for (let turn = 0; at < bytes.length; turn += 1) {
    const buffer = receiver.nextBuffer();
    const taken = Math.min(buffer.length, bytes.length - at, reads[turn % reads.length] ?? 1);
    bytes.copy(buffer, 0, at, at + taken);
    receiver.receive(buffer, taken);
    at += taken;
  }
  return { broken, results, targets, calls: kept };
};

const mode = fc.constantFrom<ReplyMode>(0, 1, 2);
const reads = fc.array(fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1000, max: 300_000 })), { minLength: 1, maxLength: 8 });

describe('the reply stream', () => {
  it('comes apart the same however it is split', () => {
    fc.assert(
      fc.property(
        mode,
        fc.array(planned, { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(20), { maxLength: 20 }),
        reads,
        (replyMode, asked, order, sizes) => {
          const plans = replyMode === REPLY_SIMPLE ? asked.filter((plan) => plan.kind !== 'status') : asked;
          const { broken, results, targets, calls } = run(replyMode, plans, order, sizes);
          expect(broken).toEqual([]);
          plans.forEach((plan, slot) => {
            expect(results[slot]).toBe(plan.kind === 'error' ? 'NBD_EIO' : 'done');
            const whole = dataOf(plan.offset, plan.length);
            if (plan.kind === 'pieces' && replyMode !== REPLY_SIMPLE && plan.length > 1) whole.fill(0, Math.floor(plan.length / 2));
            if (plan.kind === 'read' || plan.kind === 'pieces') expect(targets[slot]?.equals(whole)).toBe(true);
            if (plan.kind === 'status') {
              const first = Math.ceil(plan.length / 2);
              expect(calls[slot]?.extents?.get(3)?.[0]).toEqual({ offset: plan.offset, length: first, flags: 1 });
            }
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  it('breaks once on garbage, and never throws', () => {
    fc.assert(
      fc.property(
        mode,
        fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }),
        fc.array(planned, { maxLength: 3 }),
        fc.nat(200),
        (replyMode, pieces, plans, at) => {
          const good = Buffer.concat(
            plans.flatMap((plan, slot) => (replyMode === REPLY_SIMPLE && plan.kind === 'status' ? [] : chunksOf(plan, slot, replyMode))),
          );
          const mangled = Buffer.concat([good.subarray(0, Math.min(at, good.length)), ...pieces, good.subarray(Math.min(at, good.length))]);
          let breaks = 0;
          const call = new Call(nbd.NBD_CMD_READ, 0, 0, 1000, null, Buffer.alloc(1000), () => {});
          const receiver = new ReplyReceiver(replyMode, { callOf: () => call, onDone: () => {}, onBroken: () => (breaks += 1) });
          for (let from = 0; from < mangled.length; from += 37)
            receiver.receive(mangled.subarray(from, from + 37), Math.min(37, mangled.length - from));
          expect(breaks).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 300 },
    );
  });
});
