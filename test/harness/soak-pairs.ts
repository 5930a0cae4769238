/** What a soak does with pairs: commands in every state, splits in the midst of writes, legs that fail. */
import type { PairCommand } from '../../src/core/pair-matrix.ts';
import { KiB } from '../../src/core/units.ts';
import type { ModelPair } from './soak-model.ts';
import { later, type SoakWorld, STATE_MS_MAX } from './soak-world.ts';

const BURST_WRITES = 12;

export class SoakPairs {
  readonly #world: SoakWorld;

  constructor(world: SoakWorld) {
    this.#world = world;
  }

  async command(): Promise<void> {
    const random = this.#world.random;
    const pair = random.pick(this.#world.pairs);
    const command = random.weighted({ create: 4, split: 6, resync: 5, restore: 3, release: 1.5, set: 2, verify: 3 });
    this.#world.say(`pair ${command} ${pair.name} (${pair.state})`);
    const expected = pair.outcomeOf(command, this.#siblings(pair));
    const touched = command === 'restore' ? [pair.primary, pair.secondary] : [pair.secondary];
    if (command !== 'split' && command !== 'set' && command !== 'verify') await this.#world.disconnect(...touched);
    const outcome = await this.#world.outcome(this.#carryOut(command, pair));
    this.#world.expect(`pair ${command} ${pair.name} in ${pair.state}`, outcome, expected);
    if (outcome === 'ok') await this.#took(command, pair);
  }

  #siblings(pair: ModelPair): ModelPair[] {
    return this.#world.pairs.filter((other) => other !== pair && other.primary === pair.primary);
  }

  async #carryOut(command: PairCommand, pair: ModelPair): Promise<void> {
    const { ref } = pair;
    const random = this.#world.random;
    switch (command) {
      case 'create': {
        const dirtyRegionBytes = random.pick([4, 16, 64]) * KiB;
        await this.#world.engine.pairCreate({ ...ref, dirtyRegionBytes, pace: random.int(1, 15) });
        return;
      }
      case 'split':
        await this.#world.engine.pairSplit(ref);
        return;
      case 'resync':
      case 'restore': {
        const input = { ...ref, checksum: random.chance(0.4), pace: random.int(1, 15) };
        await (command === 'resync' ? this.#world.engine.pairResync(input) : this.#world.engine.pairRestore(input));
        return;
      }
      case 'release':
        await this.#world.engine.pairRelease({ ...ref, then: 'secondary' });
        return;
      case 'set': {
        const fence = random.pick(['never', 'data'] as const);
        await this.#world.engine.pairSet({ ...ref, fence });
        pair.fence = fence;
        if (fence === 'never') pair.isFenced = false;
        return;
      }
      case 'verify': {
        const { differingBytes } = await this.#world.engine.pairVerify(ref);
        this.#world.expect('bytes that differ', differingBytes, 0);
      }
    }
  }

  /** What an answered command has changed. */
  async #took(command: PairCommand, pair: ModelPair): Promise<void> {
    const { primary, secondary } = pair;
    if (command === 'split') {
      pair.state = 'split';
      secondary.content = Buffer.from(primary.content ?? []);
    }
    if (command === 'release') {
      if (pair.state === 'duplex') secondary.content = Buffer.from(primary.content ?? []);
      Object.assign(pair, { state: 'simplex', fence: 'never', isFenced: false });
    }
    if (command === 'restore') primary.content = Buffer.from(secondary.content ?? []);
    if (command !== 'create' && command !== 'resync' && command !== 'restore') return;
    secondary.content = null;
    pair.isFenced = false;
    if (command === 'create') pair.fence = 'never';
    await this.#world.engine.pairWait({ ...pair.ref, state: 'duplex', timeoutMs: STATE_MS_MAX });
    pair.state = 'duplex';
    if (this.#world.random.chance(0.3))
      this.#world.expect('bytes that differ', (await this.#world.engine.pairVerify(pair.ref)).differingBytes, 0);
  }

  /** A split in the midst of writes: each write is on the secondary as a whole, or not at all. False: there is no pair for it. */
  async burst(): Promise<boolean> {
    const random = this.#world.random;
    const pair = this.#world.pairs.find(({ state, primary }) => state === 'duplex' && !this.#world.isFenced(primary));
    if (pair === undefined) return false;
    const { primary, secondary } = pair;
    const places = Array.from({ length: BURST_WRITES }, (_, index) => {
      const room = Math.floor(primary.bytes / BURST_WRITES);
      const length = random.int(1, Math.min(room, 64 * KiB));
      return { offset: index * room, bytes: this.#world.bytes(length) };
    });
    this.#world.say(`split ${pair.name} in ${BURST_WRITES} writes`);
    const client = await this.#world.client(primary);
    const before = Buffer.from(primary.content ?? []);
    const writes = places.map(({ offset, bytes }) => client.write(offset, bytes));
    await later(random.int(0, 2));
    await this.#world.engine.pairSplit(pair.ref);
    await Promise.all(writes);
    for (const { offset, bytes } of places) primary.fill(offset, bytes);
    this.#world.mirror(primary);
    pair.state = 'split';
    const image = await (await this.#world.client(secondary)).read(0, secondary.bytes);
    for (const { offset, bytes } of places) {
      const found = image.subarray(offset, offset + bytes.length);
      const isOld = found.equals(before.subarray(offset, offset + bytes.length));
      if (!isOld && !found.equals(bytes)) this.#world.fail(`the write at ${offset} is on the image in part`);
      before.set(found, offset);
    }
    if (!image.equals(before)) this.#world.fail('the image of the split differs where nobody wrote');
    secondary.content = Buffer.from(image);
    return true;
  }

  async failing(): Promise<void> {
    const random = this.#world.random;
    const pair = random.pick(this.#world.pairs);
    const what = random.pick(['read', 'write', 'secondary'] as const);
    if (what === 'secondary' && pair.state === 'duplex' && !this.#world.isFenced(pair.primary)) return this.#failingSecondary(pair);
    const volume = pair.primary;
    if (this.#world.isFenced(volume)) return;
    const error = what === 'read' ? 'read' : 'write';
    const errno = random.pick(['EIO', 'ENOSPC'] as const);
    this.#world.say(`${errno} on a ${error} of ${volume.name}`);
    const client = await this.#world.client(volume);
    const { offset, length } = this.#world.place(volume);
    const bytes = this.#world.bytes(length);
    const since = this.#world.pairs
      .filter(({ primary, state }) => error === 'write' && primary === volume && state === 'duplex')
      .map((other) => [other, this.#world.view(other)?.stateSinceMs ?? 0] as const);
    await this.#world.engine.faultAdd({ volume: volume.name, error, errno, count: 1 });
    const outcome = await this.#world.outcome(error === 'read' ? client.read(offset, length) : client.write(offset, bytes));
    this.#world.expect('a request that was made to fail', outcome, `NBD_${errno}`);
    await this.#world.engine.faultClear({ volume: volume.name });
    for (const [other, before] of since) await this.#copiedAgain(other, before);
    this.#world.same(volume, offset, await client.read(offset, length));
  }

  /** After an error of the primary a duplex pair copies the region again by itself. The device hears of it a moment later. */
  async #copiedAgain(pair: ModelPair, before: number): Promise<void> {
    const untilMs = performance.now() + STATE_MS_MAX;
    for (;;) {
      const view = this.#world.view(pair);
      if (view?.state === 'duplex' && view.stateSinceMs !== before) return;
      if (performance.now() > untilMs) this.#world.fail(`${pair.name} was not copied again: it is ${view?.state}`);
      await later(2);
    }
  }

  async #failingSecondary(pair: ModelPair): Promise<void> {
    const { primary, secondary } = pair;
    this.#world.say(`EIO on a write of ${secondary.name}, fence ${pair.fence}`);
    await this.#world.engine.faultAdd({ volume: secondary.name, error: 'write', errno: 'EIO', count: 1 });
    const { offset, length } = this.#world.place(primary);
    const bytes = this.#world.bytes(length);
    const outcome = await this.#world.outcome((await this.#world.client(primary)).write(offset, bytes));
    this.#world.expect('a write whose secondary fails', outcome, pair.fence === 'data' ? 'NBD_EIO' : 'ok');
    await this.#world.engine.pairWait({ ...pair.ref, state: 'suspended', timeoutMs: STATE_MS_MAX });
    await this.#world.engine.faultClear({ volume: secondary.name });
    primary.fill(offset, bytes);
    this.#world.mirror(primary);
    pair.state = 'suspended';
    pair.isFenced = pair.fence === 'data';
    secondary.content = null;
  }
}
