/**
 * The operator of a harness: gives one command after another, chosen by a seed from those that the pairs' states allow,
 * while hosts write. It knows the outcome of each command that was answered; the one that a kill cut off stays open in
 * the model until the engine was started again.
 *
 * Besides pairs it makes, grows and deletes other volumes, because their records share the journal, and because a
 * region that changes its owner has to read as zeros.
 */
import { TwinvolError } from '../../src/core/faults.ts';
import { MiB } from '../../src/core/units.ts';
import type { EngineProcess } from './engine-process.ts';
import type { PairModel } from './pair-model.ts';
import type { Random } from './random.ts';
import type { VolumeModel } from './volume-model.ts';
import type { World } from './world.ts';

const COPY_MS_MAX = 60_000;
const CONSENTS_MAX = 5;
const OTHER_VOLUMES_MAX = 3;

type CopyCommand = 'pair.create' | 'pair.resync' | 'pair.restore' | 'pair.release';

/** What a refusal found, and what overrides it. */
type Found = { readonly findings: ReadonlyArray<{ readonly key: string }> };
type Consent = { readonly overrides: readonly string[]; readonly reason: string };

export class Operator {
  readonly #world: World;
  readonly #random: Random;
  /** Given and answered, for the report. */
  commands = 0;

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  /** One command, to its answer. @throws TwinvolError `ENGINE_UNREACHABLE` when the engine was killed meanwhile */
  async step(engine: EngineProcess): Promise<void> {
    const random = this.#random;
    if (random.chance(0.2)) {
      await this.#otherVolume(engine);
    } else if (random.chance(0.12) && this.#world.group.every((pair) => pair.state === 'duplex')) {
      await this.#splitGroup(engine);
    } else {
      await this.#pairCommand(engine, random.pick(this.#world.pairs));
    }
    this.commands += 1;
  }

