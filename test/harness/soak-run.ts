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
import type { NbdClient } from '../../src/nbd-client/index.ts';
import type { PairCommand } from '../../src/core/pair-matrix.ts';
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice, type PairView } from '../../src/index.ts';
import { checkStore } from '../../src/store/check.ts';
import { ModelPair, ModelVolume } from './soak-model.ts';
import { OPERATIONS } from './soak-operations.ts';
import type { Random } from './random.ts';

const WRITE_BYTES_MAX: number = 192 * KiB;
const STATE_MS_MAX = 60_000;
const BURST_WRITES = 12;
const OTHERS_MAX = 3;
/** Operations between two looks at everything. */
const LOOK_EVERY = 60;

export type SoakOptions = {
  /** Directory of the store; made if it is missing. */
  readonly store: string;
  readonly random: Random;
  readonly lanes?: number;
  /** One line for each operation. */
  readonly say?: (text: string) => void;
};

/** What was found wrong, with the number of the operation. */
export class SoakViolation extends Error {}

export class Soak {
  readonly counts: Record<string, number> = {};
  operations = 0;
  readonly #options: SoakOptions;
  readonly #random: Random;
  readonly #volumes: ModelVolume[] = [];
  readonly #pairs: ModelPair[] = [];
  readonly #others = new Map<string, ModelVolume>();
  readonly #clients = new Map<string, NbdClient>();
  #device: Device | null = null;
  #lastName = 0;
  #lastText = '';

  constructor(options: SoakOptions) {
    this.#options = options;
    this.#random = options.random;
  }

  /** Runs until `isOver` says so. @throws SoakViolation */
  async run(isOver: (operations: number) => boolean): Promise<void> {
    try {
      await this.#start();
      await this.#make();
      while (!isOver(this.operations)) {
        this.operations += 1;
        await this.#one();
        if (this.operations % LOOK_EVERY === 0) await this.#look();
      }
      await this.#look();
      await this.#restart();
    } catch (error) {
      if (error instanceof SoakViolation) throw error;
      const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new SoakViolation(`operation ${this.operations}, ${this.#lastText}: ${cause}`, { cause: error });
    } finally {
      for (const client of this.#clients.values()) client.destroy();
      await this.#device?.close();
    }
  }

  // The device

  get #engine(): Device['engine'] {
    return this.#open.engine;
  }
  get #open(): Device {
    if (this.#device === null) throw new Error('the device is closed');
    return this.#device;
  }

