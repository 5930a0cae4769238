/**
 * A crash trial: hosts write, an operator gives commands, the engine is ended without warning, and after the restart
 * everything that was promised is looked for. Again and again, on the same store.
 *
 * After each crash: the store's own check finds it sound; every pair is in a state that follows from the answered
 * commands, and the one that was cut off is there as a whole or not at all; every block of every volume shows a write
 * that it may show (write-history.ts); what has to be copied again is not more than `status` had said; and, in about
 * half of the rounds, after the copies have ended, both legs of every duplex pair are equal, read by the engine's verify
 * and once more over NBD.
 *
 * What repeats with a seed: the commands, their order, the writers' requests, the moments of the crashes as delays. What
 * does not: how far each part is at such a moment.
 */
import { createHash } from 'node:crypto';
import { connect, NbdError } from '../../src/nbd-client/index.ts';
import { checkStore } from '../../src/store/check.ts';
import { BoundWatch } from './bound-watch.ts';
import { EngineProcess } from './engine-process.ts';
import { isKilled, Operator } from './operator.ts';
import type { PairModel } from './pair-model.ts';
import type { Random } from './random.ts';
import { GONE } from './volume-writers.ts';
import { World } from './world.ts';
import type { Promised } from './write-history.ts';

const COPY_MS_MAX = 120_000;
const READ_BYTES = 1024 * 1024;

export type TrialOptions = {
  /** A store that was just initialised. */
  readonly store: string;
  readonly random: Random;
  readonly crashes: number;
  readonly promised: Promised;
  readonly durability: 'power' | 'process';
  /**
   * Ends the engine, and brings the store back to where an engine can be started. `mediumGoes` is to be called before
   * the medium goes, where it goes before the engine: nothing that is answered later counts, for in truth both end at once.
   */
  readonly crash: (engine: EngineProcess, mediumGoes: () => void) => Promise<void>;
  readonly restMs: number;
  readonly serveWords?: readonly string[];
  /** One line for each decision and finding. */
  readonly say?: (text: string) => void;
  readonly onRound?: (report: TrialReport) => void;
};

export type TrialReport = {
  crashes: number;
  commands: number;
  /** Commands that the crash cut off. */
  cutOff: number;
  writes: number;
  flushes: number;
  reads: number;
  recoveredBytes: number;
  boundBytes: number;
  startMsMax: number;
  legsCompared: number;
  tookMs: number;
  /** How often a crash met a pair in a state, and cut a command off: `split`, `pair restore`. */
  readonly met: Record<string, number>;
};

/** What was found wrong. The message says what was decided before. */
export class TrialViolation extends Error {}

export class CrashTrial {
  readonly #options: TrialOptions;
  readonly #world: World;
  readonly #operator: Operator;
  readonly #random: Random;
  readonly #decisions: string[] = [];
  readonly report: TrialReport = {
    crashes: 0,
    commands: 0,
    cutOff: 0,
    writes: 0,
    flushes: 0,
    reads: 0,
    recoveredBytes: 0,
    boundBytes: 0,
    startMsMax: 0,
    legsCompared: 0,
    tookMs: 0,
    met: {},
  };
  readonly #bound: BoundWatch;

