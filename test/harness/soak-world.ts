/**
 * What a soak runs on: a device in this process, one client for each volume, and the model of soak-model.ts beside it, with
 * the comparisons of the two. The operations are in soak-run.ts and soak-pairs.ts.
 */
import { KiB, MiB } from '../../src/core/units.ts';
import { type Device, openDevice, type PairView } from '../../src/index.ts';
import type { NbdClient } from '../../src/nbd-client/index.ts';
import { checkStore } from '../../src/store/check.ts';
import { ModelPair, ModelVolume } from './soak-model.ts';
import type { Random } from './random.ts';

const WRITE_BYTES_MAX: number = 192 * KiB;
export const STATE_MS_MAX = 60_000;

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

export class SoakWorld implements AsyncDisposable {
  /** The number of the operation that is being carried out. */
  operations = 0;
  readonly random: Random;
  readonly volumes: ModelVolume[] = [];
  readonly pairs: ModelPair[] = [];
  /** Volumes that come and go. */
  readonly others = new Map<string, ModelVolume>();
  readonly #options: SoakOptions;
  readonly #clients = new Map<string, NbdClient>();
  #device: Device | null = null;
  #lastText = '';

  constructor(options: SoakOptions) {
    this.#options = options;
    this.random = options.random;
  }

  async begin(): Promise<void> {
    await this.#start();
    await this.#make();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients.values()) client.destroy();
    await this.#device?.close();
  }

  // The device

  get engine(): Device['engine'] {
    return this.device.engine;
  }

  get device(): Device {
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
      const primary = await this.addVolume(name, sizes[name], 'normal');
      for (let index = 1; index <= copies; index += 1)
        this.pairs.push(new ModelPair(primary, await this.addVolume(`${name}${index}`, sizes[name], 'secondary')));
    }
    await this.engine.groupCreate({ name: 'group' });
  }

  async addVolume(name: string, sizeBytes: number, attribute: 'normal' | 'secondary'): Promise<ModelVolume> {
    await this.engine.volumeCreate({ name, sizeBytes, attribute });
    const volume = new ModelVolume(name, Buffer.alloc(sizeBytes));
    this.volumes.push(volume);
    return volume;
  }

  async restart(): Promise<void> {
    this.say('restart');
    for (const client of this.#clients.values()) await client.disconnect();
    this.#clients.clear();
    await this.device.close();
    this.#device = null;
    const check = await checkStore(this.#options.store);
    const findings = check.findings.filter(({ severity }) => severity !== 'note').map(({ text }) => text);
    this.expect('findings of the store check', findings, []);
    this.expect('a clean end', check.summary?.wasCleanShutdown, true);
    await this.#start();
    this.expect('bytes to recover', this.device.status().durability.lastRecoveryBytes, 0);
    // At level `data` what had stopped stays stopped.
    await this.look();
  }

  async client(volume: ModelVolume): Promise<NbdClient> {
    const known = this.#clients.get(volume.name);
    if (known?.isOpen === true) return known;
    const client = await this.device.volume(volume.name).connect();
    this.#clients.set(volume.name, client);
    return client;
  }

  async disconnect(...volumes: readonly ModelVolume[]): Promise<void> {
    for (const { name } of volumes) {
      await this.#clients.get(name)?.disconnect();
      this.#clients.delete(name);
    }
    // The device hears of it a moment later, and a connection would be a finding of the inquiry.
    for (;;) {
      const connected = (await this.engine.clientList()).filter((client) => volumes.some(({ name }) => name === client.volume?.name));
      if (connected.length === 0) return;
      await later(2);
    }
  }

  // What operations need

  /** Volumes that hosts may write to, and whose content is known. */
  writable(): ModelVolume[] {
    const secondaries = this.pairs.filter(({ state }) => state !== 'split').map(({ secondary }) => secondary);
    return [...this.volumes, ...this.others.values()].filter((volume) => volume.content !== null && !this.#isHidden(volume, secondaries));
  }

  #isHidden(volume: ModelVolume, secondaries: readonly ModelVolume[]): boolean {
    return secondaries.includes(volume) && this.pairs.some(({ secondary, state }) => secondary === volume && state !== 'simplex');
  }

  place(volume: ModelVolume): { readonly offset: number; readonly length: number } {
    const random = this.random;
    const length = Math.min(random.pick([1, 512, 4096, 65_536, random.int(1, WRITE_BYTES_MAX)]), volume.bytes);
    const offset = random.int(0, volume.bytes - length);
    return random.chance(0.5) ? { offset, length } : { offset: offset - (offset % 4096), length };
  }

  bytes(length: number): Buffer {
    const random = this.random;
    const bytes = Buffer.alloc(length, random.int(0, 255));
    for (let at = 0; at + 4 <= length; at += 512) bytes.writeUInt32LE(random.int(0, 2 ** 32 - 1), at);
    return bytes;
  }

  isFenced(volume: ModelVolume): boolean {
    return this.pairs.some((pair) => pair.primary === volume && pair.isFenced);
  }

  /** A duplex secondary holds what its primary holds. */
  mirror(primary: ModelVolume): void {
    for (const pair of this.pairs) if (pair.primary === primary && pair.state === 'duplex') pair.secondary.content = null;
  }

  // Pairs
  view(pair: ModelPair): PairView | undefined {
    return this.engine.pairStatus({ primary: pair.primary.name }).find(({ secondary }) => secondary.name === pair.secondary.name);
  }

  // Looking

  /** Everything that is known, compared. */
  async look(): Promise<void> {
    this.say('look at everything');
    for (const volume of this.writable()) this.same(volume, 0, await (await this.client(volume)).read(0, volume.bytes));
    for (const pair of this.pairs) {
      this.expect(`the state of ${pair.name}`, this.view(pair)?.state ?? 'simplex', pair.state);
      if (pair.state === 'duplex') this.expect('bytes that differ', (await this.engine.pairVerify(pair.ref)).differingBytes, 0);
    }
  }

  same(volume: ModelVolume, offset: number, found: Buffer): void {
    const expected = volume.content?.subarray(offset, offset + found.length);
    if (expected === undefined || expected.equals(found)) return;
    const at = found.findIndex((byte, index) => byte !== expected[index]);
    this.fail(`${volume.name} reads ${found[at]} at ${offset + at} and should read ${expected[at]}`);
  }

  expect(what: string, found: unknown, expected: unknown): void {
    if (JSON.stringify(found) !== JSON.stringify(expected))
      this.fail(`${what}: ${JSON.stringify(found)}, and expected was ${JSON.stringify(expected)}`);
  }

  fail(text: string): never {
    throw new SoakViolation(`operation ${this.operations}, ${this.#lastText}: ${text}`);
  }

  say(text: string): void {
    this.#lastText = text;
    this.#options.say?.(`${this.operations} ${text}`);
  }

  /** `ok`, or the code of the error. */
  async outcome(work: Promise<unknown>): Promise<string> {
    try {
      await work;
      return 'ok';
    } catch (error) {
      return (error as { readonly code?: string }).code ?? String(error);
    }
  }

  /** What went wrong outside of the comparisons. */
  violation(error: unknown): SoakViolation {
    if (error instanceof SoakViolation) return error;
    const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return new SoakViolation(`operation ${this.operations}, ${this.#lastText}: ${cause}`, { cause: error });
  }
}

export const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
