/**
 * Everything that a harness knows of one store: volumes, pairs, the group, who writes, and what is under way.
 *
 * The set: a primary with two secondaries, a primary with one, and a few other volumes that come and go. All of it is
 * small, so that a crash is checked to the last block in a fraction of a second.
 */
import type { PairView, VolumeView } from '../../src/core/views.ts';
import { MiB } from '../../src/core/units.ts';
import type { EngineProcess } from './engine-process.ts';
import { PairModel } from './pair-model.ts';
import type { Random } from './random.ts';
import { VolumeModel } from './volume-model.ts';
import type { Promised } from './write-history.ts';

const DB_BYTES = 24 * MiB;
const LOG_BYTES = 12 * MiB;

/** A command on a volume that is no part of a pair, cut off or not yet answered. */
export type VolumeUnderWay =
  | { readonly command: 'create'; readonly name: string; readonly bytes: number }
  | { readonly command: 'grow'; readonly volume: VolumeModel; readonly bytes: number }
  | { readonly command: 'delete'; readonly volume: VolumeModel };

export type WorldOptions = {
  readonly promised: Promised;
  readonly random: Random;
  /** Milliseconds between two requests of one writer: what keeps a small machine from being busy with writers only. */
  readonly restMs: number;
  /** One line for each decision. */
  readonly say: (text: string) => void;
};

export class World {
  readonly groupName = 'both';
  readonly pairs: PairModel[] = [];
  readonly others = new Map<string, VolumeModel>();
  readonly violations: string[] = [];
  /** Told of each intent extent that a write was issued to. */
  onTouched: (volume: string, extent: number) => void = () => {};
  /** Whatever fails now is right to fail, and an error does not say that nothing happened. */
  isMediumGone = false;
  underWay: VolumeUnderWay | null = null;
  readonly #volumes: VolumeModel[] = [];
  readonly #options: WorldOptions;
  #lastName = 0;
  #writerRuns = 0;

  constructor(options: WorldOptions) {
    this.#options = options;
  }