  constructor(options: TrialOptions) {
    this.#options = options;
    this.#random = options.random.fork('trial');
    this.#world = new World({
      promised: options.promised,
      random: options.random.fork('world'),
      restMs: options.restMs,
      say: (text) => this.#say(text),
    });
    this.#bound = new BoundWatch(this.#world);
    this.#operator = new Operator(this.#world, options.random.fork('operator'));
  }

  /** @throws TrialViolation */
  async run(): Promise<TrialReport> {
    const startedMs = performance.now();
    let engine = await this.#start();
    try {
      await engine.call('settings.set', { durability: this.#options.durability });
      await this.#world.make(engine);
      while (this.report.crashes < this.#options.crashes) {
        await this.#round(engine);
        engine = await this.#afterCrash();
        this.report.tookMs = performance.now() - startedMs;
        this.#options.onRound?.(this.report);
      }
      await this.#end(engine);
    } catch (error) {
      if (error instanceof TrialViolation) throw error;
      throw new TrialViolation(
        `${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n${this.#story()}\nthe engine's log:\n${engine.log}`,
        { cause: error },
      );
    } finally {
      this.#world.abandonWriters();
      await engine.kill();
    }
    return this.report;
  }

  /** Commands and writes until the crash. */
  async #round(engine: EngineProcess): Promise<void> {
    this.#say(`-- round ${this.report.crashes + 1}`);
    const random = this.#random;
    const steps = random.int(0, 4);
    const isInCommand = random.chance(0.75);
    // Most commands take a few milliseconds: the shortest delays meet their inside.
    const delayMs = random.pick([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 20, 40, 100]);
    this.#world.writeEverywhere(engine);
    const watching = this.#bound.follow(engine);
    for (let step = 0; step < steps; step += 1) await this.#operator.step(engine);
    await later(random.int(0, 120));
    this.#world.say(`crash ${isInCommand ? 'in the next command' : 'between commands'}, after ${delayMs} ms`);
    const cutOff = isInCommand ? settled(this.#cutOff(engine)) : Promise.resolve(null);
    await later(delayMs);
    await this.#options.crash(engine, () => this.#world.mediumGoes());
    this.#world.abandonWriters();
    const [failure] = await Promise.all([cutOff, watching]);
    if (failure !== null) throw failure;
    this.report.crashes += 1;
    for (const name of this.#world.whatIsMet()) this.report.met[name] = (this.report.met[name] ?? 0) + 1;
    this.report.commands = this.#operator.commands;
  }

  /** One more command, which most probably gets no answer. */
  async #cutOff(engine: EngineProcess): Promise<void> {
    try {
      await this.#operator.step(engine);
    } catch (error) {
      if (!this.#isCrash(error)) throw error;
      this.report.cutOff += 1;
    }
  }

  /** A file system that is gone lets commands fail with an error before the engine is ended. */
  #isCrash(error: unknown): boolean {
    if (isKilled(error) || (error instanceof NbdError && GONE.has(error.code))) return true;
    return this.#options.promised === 'flushed' && error instanceof Error;
  }

  async #start(): Promise<EngineProcess> {
    const engine = await EngineProcess.start(this.#options.store, this.#options.serveWords);
    this.report.startMsMax = Math.max(this.report.startMsMax, engine.startMs);
    return engine;
  }

  async #afterCrash(): Promise<EngineProcess> {
    const check = await checkStore(this.#options.store);
    for (const { severity, file, text } of check.findings)
      if (severity === 'damage') this.#world.violation(`store check: ${file}: ${text}`);
    this.#judge('the store check');
    const engine = await this.#start();
    try {
      await this.#meet(engine);
      if (this.#random.chance(0.5)) await this.#compareLegs(engine);
      return engine;
    } catch (error) {
      await engine.kill();
      if (error instanceof TrialViolation) throw error;
      throw new TrialViolation(`${String(error)}\n${this.#story()}\nthe engine's log:\n${engine.log}`, { cause: error });
    }
  }

  async #meet(engine: EngineProcess): Promise<void> {
    const { durability } = await engine.call('device.status', {});
    const boundBytes = this.#bound.boundBytes();
    this.report.recoveredBytes += durability.lastRecoveryBytes;
    this.report.boundBytes += boundBytes ?? 0;
    if (boundBytes !== null && durability.lastRecoveryBytes > boundBytes) {
      this.#world.violation(`${durability.lastRecoveryBytes} bytes are copied again, and status had said ${boundBytes} at most`);
    }
    await this.#world.meet(engine);
    this.#judge('the state after the restart');
    await this.#world.checkContents(engine);
    this.#judge('the content after the restart');
    await this.#bound.ask(engine);
  }

  /** Nobody writes: when the copies have ended, the legs of each duplex pair are equal. */
  async #compareLegs(engine: EngineProcess): Promise<void> {
    this.#say('the legs are compared');
    for (const pair of this.#world.pairs) {
      if (pair.state !== 'copying') continue;
      await engine.call('pair.set', { ...pair.ref, pace: 15 });
      await pair.untilDuplex(engine, COPY_MS_MAX);
    }
    for (const pair of this.#world.pairs) {
      if (pair.state !== 'duplex') continue;
      const { differingBytes, differing } = await engine.call('pair.verify', pair.ref);
      if (differingBytes > 0)
        this.#world.violation(`${pair.name}: ${differingBytes} bytes differ: ${JSON.stringify(differing.slice(0, 5))}`);
      const [primary, secondary] = await Promise.all([hashOf(engine, pair, 'primary'), hashOf(engine, pair, 'secondary')]);
      if (primary !== secondary) this.#world.violation(`${pair.name}: duplex, and its volumes read differently`);
      this.report.legsCompared += 1;
    }
    this.#judge('the comparison of the legs');
  }

  /** An end in order leaves nothing to recover. */
  async #end(engine: EngineProcess): Promise<void> {
    await this.#compareLegs(engine);
    await engine.stop();
    const check = await checkStore(this.#options.store);
    if (!check.ok || check.summary?.wasCleanShutdown !== true)
      this.#world.violation(`after an end in order the store is not clean: ${JSON.stringify(check.findings)}`);
    const again = await this.#start();
    const { durability } = await again.call('device.status', {});
    if (durability.lastRecoveryBytes !== 0)
      this.#world.violation(`${durability.lastRecoveryBytes} bytes are copied again after an end in order`);
    await this.#world.checkContents(again);
    await again.stop();
    this.#judge('the end in order');
  }

  #judge(where: string): void {
    for (const volume of this.#world.volumes) {
      for (const name of ['writes', 'flushes', 'reads'] as const) this.report[name] += volume.figures[name];
      Object.assign(volume.figures, { writes: 0, flushes: 0, reads: 0, errors: 0 });
    }
    const { violations } = this.#world;
    if (violations.length > 0) throw new TrialViolation(`${where}: ${violations.join('\n')}\n${this.#story()}`);
  }

  #say(text: string): void {
    this.#decisions.push(text);
    this.#options.say?.(text);
  }

  #story(): string {
    const from = Math.max(0, this.#decisions.lastIndexOf(`-- round ${Math.max(1, this.report.crashes - 1)}`));
    return `what was decided last (seed ${this.#options.random.seed}):\n  ${this.#decisions.slice(from).join('\n  ')}`;
  }
}

const hashOf = async (engine: EngineProcess, pair: PairModel, side: 'primary' | 'secondary'): Promise<string> => {
  await using client = await connect({ uri: engine.uri(pair[side].name) });
  const hash = createHash('sha256');
  const { bytes } = pair.primary;
  for (let at = 0; at < bytes; at += READ_BYTES) hash.update(await client.read(at, Math.min(READ_BYTES, bytes - at)));
  return hash.digest('hex');
};

/** The error, or null. */
const settled = (work: Promise<void>): Promise<Error | null> =>
  work.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