  async #start(): Promise<void> {
    const { store, lanes = 2 } = this.#options;
    this.#device = await openDevice({ store, create: true, regionSize: '64K', pvSize: '16M', lanes });
  }

  async #make(): Promise<void> {
    const sizes = { a: 3 * MiB + 4608, b: MiB + 512 };
    for (const [name, copies] of [
      ['a', 2],
      ['b', 1],
    ] as const) {
      const primary = await this.#create(name, sizes[name], 'normal');
      for (let index = 1; index <= copies; index += 1)
        this.#pairs.push(new ModelPair(primary, await this.#create(`${name}${index}`, sizes[name], 'secondary')));
    }
    await this.#engine.groupCreate({ name: 'group' });
  }

  async #create(name: string, sizeBytes: number, attribute: 'normal' | 'secondary'): Promise<ModelVolume> {
    await this.#engine.volumeCreate({ name, sizeBytes, attribute });
    const volume = new ModelVolume(name, Buffer.alloc(sizeBytes));
    this.#volumes.push(volume);
    return volume;
  }

  async #restart(): Promise<void> {
    this.#say('restart');
    for (const client of this.#clients.values()) await client.disconnect();
    this.#clients.clear();
    await this.#open.close();
    this.#device = null;
    const check = await checkStore(this.#options.store);
    const findings = check.findings.filter(({ severity }) => severity !== 'note').map(({ text }) => text);
    this.#expect('findings of the store check', findings, []);
    this.#expect('a clean end', check.summary?.wasCleanShutdown, true);
    await this.#start();
    this.#expect('bytes to recover', this.#open.status().durability.lastRecoveryBytes, 0);
    // At level `data` what had stopped stays stopped.
    await this.#look();
  }

  async #client(volume: ModelVolume): Promise<NbdClient> {
    const known = this.#clients.get(volume.name);
    if (known?.isOpen === true) return known;
    const client = await this.#open.volume(volume.name).connect();
    this.#clients.set(volume.name, client);
    return client;
  }

  async #disconnect(...volumes: readonly ModelVolume[]): Promise<void> {
    for (const { name } of volumes) {
      await this.#clients.get(name)?.disconnect();
      this.#clients.delete(name);
    }
    // The device hears of it a moment later, and a connection would be a finding of the inquiry.
    for (;;) {
      const connected = (await this.#engine.clientList()).filter((client) => volumes.some(({ name }) => name === client.volume?.name));
      if (connected.length === 0) return;
      await later(2);
    }
  }

  // Operations

  async #one(): Promise<void> {
    const kind = this.#random.weighted(OPERATIONS);
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
        return this.#burst();
      case 'pair':
        return this.#pairCommand();
      case 'failing':
        return this.#failing();
      case 'other':
        return this.#otherVolume();
      case 'settings':
        return this.#settings();
      case 'grown':
        return this.#grow();
      case 'restart':
        return this.#restart();
    }
  }

  /** Volumes that hosts may write to, and whose content is known. */
  #writable(): ModelVolume[] {
    const secondaries = this.#pairs.filter(({ state }) => state !== 'split').map(({ secondary }) => secondary);
    return [...this.#volumes, ...this.#others.values()].filter((volume) => volume.content !== null && !this.#isHidden(volume, secondaries));
  }

  #isHidden(volume: ModelVolume, secondaries: readonly ModelVolume[]): boolean {
    return secondaries.includes(volume) && this.#pairs.some(({ secondary, state }) => secondary === volume && state !== 'simplex');
  }

  #place(volume: ModelVolume): { readonly offset: number; readonly length: number } {
    const random = this.#random;
    const length = Math.min(random.pick([1, 512, 4096, 65_536, random.int(1, WRITE_BYTES_MAX)]), volume.bytes);
    const offset = random.int(0, volume.bytes - length);
    return random.chance(0.5) ? { offset, length } : { offset: offset - (offset % 4096), length };
  }

  #bytes(length: number): Buffer {
    const random = this.#random;
    const bytes = Buffer.alloc(length, random.int(0, 255));
    for (let at = 0; at + 4 <= length; at += 512) bytes.writeUInt32LE(random.int(0, 2 ** 32 - 1), at);
    return bytes;
  }

  async #write(): Promise<void> {
    const volume = this.#random.pick(this.#writable());
    const { offset, length } = this.#place(volume);
    const fua = this.#random.chance(0.1);
    const bytes = this.#bytes(length);
    this.#say(`write ${volume.name} ${offset}+${length}${fua ? ' fua' : ''}`);
    const client = await this.#client(volume);
    const outcome = await this.#outcome(client.write(offset, bytes, { fua }));
    if (this.#isFenced(volume)) return this.#expect('a fenced write', outcome, 'NBD_EIO');
    this.#expect('a write', outcome, 'ok');
    volume.fill(offset, bytes);
    this.#mirror(volume);
  }

  async #zeros(): Promise<void> {
    const volume = this.#random.pick(this.#writable());
    const { offset, length } = this.#place(volume);
    const how = this.#random.pick(['trim', 'zeros', 'zeros kept']);
    this.#say(`${how} ${volume.name} ${offset}+${length}`);
    const client = await this.#client(volume);
    const work = how === 'trim' ? client.trim(offset, length) : client.writeZeroes(offset, length, { noHole: how === 'zeros kept' });
    const outcome = await this.#outcome(work);
    if (this.#isFenced(volume)) {
      // Zeros over a hole change nothing, and so reach nobody.
      if (outcome === 'ok')
        this.#expect(
          'zeros over zeros',
          volume.content?.subarray(offset, offset + length).every((byte) => byte === 0),
          true,
        );
      return;
    }
    this.#expect('zeros', outcome, 'ok');
    volume.fill(offset, Buffer.alloc(length));
    this.#mirror(volume);
  }

  async #read(): Promise<void> {
    const volume = this.#random.pick(this.#writable());
    const { offset, length } = this.#place(volume);
    this.#say(`read ${volume.name} ${offset}+${length}`);
    this.#same(volume, offset, await (await this.#client(volume)).read(offset, length));
  }

  async #flush(): Promise<void> {
    const volume = this.#random.pick(this.#writable());
    this.#say(`flush ${volume.name}`);
    await (await this.#client(volume)).flush();
  }

  #isFenced(volume: ModelVolume): boolean {
    return this.#pairs.some((pair) => pair.primary === volume && pair.isFenced);
  }

  /** A duplex secondary holds what its primary holds. */
  #mirror(primary: ModelVolume): void {
    for (const pair of this.#pairs) if (pair.primary === primary && pair.state === 'duplex') pair.secondary.content = null;
  }

  // Pairs

  #view(pair: ModelPair): PairView | undefined {
    return this.#engine.pairStatus({ primary: pair.primary.name }).find(({ secondary }) => secondary.name === pair.secondary.name);
  }

  #siblings(pair: ModelPair): ModelPair[] {
    return this.#pairs.filter((other) => other !== pair && other.primary === pair.primary);
  }

  async #pairCommand(): Promise<void> {
    const random = this.#random;
    const pair = random.pick(this.#pairs);
    const command = random.weighted({ create: 4, split: 6, resync: 5, restore: 3, release: 1.5, set: 2, verify: 3 });
    this.#say(`pair ${command} ${pair.name} (${pair.state})`);
    const expected = pair.outcomeOf(command, this.#siblings(pair));
    const touched = command === 'restore' ? [pair.primary, pair.secondary] : [pair.secondary];
    if (command !== 'split' && command !== 'set' && command !== 'verify') await this.#disconnect(...touched);
    const outcome = await this.#outcome(this.#command(command, pair));
    this.#expect(`pair ${command} ${pair.name} in ${pair.state}`, outcome, expected);
    if (outcome === 'ok') await this.#took(command, pair);
  }

  async #command(command: PairCommand, pair: ModelPair): Promise<void> {
    const { ref } = pair;
    const random = this.#random;
    switch (command) {
      case 'create': {
        const dirtyRegionBytes = random.pick([4, 16, 64]) * KiB;
        await this.#engine.pairCreate({ ...ref, dirtyRegionBytes, pace: random.int(1, 15) });
        return;
      }
      case 'split':
        await this.#engine.pairSplit(ref);
        return;
      case 'resync':
      case 'restore': {
        const input = { ...ref, checksum: random.chance(0.4), pace: random.int(1, 15) };
        await (command === 'resync' ? this.#engine.pairResync(input) : this.#engine.pairRestore(input));
        return;
      }
      case 'release':
        await this.#engine.pairRelease({ ...ref, then: 'secondary' });
        return;
      case 'set': {
        const fence = random.pick(['never', 'data'] as const);
        await this.#engine.pairSet({ ...ref, fence });
        pair.fence = fence;
        if (fence === 'never') pair.isFenced = false;
        return;
      }
      case 'verify': {
        const { differingBytes } = await this.#engine.pairVerify(ref);
        this.#expect('bytes that differ', differingBytes, 0);
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
    await this.#engine.pairWait({ ...pair.ref, state: 'duplex', timeoutMs: STATE_MS_MAX });
    pair.state = 'duplex';
    if (this.#random.chance(0.3)) this.#expect('bytes that differ', (await this.#engine.pairVerify(pair.ref)).differingBytes, 0);
  }

  /** A split in the midst of writes: each write is on the secondary as a whole, or not at all. */
  async #burst(): Promise<void> {
    const random = this.#random;
    const pair = this.#pairs.find(({ state, primary }) => state === 'duplex' && !this.#isFenced(primary));
    if (pair === undefined) return this.#write();
    const { primary, secondary } = pair;
    const places = Array.from({ length: BURST_WRITES }, (_, index) => {
      const room = Math.floor(primary.bytes / BURST_WRITES);
      const length = random.int(1, Math.min(room, 64 * KiB));
      return { offset: index * room, bytes: this.#bytes(length) };
    });
    this.#say(`split ${pair.name} in ${BURST_WRITES} writes`);
    const client = await this.#client(primary);
    const before = Buffer.from(primary.content ?? []);
    const writes = places.map(({ offset, bytes }) => client.write(offset, bytes));
    await later(random.int(0, 2));
    await this.#engine.pairSplit(pair.ref);
    await Promise.all(writes);
    for (const { offset, bytes } of places) primary.fill(offset, bytes);
    this.#mirror(primary);
    pair.state = 'split';
    const image = await (await this.#client(secondary)).read(0, secondary.bytes);
    for (const { offset, bytes } of places) {
      const found = image.subarray(offset, offset + bytes.length);
      const isOld = found.equals(before.subarray(offset, offset + bytes.length));
      if (!isOld && !found.equals(bytes)) this.#fail(`the write at ${offset} is on the image in part`);
      before.set(found, offset);
    }
    if (!image.equals(before)) this.#fail('the image of the split differs where nobody wrote');
    secondary.content = Buffer.from(image);
  }

  // Faults

  async #failing(): Promise<void> {
    const random = this.#random;
    const pair = random.pick(this.#pairs);
    const what = random.pick(['read', 'write', 'secondary'] as const);
    if (what === 'secondary' && pair.state === 'duplex' && !this.#isFenced(pair.primary)) return this.#failingSecondary(pair);
    const volume = pair.primary;
    if (this.#isFenced(volume)) return;
    const error = what === 'read' ? 'read' : 'write';
    const errno = random.pick(['EIO', 'ENOSPC'] as const);
    this.#say(`${errno} on a ${error} of ${volume.name}`);
    const client = await this.#client(volume);
    const { offset, length } = this.#place(volume);
    const bytes = this.#bytes(length);
    const since = this.#pairs
      .filter(({ primary, state }) => error === 'write' && primary === volume && state === 'duplex')
      .map((other) => [other, this.#view(other)?.stateSinceMs ?? 0] as const);
    await this.#engine.faultAdd({ volume: volume.name, error, errno, count: 1 });
    const outcome = await this.#outcome(error === 'read' ? client.read(offset, length) : client.write(offset, bytes));
    this.#expect('a request that was made to fail', outcome, `NBD_${errno}`);
    await this.#engine.faultClear({ volume: volume.name });
    for (const [other, before] of since) await this.#copiedAgain(other, before);
    this.#same(volume, offset, await client.read(offset, length));
  }

  /** After an error of the primary a duplex pair copies the region again by itself. The device hears of it a moment later. */
  async #copiedAgain(pair: ModelPair, before: number): Promise<void> {
    const untilMs = performance.now() + STATE_MS_MAX;
    for (;;) {
      const view = this.#view(pair);
      if (view?.state === 'duplex' && view.stateSinceMs !== before) return;
      if (performance.now() > untilMs) this.#fail(`${pair.name} was not copied again: it is ${view?.state}`);
      await later(2);
    }
  }

  async #failingSecondary(pair: ModelPair): Promise<void> {
    const { primary, secondary } = pair;
    this.#say(`EIO on a write of ${secondary.name}, fence ${pair.fence}`);
    await this.#engine.faultAdd({ volume: secondary.name, error: 'write', errno: 'EIO', count: 1 });
    const { offset, length } = this.#place(primary);
    const bytes = this.#bytes(length);
    const outcome = await this.#outcome((await this.#client(primary)).write(offset, bytes));
    this.#expect('a write whose secondary fails', outcome, pair.fence === 'data' ? 'NBD_EIO' : 'ok');
    await this.#engine.pairWait({ ...pair.ref, state: 'suspended', timeoutMs: STATE_MS_MAX });
    await this.#engine.faultClear({ volume: secondary.name });
    primary.fill(offset, bytes);
    this.#mirror(primary);
    pair.state = 'suspended';
    pair.isFenced = pair.fence === 'data';
    secondary.content = null;
  }

  // Other volumes and settings

  async #otherVolume(): Promise<void> {
    const random = this.#random;
    const some = [...this.#others.values()];
    if (some.length < OTHERS_MAX && random.chance(0.6)) {
      this.#lastName += 1;
      const name = `other-${this.#lastName}`;
      const sizeBytes = MiB + 512 * random.int(0, 2048);
      this.#say(`create ${name}, ${sizeBytes}`);
      await this.#engine.volumeCreate({ name, sizeBytes });
      const volume = new ModelVolume(name, Buffer.alloc(sizeBytes));
      this.#others.set(name, volume);
      this.#same(volume, 0, await (await this.#client(volume)).read(0, sizeBytes));
      return;
    }
    if (some.length === 0) return;
    const volume = random.pick(some);
    this.#say(`delete ${volume.name}`);
    await this.#disconnect(volume);
    await this.#engine.volumeDelete({ volume: volume.name });
    this.#others.delete(volume.name);
  }

  async #grow(): Promise<void> {
    const volume = this.#random.pick([...this.#others.values(), null]);
    if (volume === null) return;
    const sizeBytes = volume.bytes + 512 * this.#random.int(1, 2048);
    this.#say(`grow ${volume.name} to ${sizeBytes}`);
    await this.#engine.volumeGrow({ volume: volume.name, sizeBytes });
    await this.#disconnect(volume);
    this.#others.set(
      volume.name,
      new ModelVolume(volume.name, Buffer.concat([volume.content ?? Buffer.alloc(0), Buffer.alloc(sizeBytes - volume.bytes)])),
    );
  }

  async #settings(): Promise<void> {
    const durability = this.#random.pick(['power', 'process'] as const);
    this.#say(`settings durability ${durability}`);
    await this.#engine.settingsSet({ durability });
    this.#expect('the level', this.#open.status().durability.level, durability);
  }

  // Looking

  /** Everything that is known, compared. */
  async #look(): Promise<void> {
    this.#say('look at everything');
    for (const volume of this.#writable()) this.#same(volume, 0, await (await this.#client(volume)).read(0, volume.bytes));
    for (const pair of this.#pairs) {
      this.#expect(`the state of ${pair.name}`, this.#view(pair)?.state ?? 'simplex', pair.state);
      if (pair.state === 'duplex') this.#expect('bytes that differ', (await this.#engine.pairVerify(pair.ref)).differingBytes, 0);
    }
  }

  #same(volume: ModelVolume, offset: number, found: Buffer): void {
    const expected = volume.content?.subarray(offset, offset + found.length);
    if (expected === undefined || expected.equals(found)) return;
    const at = found.findIndex((byte, index) => byte !== expected[index]);
    this.#fail(`${volume.name} reads ${found[at]} at ${offset + at} and should read ${expected[at]}`);
  }

  #expect(what: string, found: unknown, expected: unknown): void {
    if (JSON.stringify(found) !== JSON.stringify(expected))
      this.#fail(`${what}: ${JSON.stringify(found)}, and expected was ${JSON.stringify(expected)}`);
  }

  #fail(text: string): never {
    throw new SoakViolation(`operation ${this.operations}, ${this.#lastText}: ${text}`);
  }

  #say(text: string): void {
    this.#lastText = text;
    this.#options.say?.(`${this.operations} ${text}`);
  }

  /** `ok`, or the code of the error. */
  async #outcome(work: Promise<unknown>): Promise<string> {
    try {
      await work;
      return 'ok';
    } catch (error) {
      return (error as { readonly code?: string }).code ?? String(error);
    }
  }
}

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
