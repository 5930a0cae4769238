/**
 * A consistency group under load: several chains of writes run across the group's primaries at once, each chain over
 * connections of its own, and a chain's next write is issued only when its last one was acknowledged. Whenever the group
 * is split, the secondaries hold a cut through what was written that no host could tell from a power failure of all
 * primaries at one moment:
 *   - no write acknowledged before the split was asked for is missing, none issued after it was done is there;
 *   - no write is there in part, and each chain is there up to some point and not beyond;
 *   - a write that is there has with it everything that was acknowledged, on whichever primary, before it was issued.
 */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { openDevice } from '../../src/index.ts';
import type { Device, Pair, Volume } from '../../src/index.ts';
import { failure } from '../support/pair-device.ts';

const MEMBERS = 4;
const CHAINS = 6;
const ROUNDS = 4;
const SLOT_BYTES = 32 * KiB;
const VOLUME_BYTES = 64 * MiB;
/** Short writes, and such as lie across the borders of dirty regions and granules in parts. */
const LENGTHS = [4 * KiB, SLOT_BYTES, 12 * KiB];

type Write = {
  readonly member: number;
  readonly slot: number;
  readonly chain: number;
  /** Number within its chain, from 0. */
  readonly step: number;
  readonly length: number;
  /** Moments on one logical clock; `ackedAt` is infinite while it is under way. */
  readonly issuedAt: number;
  ackedAt: number;
};

/** Every 4 KiB of it say which write it is. */
const bytesOf = ({ chain, step, length }: Write): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4 * KiB) {
    bytes.writeUInt32LE(chain + 1, at);
    bytes.writeUInt32LE(step + 1, at + 4);
    bytes.writeUInt32LE(at + 1, at + 8);
  }
  return bytes;
};

class Load {
  readonly writes: Write[] = [];
  clock = 0;
  acked = 0;
  #isOver = false;
  readonly #members: readonly Volume[];
  readonly #nextSlot: number[];
  readonly #running: Promise<void>[];

  constructor(members: readonly Volume[], firstSlots: readonly number[]) {
    this.#members = members;
    this.#nextSlot = [...firstSlots];
    this.#running = Array.from({ length: CHAINS }, (_, chain) => this.#chain(chain));
  }