  async #pairCommand(engine: EngineProcess, pair: PairModel): Promise<void> {
    const random = this.#random;
    switch (pair.state) {
      case 'simplex':
        return this.#create(engine, pair);
      case 'copying':
        return this.#whileCopying(engine, pair, random.weighted({ wait: 10, pace: 3, release: pair.isRestoring ? 0 : 1 }));
      case 'duplex':
        return this.#inDuplex(engine, pair, random.weighted({ split: 12, release: 1, suspend: 3, verify: 2 }));
      case 'split':
        return this.#afterSplit(engine, pair, random.weighted({ resync: 8, restore: 5, release: 1 }));
      case 'suspended':
        return this.#copyAgain(engine, pair, 'resync');
    }
  }

  async #create(engine: EngineProcess, pair: PairModel): Promise<void> {
    const random = this.#random;
    const dirtyRegionBytes = random.pick([4, 16, 64, 256]) * 1024;
    const pace = random.pick([3, 8, 15]);
    const isPartOfRestore = this.#siblings(pair).some((other) => other.isRestoring);
    if (isPartOfRestore) return this.#waitForRestores(engine, pair);
    await pair.secondary.stopWriters();
    this.#world.say(`pair create ${pair.name}, regions of ${dirtyRegionBytes}, pace ${pace}`);
    await this.#copyCommand(engine, pair, 'create', 'pair.create', { dirtyRegionBytes, pace });
    await this.#world.addToGroup(engine, pair);
  }

  async #whileCopying(engine: EngineProcess, pair: PairModel, what: 'wait' | 'pace' | 'release'): Promise<void> {
    if (what === 'release') return this.#release(engine, pair);
    if (what === 'pace') {
      const pace = this.#random.int(1, 15);
      this.#world.say(`pair set ${pair.name}, pace ${pace}`);
      await engine.call('pair.set', { ...pair.ref, pace });
      return;
    }
    this.#world.say(`pair wait ${pair.name}`);
    await engine.call('pair.set', { ...pair.ref, pace: 15 });
    await pair.untilDuplex(engine, COPY_MS_MAX);
  }

  async #inDuplex(engine: EngineProcess, pair: PairModel, what: 'split' | 'release' | 'suspend' | 'verify'): Promise<void> {
    if (what === 'release') return this.#release(engine, pair);
    if (what === 'suspend') return this.#suspend(engine, pair);
    if (what === 'verify') {
      this.#world.say(`pair verify ${pair.name}`);
      const { differingBytes, differing } = await engine.call('pair.verify', pair.ref);
      if (differingBytes > 0)
        this.#world.violation(`verify found ${differingBytes} bytes of ${pair.name} unequal: ${JSON.stringify(differing)}`);
      return;
    }
    this.#world.say(`pair split ${pair.name}`);
    pair.begins('split');
    await this.#answered(pair, () => engine.call('pair.split', pair.ref));
    this.#writeToSecondary(engine, pair);
  }

  /** A write error of the secondary: the pair is suspended at the next write of a host. */
  async #suspend(engine: EngineProcess, pair: PairModel): Promise<void> {
    this.#world.say(`an error of ${pair.secondary.name}`);
    pair.begins('suspend');
    await engine.call('fault.add', { volume: pair.secondary.name, error: 'write', count: 1 });
    await engine.call('pair.wait', { ...pair.ref, state: 'suspended', timeoutMs: COPY_MS_MAX });
    pair.isDone();
    await engine.call('fault.clear', { volume: pair.secondary.name });
  }

  async #afterSplit(engine: EngineProcess, pair: PairModel, what: 'resync' | 'restore' | 'release'): Promise<void> {
    if (what === 'release') return this.#release(engine, pair);
    const areSiblingsQuiet = this.#siblings(pair).every(
      (other) => other.state === 'split' || other.state === 'suspended' || other.state === 'simplex',
    );
    return this.#copyAgain(engine, pair, what === 'restore' && areSiblingsQuiet ? 'restore' : 'resync');
  }

  async #copyAgain(engine: EngineProcess, pair: PairModel, what: 'resync' | 'restore'): Promise<void> {
    if (this.#siblings(pair).some((other) => other.isRestoring)) return this.#waitForRestores(engine, pair);
    const isForced = this.#random.chance(0.5);
    this.#world.say(`pair ${what} ${pair.name}${isForced ? ', with writers on the secondary' : ''}`);
    if (!isForced) await pair.secondary.stopWriters();
    pair.secondary.isUncertain = true;
    await this.#copyCommand(engine, pair, what, `pair.${what}`, { pace: this.#random.pick([3, 8, 15]) });
    pair.secondary.abandonWriters();
  }

  async #release(engine: EngineProcess, pair: PairModel): Promise<void> {
    this.#world.say(`pair release ${pair.name} (${pair.state})`);
    await pair.secondary.stopWriters();
    await this.#copyCommand(engine, pair, 'release', 'pair.release', {});
  }

  async #waitForRestores(engine: EngineProcess, pair: PairModel): Promise<void> {
    for (const other of this.#siblings(pair)) if (other.isRestoring) await this.#whileCopying(engine, other, 'wait');
  }

  #siblings(pair: PairModel): PairModel[] {
    return this.#world.pairs.filter((other) => other !== pair && other.primary === pair.primary);
  }

  #writeToSecondary(engine: EngineProcess, pair: PairModel): void {
    if (this.#random.chance(0.8)) this.#world.write(engine, pair.secondary, 1);
  }

  async #splitGroup(engine: EngineProcess): Promise<void> {
    const { group } = this.#world;
    this.#world.say('group split');
    for (const pair of group) pair.begins('split');
    await engine.call('group.split', { name: this.#world.groupName });
    for (const pair of group) {
      pair.isDone();
      this.#writeToSecondary(engine, pair);
    }
  }

  /** A command that overwrites: consents to the connections that are found, like an operator who saw the warning. */
  async #copyCommand(
    engine: EngineProcess,
    pair: PairModel,
    command: 'create' | 'resync' | 'restore' | 'release',
    method: CopyCommand,
    more: { readonly pace?: number; readonly dirtyRegionBytes?: number },
  ): Promise<void> {
    pair.begins(command);
    await this.#answered(pair, () => this.#consenting((consent) => engine.call(method, { ...pair.ref, ...more, ...consent })));
  }

  /** By overrides, not by the token of what was shown: hosts go on writing, so what would be lost is more at each look. */
  async #consenting(call: (consent: { readonly consent?: Consent }) => Promise<unknown>): Promise<void> {
    let overrides: readonly string[] = [];
    for (let attempt = 1; ; attempt += 1) {
      try {
        await call(overrides.length === 0 ? {} : { consent: { overrides, reason: 'a crash trial' } });
        return;
      } catch (error) {
        const { findings } = (error instanceof TwinvolError ? error.details : {}) as Partial<Found>;
        if (findings === undefined || attempt >= CONSENTS_MAX) throw error;
        overrides = findings.map(({ key }) => key);
      }
    }
  }

  async #answered(pair: PairModel, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
      pair.isDone();
    } catch (error) {
      // An error of a medium that is gone says nothing: the record may have been the last that reached it.
      if (!isKilled(error) && !this.#world.isMediumGone) pair.isRefused();
      throw error;
    }
  }

  // Other volumes

  async #otherVolume(engine: EngineProcess): Promise<void> {
    const { others } = this.#world;
    const random = this.#random;
    const some = [...others.values()];
    if (some.length < OTHER_VOLUMES_MAX && random.chance(0.5))
      return this.#makeOther(engine, random.int(2, 8) * MiB + random.pick([0, 512 * 1024]));
    if (some.length === 0) return;
    const volume = random.pick(some);
    if (random.chance(0.5)) return this.#growOther(engine, volume, volume.bytes + random.int(1, 4) * MiB);
    this.#world.say(`volume delete ${volume.name}`);
    await volume.stopWriters();
    this.#world.underWay = { command: 'delete', volume };
    // The device may not have seen yet that the writer's connection is gone.
    await this.#consenting((consent) => engine.call('volume.delete', { volume: volume.name, ...consent }));
    this.#world.underWay = null;
    others.delete(volume.name);
  }

  async #makeOther(engine: EngineProcess, bytes: number): Promise<void> {
    const name = this.#world.newName();
    this.#world.say(`volume create ${name}, ${bytes}`);
    this.#world.underWay = { command: 'create', name, bytes };
    const view = await engine.call('volume.create', { name, sizeBytes: bytes });
    this.#world.underWay = null;
    if ('plan' in view) throw new Error('a plan was not asked for');
    const volume = this.#world.addOther(name, view.number, bytes);
    for (const text of await volume.check(engine)) this.#world.violation(`a new volume shows old data: ${text}`);
    this.#world.write(engine, volume, 1);
  }

  async #growOther(engine: EngineProcess, volume: VolumeModel, bytes: number): Promise<void> {
    this.#world.say(`volume grow ${volume.name} to ${bytes}`);
    this.#world.underWay = { command: 'grow', volume, bytes };
    await volume.stopWriters();
    await engine.call('volume.grow', { volume: volume.name, sizeBytes: bytes });
    this.#world.underWay = null;
    volume.grew(bytes);
    this.#world.write(engine, volume, 1);
  }
}

/** The call was cut off, so its outcome is not known. */
export const isKilled = (error: unknown): boolean => error instanceof TwinvolError && error.code === 'ENGINE_UNREACHABLE';
