/**
 * A soak: random commands and random I/O, one after another, against the model of soak-model.ts, with faults.
 *
 * Every answer is compared: what a read gives, which command is refused with which code, which error a host gets, which
 * state a pair is in. Now and then everything is: all volumes byte by byte, the legs of duplex pairs by a verify, and
 * after a restart the store's own check.
 *
 * What repeats with a seed: the operations, their order and their arguments. What does not: where in a burst of writes a
 * split falls (each write of it is on the secondary as a whole or not at all, and that is what is checked), and time.
 */
import { MiB } from '../../src/core/units.ts';
import { ModelVolume } from './soak-model.ts';
import { OPERATIONS } from './soak-operations.ts';
import { SoakPairs } from './soak-pairs.ts';
import { type SoakOptions, SoakWorld } from './soak-world.ts';

const OTHERS_MAX = 3;
/** Operations between two looks at everything. */
const LOOK_EVERY = 60;

export class Soak {
  readonly counts: Record<string, number> = {};
  readonly #world: SoakWorld;
  readonly #pairs: SoakPairs;
  #lastName = 0;

  constructor(options: SoakOptions) {
    this.#world = new SoakWorld(options);
    this.#pairs = new SoakPairs(this.#world);
  }

  /** How many were begun. */
  get operations(): number {
    return this.#world.operations;
  }

  /** Runs until `isOver` says so. @throws SoakViolation */
  async run(isOver: (operations: number) => boolean): Promise<void> {
    await using world = this.#world;
    try {
      await world.begin();
      while (!isOver(world.operations)) {
        world.operations += 1;
        await this.#one();
        if (world.operations % LOOK_EVERY === 0) await world.look();
      }
      await world.look();
      await world.restart();
    } catch (error) {
      throw world.violation(error);
    }
  }

  async #one(): Promise<void> {
    const kind = this.#world.random.weighted(OPERATIONS);
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    switch (kind) {
      case 'write':
        return this.#write();
      case 'zeros':
        return this.#zeros();
      case 'read':
        return this.#read();
      case 'flush':
        return this.#flush();
      case 'burst':
        if (!(await this.#pairs.burst())) await this.#write();
        return;
      case 'pair':
        return this.#pairs.command();
      case 'failing':
        return this.#pairs.failing();
      case 'other':
        return this.#otherVolume();
      case 'settings':
        return this.#settings();
      case 'grown':
        return this.#grow();
      case 'restart':
        return this.#world.restart();
    }
  }

  async #write(): Promise<void> {
    const volume = this.#world.random.pick(this.#world.writable());
    const { offset, length } = this.#world.place(volume);
    const fua = this.#world.random.chance(0.1);
    const bytes = this.#world.bytes(length);
    this.#world.say(`write ${volume.name} ${offset}+${length}${fua ? ' fua' : ''}`);
    const client = await this.#world.client(volume);
    const outcome = await this.#world.outcome(client.write(offset, bytes, { fua }));
    if (this.#world.isFenced(volume)) return this.#world.expect('a fenced write', outcome, 'NBD_EIO');
    this.#world.expect('a write', outcome, 'ok');
    volume.fill(offset, bytes);
    this.#world.mirror(volume);
  }

  async #zeros(): Promise<void> {
    const volume = this.#world.random.pick(this.#world.writable());
    const { offset, length } = this.#world.place(volume);
    const how = this.#world.random.pick(['trim', 'zeros', 'zeros kept']);
    this.#world.say(`${how} ${volume.name} ${offset}+${length}`);
    const client = await this.#world.client(volume);
    const work = how === 'trim' ? client.trim(offset, length) : client.writeZeroes(offset, length, { noHole: how === 'zeros kept' });
    const outcome = await this.#world.outcome(work);
    if (this.#world.isFenced(volume)) {
      // Zeros over a hole change nothing, and so reach nobody.
      if (outcome === 'ok')
        this.#world.expect(
          'zeros over zeros',
          volume.content?.subarray(offset, offset + length).every((byte) => byte === 0),
          true,
        );
      return;
    }
    this.#world.expect('zeros', outcome, 'ok');
    volume.fill(offset, Buffer.alloc(length));
    this.#world.mirror(volume);
  }

  async #read(): Promise<void> {
    const volume = this.#world.random.pick(this.#world.writable());
    const { offset, length } = this.#world.place(volume);
    this.#world.say(`read ${volume.name} ${offset}+${length}`);
    this.#world.same(volume, offset, await (await this.#world.client(volume)).read(offset, length));
  }

  async #flush(): Promise<void> {
    const volume = this.#world.random.pick(this.#world.writable());
    this.#world.say(`flush ${volume.name}`);
    await (await this.#world.client(volume)).flush();
  }

  async #otherVolume(): Promise<void> {
    const random = this.#world.random;
    const some = [...this.#world.others.values()];
    if (some.length < OTHERS_MAX && random.chance(0.6)) {
      this.#lastName += 1;
      const name = `other-${this.#lastName}`;
      const sizeBytes = MiB + 512 * random.int(0, 2048);
      this.#world.say(`create ${name}, ${sizeBytes}`);
      await this.#world.engine.volumeCreate({ name, sizeBytes });
      const volume = new ModelVolume(name, Buffer.alloc(sizeBytes));
      this.#world.others.set(name, volume);
      this.#world.same(volume, 0, await (await this.#world.client(volume)).read(0, sizeBytes));
      return;
    }
    if (some.length === 0) return;
    const volume = random.pick(some);
    this.#world.say(`delete ${volume.name}`);
    await this.#world.disconnect(volume);
    await this.#world.engine.volumeDelete({ volume: volume.name });
    this.#world.others.delete(volume.name);
  }

  async #grow(): Promise<void> {
    const volume = this.#world.random.pick([...this.#world.others.values(), null]);
    if (volume === null) return;
    const sizeBytes = volume.bytes + 512 * this.#world.random.int(1, 2048);
    this.#world.say(`grow ${volume.name} to ${sizeBytes}`);
    await this.#world.engine.volumeGrow({ volume: volume.name, sizeBytes });
    await this.#world.disconnect(volume);
    this.#world.others.set(
      volume.name,
      new ModelVolume(volume.name, Buffer.concat([volume.content ?? Buffer.alloc(0), Buffer.alloc(sizeBytes - volume.bytes)])),
    );
  }

  async #settings(): Promise<void> {
    const durability = this.#world.random.pick(['power', 'process'] as const);
    this.#world.say(`settings durability ${durability}`);
    await this.#world.engine.settingsSet({ durability });
    this.#world.expect('the level', this.#world.device.status().durability.level, durability);
  }
}