  get nextSlots(): readonly number[] {
    return this.#nextSlot;
  }
  /** Waits until that many writes were acknowledged. */
  async until(acked: number): Promise<void> {
    while (this.acked < acked) await Promise.race([new Promise((resolve) => setTimeout(resolve, 1)), ...this.#running]);
  }
  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #chain(chain: number): Promise<void> {
    const clients = await Promise.all(this.#members.map((volume) => volume.connect()));
    for (let step = 0; !this.#isOver; step += 1) {
      const member = (chain + step * (chain + 1)) % this.#members.length;
      const slot = this.#nextSlot[member] as number;
      if ((slot + 1) * SLOT_BYTES > VOLUME_BYTES) throw new Error('the volumes are too small for this load');
      this.#nextSlot[member] = slot + 1;
      this.clock += 1;
      const write: Write = {
        member,
        slot,
        chain,
        step,
        length: LENGTHS[step % LENGTHS.length] as number,
        issuedAt: this.clock,
        ackedAt: Number.POSITIVE_INFINITY,
      };
      this.writes.push(write);
      await clients[member]?.write(slot * SLOT_BYTES, bytesOf(write));
      this.clock += 1;
      write.ackedAt = this.clock;
      this.acked += 1;
    }
    await Promise.all(clients.map((client) => client.disconnect()));
  }
}

/** The part of a volume in which anything was written. */
const imageOf = async (volume: Volume, slots: number): Promise<Buffer> => {
  await using client = await volume.connect();
  const parts: Buffer[] = [];
  for (let at = 0; at < slots * SLOT_BYTES; at += MiB) parts.push(await client.read(at, MiB));
  return Buffer.concat(parts);
};

/** Which writes are there; fails when one is there in part. */
const presentIn = (writes: readonly Write[], images: readonly Buffer[]): ReadonlySet<Write> => {
  const present = new Set<Write>();
  for (const write of writes) {
    const found = images[write.member]?.subarray(write.slot * SLOT_BYTES, write.slot * SLOT_BYTES + write.length) as Buffer;
    if (found.equals(bytesOf(write))) present.add(write);
    else if (!found.every((byte) => byte === 0)) throw new Error(`write ${write.step} of chain ${write.chain} is there in part`);
  }
  return present;
};

const checkCut = (writes: readonly Write[], present: ReadonlySet<Write>, askedAt: number, doneAt: number): void => {
  expect(writes.filter((write) => write.ackedAt < askedAt && !present.has(write))).toEqual([]);
  expect(writes.filter((write) => write.issuedAt > doneAt && present.has(write))).toEqual([]);
  for (let chain = 0; chain < CHAINS; chain += 1) {
    const own = writes.filter((write) => write.chain === chain);
    const length = own.findIndex((write) => !present.has(write));
    expect(own.slice(length === -1 ? own.length : length).filter((write) => present.has(write))).toEqual([]);
  }
  const firstMissingAck = Math.min(...writes.filter((write) => !present.has(write)).map(({ ackedAt }) => ackedAt));
  expect([...present].filter((write) => write.issuedAt > firstMissingAck)).toEqual([]);
};

const paired = async (device: Device, name: string, bytes: number): Promise<{ primary: Volume; secondary: Volume; pair: Pair }> => {
  const primary = await device.createVolume(name, bytes);
  const secondary = await device.createVolume(`${name}-copy`, bytes, { attribute: 'secondary' });
  const pair = await primary.pair(secondary);
  await device.engine.groupAdd({ name: 'g', primary: primary.number });
  return { primary, secondary, pair };
};

describe('a consistency group', () => {
  it('is split at one point in time, round after round, while chains of writes run across it', async () => {
    await using device = await openDevice({ pvSize: '2G', lanes: 2 });
    await device.engine.groupCreate({ name: 'g' });
    const members = await Promise.all(Array.from({ length: MEMBERS }, (_, index) => paired(device, `m${index}`, VOLUME_BYTES)));
    let slots: readonly number[] = members.map(() => 0);
    const inFlight: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const { pair } of members) {
        if (round > 0) await pair.resync();
        await pair.wait('duplex');
      }
      const load = new Load(
        members.map(({ primary }) => primary),
        slots,
      );
      await load.until(CHAINS * (10 + 7 * round));
      const askedAt = load.clock;
      const split = device.engine.groupSplit({ name: 'g' });
      const states = await split;
      const doneAt = load.clock;
      await load.until(load.acked + 4 * CHAINS);
      await load.end();
      expect(states).toHaveLength(MEMBERS);
      const images = await Promise.all(members.map(({ secondary }, index) => imageOf(secondary, load.nextSlots[index] ?? 0)));
      const present = presentIn(load.writes, images);
      checkCut(load.writes, present, askedAt, doneAt);
      inFlight.push(load.writes.filter((write) => write.issuedAt <= doneAt && write.ackedAt >= askedAt).length);
      expect(present.size).toBeGreaterThan(CHAINS);
      expect(load.writes.length - present.size).toBeGreaterThan(CHAINS);
      slots = load.nextSlots;
    }
    // Without writes under way at the moment of the split the rounds would show nothing.
    expect(Math.max(...inFlight)).toBeGreaterThan(CHAINS);
  }, 180_000);

  it('is split as a whole or not at all: one pair that cannot be split keeps the others mirroring', async () => {
    await using device = await openDevice({ pvSize: '1G', lanes: 2 });
    await device.engine.groupCreate({ name: 'g' });
    const [one, two, three] = await Promise.all(['one', 'two', 'three'].map((name) => paired(device, name, MiB)));
    if (one === undefined || two === undefined || three === undefined) throw new Error('there are three');
    const states = (): string[] => [one, two, three].map(({ pair }) => pair.state);
    for (const { pair } of [one, two, three]) await pair.wait('duplex');

    await two.pair.split();
    const refused = await failure(device.engine.groupSplit({ name: 'g' }));
    expect(refused).toMatchObject({
      code: 'PAIR_STATE',
      message: expect.stringMatching(/none of its pairs.*two -> two-copy is split/),
      details: { refused: [{ pair: 'pair two -> two-copy', state: 'split' }] },
    });
    expect((await failure(device.engine.groupSplit({ name: 'g', plan: true }))).code).toBe('PAIR_STATE');
    expect(states()).toEqual(['duplex', 'split', 'duplex']);

    await (await two.pair.resync()).wait('duplex');
    await device.engine.faultAdd({ volume: 'three-copy', error: 'write', errno: 'EIO' });
    await using client = await three.primary.connect();
    await client.write(0, Buffer.alloc(4096, 1));
    // The host's write has met the failing leg; whether the pair is called suspended by now or not, nothing is split.
    expect((await failure(device.engine.groupSplit({ name: 'g' }))).code).toBe('PAIR_STATE');
    await three.pair.wait('suspended');
    expect(states()).toEqual(['duplex', 'duplex', 'suspended']);

    await device.engine.faultClear({});
    await (await three.pair.resync()).wait('duplex');
    await using writer = await one.primary.connect();
    await writer.write(0, Buffer.alloc(4096, 9));
    await device.engine.groupSplit({ name: 'g' });
    await writer.write(0, Buffer.alloc(4096, 8));
    expect(states()).toEqual(['split', 'split', 'split']);
    await using reader = await one.secondary.connect();
    expect((await reader.read(0, 4096)).equals(Buffer.alloc(4096, 9))).toBe(true);
  });

  it('may have many pairs', async () => {
    await using device = await openDevice({ pvSize: '1G', lanes: 2 });
    await device.engine.groupCreate({ name: 'g' });
    const members: Pair[] = [];
    for (let index = 0; index < 12; index += 1) members.push((await paired(device, `v${index}`, MiB)).pair);
    for (const pair of members) await pair.wait('duplex');
    const split = await device.engine.groupSplit({ name: 'g' });
    if ('plan' in split) throw new Error('a plan was not asked for');
    expect(new Set(split.map(({ state, stateSinceMs }) => `${state} ${stateSinceMs}`)).size).toBe(1);
    expect(device.status().pairs).toMatchObject({ split: 12, duplex: 0 });
  });
});