  /** Volumes of an empty store. */
  async make(engine: EngineProcess): Promise<void> {
    await engine.call('settings.set', { secondaryAccess: 'read-only' });
    const volume = async (name: string, sizeBytes: number, attribute: 'normal' | 'secondary'): Promise<VolumeModel> => {
      const view = await engine.call('volume.create', { name, sizeBytes, attribute });
      const model = new VolumeModel(name, (view as VolumeView).number, sizeBytes, this.#options.promised);
      this.#volumes.push(model);
      return model;
    };
    const db = await volume('db', DB_BYTES, 'normal');
    const log = await volume('log', LOG_BYTES, 'normal');
    this.pairs.push(new PairModel(db, await volume('db-one', DB_BYTES, 'secondary')));
    this.pairs.push(new PairModel(db, await volume('db-two', DB_BYTES, 'secondary')));
    this.pairs.push(new PairModel(log, await volume('log-one', LOG_BYTES, 'secondary')));
    await engine.call('group.create', { name: this.groupName });
  }

  get volumes(): readonly VolumeModel[] {
    return [...this.#volumes, ...this.others.values()];
  }
  get primaries(): readonly VolumeModel[] {
    return [...new Set(this.pairs.map((pair) => pair.primary))];
  }
  /** The pairs that are split together. */
  get group(): readonly PairModel[] {
    return [this.pairs[0] as PairModel, this.pairs[2] as PairModel];
  }

  say(text: string): void {
    this.#options.say(text);
  }
  violation(text: string): void {
    this.violations.push(text);
  }

  /** A pair's membership of the group ends with the pair. */
  async addToGroup(engine: EngineProcess, pair: PairModel): Promise<void> {
    if (this.group.includes(pair)) await engine.call('group.add', { name: this.groupName, ...pair.ref });
  }

  write(engine: EngineProcess, volume: VolumeModel, connections: number): void {
    this.#writerRuns += 1;
    volume.startWriters(engine, {
      random: this.#options.random.fork(`writers ${this.#writerRuns}`),
      connections,
      restMs: this.#options.restMs,
      mayFail: () => this.isMediumGone,
      onTouched: (extent) => this.onTouched(volume.name, extent),
      onViolation: (text) => this.violation(text),
    });
  }

  /** Hosts begin to write wherever they may. */
  writeEverywhere(engine: EngineProcess): void {
    this.isMediumGone = false;
    for (const primary of this.primaries) this.write(engine, primary, primary.name === 'db' ? 3 : 2);
    for (const pair of this.pairs) if (pair.state === 'split') this.write(engine, pair.secondary, 1);
    for (const other of this.others.values()) this.write(engine, other, 1);
  }

  /** What a crash now meets: each pair's state, and what is under way. */
  whatIsMet(): readonly string[] {
    const commands = this.pairs.flatMap((pair) => (pair.commandUnderWay === null ? [] : [`${pair.commandUnderWay} cut off`]));
    return [
      ...this.pairs.map((pair) => pair.state),
      ...commands,
      ...(this.underWay === null ? [] : [`volume ${this.underWay.command} cut off`]),
    ];
  }

  /** Whatever fails from now on is right to fail, and whatever is answered promises nothing. */
  mediumGoes(): void {
    this.isMediumGone = true;
    for (const { history } of this.volumes) if (history !== null) history.promisesNothing = true;
  }

  async stopWriters(): Promise<void> {
    await Promise.all(this.volumes.map((volume) => volume.stopWriters()));
  }

  abandonWriters(): void {
    for (const volume of this.volumes) volume.abandonWriters();
  }

  newName(): string {
    this.#lastName += 1;
    return `other-${this.#lastName}`;
  }

  addOther(name: string, number: number, bytes: number): VolumeModel {
    const volume = new VolumeModel(name, number, bytes, this.#options.promised);
    this.others.set(name, volume);
    return volume;
  }

  /** After a restart: compares what the engine has with what was answered, and takes over the effect of what was cut off. */
  async meet(engine: EngineProcess): Promise<void> {
    const [volumes, pairs, groups] = await Promise.all([
      engine.call('volume.list', {}),
      engine.call('pair.status', {}),
      engine.call('group.list', {}),
    ]);
    this.#meetVolumes(volumes);
    for (const pair of this.pairs) for (const text of pair.meets(viewOf(pairs, pair))) this.violation(text);
    const members = groups.find((group) => group.name === this.groupName)?.pairs ?? [];
    for (const pair of this.group) {
      const view = viewOf(pairs, pair);
      if (view !== undefined && !members.includes(view.id)) await this.addToGroup(engine, pair);
    }
  }

  #meetVolumes(views: readonly VolumeView[]): void {
    const underWay = this.underWay;
    this.underWay = null;
    const named = new Map(views.map((view) => [view.name, view]));
    if (underWay?.command === 'create') {
      const view = named.get(underWay.name);
      if (view !== undefined) this.addOther(underWay.name, view.number, underWay.bytes);
    }
    if (underWay?.command === 'delete' && !named.has(underWay.volume.name)) this.others.delete(underWay.volume.name);
    if (underWay?.command === 'grow' && named.get(underWay.volume.name)?.capacityBytes === underWay.bytes)
      underWay.volume.grew(underWay.bytes);
    for (const volume of this.volumes) {
      const view = named.get(volume.name);
      if (view === undefined) this.violation(`volume ${volume.name} is gone`);
      else if (view.capacityBytes !== volume.bytes)
        this.violation(`volume ${volume.name} has ${view.capacityBytes} bytes, and had ${volume.bytes}`);
    }
    for (const { name } of views) if (!this.volumes.some((volume) => volume.name === name)) this.violation(`volume ${name} is there again`);
  }

  /** Reads every volume to its end. */
  async checkContents(engine: EngineProcess): Promise<void> {
    for (const volume of this.volumes) for (const text of await volume.check(engine)) this.violation(text);
  }
}

const viewOf = (views: readonly PairView[], pair: PairModel): PairView | undefined =>
  views.find((view) => view.primary.name === pair.primary.name && view.secondary.name === pair.secondary.name);
