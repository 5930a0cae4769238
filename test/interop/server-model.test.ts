/**
 * The data path against a plain buffer: whatever mix of commands several connections send at once, the volume holds
 * what the buffer holds. Offsets and lengths are odd on purpose, so that requests cross blocks, runs and files.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import type { NbdClient } from '../../src/nbd-client/nbd-client.ts';
import { BOTH_KINDS, startNbdServer } from '../support/nbd-server-process.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const CAPACITY_BYTES = 12 * MiB;

const COMMANDS = ['read', 'write', 'write', 'write-fua', 'trim', 'zero', 'zero-no-hole', 'zero-fua', 'cache', 'status', 'flush'] as const;
type Command = (typeof COMMANDS)[number];
type Step = { readonly gap: number; readonly length: number; readonly command: Command; readonly client: number };

const step: fc.Arbitrary<Step> = fc.record({
  gap: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 50_000 }) }),
  length: fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 5000 }) },
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 100_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 250_000, max: 1_300_000 }) },
  ),
  command: fc.constantFrom(...COMMANDS),
  client: fc.nat(3),
});
const round = fc.record({ first: fc.nat(100_000), steps: fc.array(step, { minLength: 1, maxLength: 64 }) });

/** Bytes that belong to one write only. */
const filling = (length: number, seed: number): Buffer => {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at += 1) bytes[at] = ((at * 31 + seed * 131) ^ (at >>> 8)) & 0xff;
  return bytes;
};

type Place = { readonly offset: number; readonly length: number };
const isZero = (bytes: Buffer): boolean => bytes.every((byte) => byte === 0);
const same = (found: Buffer, wanted: Buffer, what: string): void => {
  if (!found.equals(wanted))
    throw new Error(`${what}: byte ${found.findIndex((byte, at) => byte !== wanted[at])} of ${found.length} differs`);
};

/** Carries a command out on the client and at once on the model: nobody else is at this place in this round. */
const perform = async (client: NbdClient, model: Buffer, command: Command, { offset, length }: Place, seed: number): Promise<void> => {
  const part = model.subarray(offset, offset + length);
  switch (command) {
    case 'read':
      return same(await client.read(offset, length), part, `read of ${length} at ${offset}`);
    case 'write':
    case 'write-fua': {
      const data = filling(length, seed);
      data.copy(part);
      return client.write(offset, data, { fua: command === 'write-fua' });
    }
    case 'trim':
      part.fill(0);
      return client.trim(offset, length);
    case 'zero':
    case 'zero-no-hole':
    case 'zero-fua':
      part.fill(0);
      return client.writeZeroes(offset, length, { noHole: command === 'zero-no-hole', fua: command === 'zero-fua' });
    case 'cache':
      return client.cache(offset, length);
    case 'flush':
      return client.flush();
    case 'status': {
      const extents = (await client.blockStatus(offset, length)).get('base:allocation') ?? [];
      let at = offset;
      for (const extent of extents) {
        expect(extent.offset).toBe(at);
        at += extent.length;
        if ((extent.flags & 2) !== 0 && !isZero(model.subarray(extent.offset, at)))
          throw new Error(`data at ${extent.offset} is called zero`);
      }
      return expect(at).toBe(offset + length);
    }
  }
};

it.each(BOTH_KINDS)('any mix of commands on four connections leaves what a plain buffer would hold: $kind', async ({ native }) => {
  await using server = await startNbdServer({
    native,
    tcp: true,
    durability: 'power',
    volumes: [{ name: 'v', capacityBytes: CAPACITY_BYTES }],
  });
  const clients = await Promise.all([
    connect(server.uri('v')),
    connect({ uri: server.tcpUri('v'), extendedHeaders: false }),
    connect({ uri: server.uri('v'), structuredReplies: false }),
    connect(server.tcpUri('v')),
  ]);
  // The third speaks simple replies and cannot ask for block status.
  const model = Buffer.alloc(CAPACITY_BYTES);
  let seed = 0;
  await fc.assert(
    fc.asyncProperty(round, async ({ first, steps }) => {
      const pending: Array<Promise<void>> = [];
      let at = first;
      for (const { gap, length, command, client } of steps) {
        at += gap;
        if (at + length > CAPACITY_BYTES) break;
        seed += 1;
        const chosen = clients[command === 'status' && client === 2 ? 0 : client] as NbdClient;
        pending.push(perform(chosen, model, command, { offset: at, length }, seed));
        at += length;
      }
      await Promise.all(pending);
      const end = Math.min(CAPACITY_BYTES, at);
      if (end > first)
        same(await (clients[first % 4] as NbdClient).read(first, end - first), model.subarray(first, end), 'after the round');
    }),
    { numRuns: 60, endOnFailure: true },
  );
  same(await clients[0].read(0, CAPACITY_BYTES), model, 'at the end');
  await Promise.all(clients.map((client) => client.disconnect()));
});

const overlapping = fc.array(
  fc.record({ offset: fc.nat(200_000), length: fc.integer({ min: 1, max: 100_000 }), client: fc.nat(3), isZero: fc.boolean() }),
  {
    minLength: 2,
    maxLength: 40,
  },
);

it('writes that overlap on four connections leave bytes of these writes only, and both legs of a pair alike', async () => {
  await using server = await startNbdServer({
    volumes: [
      { name: 'p', capacityBytes: 2 * MiB },
      { name: 's', capacityBytes: 2 * MiB },
    ],
    pair: { primary: 0, secondary: 1 },
  });
  await server.call('pairsSwitch', [{ id: 1, mode: 'mirroring', dirty: 'clear' }]);
  const clients = await Promise.all([0, 1, 2, 3].map(() => connect(server.uri('p'))));
  const secondary = await connect(server.uri('s'));
  const area = 300_000;
  await fc.assert(
    fc.asyncProperty(overlapping, async (writes) => {
      const before = await (clients[0] as NbdClient).read(0, area);
      await Promise.all(
        writes.map(({ offset, length, client, isZero: isZeroing }, index) =>
          isZeroing
            ? (clients[client] as NbdClient).writeZeroes(offset, length)
            : (clients[client] as NbdClient).write(offset, Buffer.alloc(length, index + 1)),
        ),
      );
      const after = await (clients[1] as NbdClient).read(0, area);
      same(await secondary.read(0, area), after, 'the secondary');
      for (let at = 0; at < area; at += 97) {
        const over = writes.flatMap(({ offset, length, isZero: isZeroing }, index) =>
          offset <= at && at < offset + length ? [isZeroing ? 0 : index + 1] : [],
        );
        const allowed = over.length === 0 ? [before[at]] : over;
        if (!allowed.includes(after[at])) throw new Error(`byte ${at} is ${after[at]}, and not one of ${allowed.join(', ')}`);
      }
    }),
    { numRuns: 40, endOnFailure: true },
  );
  await Promise.all([...clients, secondary].map((client) => client.disconnect()));
});
