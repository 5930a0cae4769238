/**
 * A volume as a harness sees it: its name, what each of its blocks may show, and who writes to it.
 *
 * Without a history nothing is known of its content (a secondary while it is paired), and nothing is demanded.
 */
import { INTENT_EXTENT_BYTES } from '../../src/core/units.ts';
import { connect } from '../../src/nbd-client/index.ts';
import type { EngineProcess } from './engine-process.ts';
import type { Random } from './random.ts';
import { BLOCK_BYTES, blockAt } from './stamped-block.ts';
import { VolumeWriters, type WriterFigures } from './volume-writers.ts';
import { type Promised, WriteHistory } from './write-history.ts';

const READ_BYTES = 1024 * 1024;
/** More would say no more. */
const VIOLATIONS_SHOWN = 5;

export type WritingOptions = {
  readonly random: Random;
  readonly connections: number;
  readonly restMs: number;
  readonly mayFail: () => boolean;
  /** Told of each intent extent that a write was issued to. */
  readonly onTouched: (extent: number) => void;
  readonly onViolation: (text: string) => void;
};

export class VolumeModel {
  readonly name: string;
  readonly number: number;
  readonly promised: Promised;
  history: WriteHistory | null;
  readonly figures: WriterFigures = { writes: 0, flushes: 0, reads: 0, errors: 0 };
  #bytes: number;
  #writers: VolumeWriters | null = null;

  constructor(name: string, number: number, bytes: number, promised: Promised) {
    this.name = name;
    this.number = number;
    this.#bytes = bytes;
    this.promised = promised;
    this.history = new WriteHistory(bytes / BLOCK_BYTES, promised);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** It was made longer; zeros were added. */
  grew(bytes: number): void {
    this.#bytes = bytes;
    this.history = this.history?.grown(bytes / BLOCK_BYTES) ?? null;
  }

  startWriters(engine: EngineProcess, options: WritingOptions): void {
    if (this.history === null) throw new Error(`nothing is known of ${this.name}`);
    this.#writers = new VolumeWriters({
      uri: engine.uri(this.name),
      volume: this.number,
      history: this.history,
      connections: options.connections,
      random: options.random,
      restMs: options.restMs,
      mayFail: options.mayFail,
      onIssue: (first, count) => {
        for (let block = first; block < first + count; block += 1)
          options.onTouched(Math.floor((block * BLOCK_BYTES) / INTENT_EXTENT_BYTES));
      },
      onViolation: (text) => options.onViolation(`${this.name}: ${text}`),
    });
  }

  /** From now on its writers follow another history: its content was replaced. */
  becomes(history: WriteHistory): void {
    this.history = history;
    if (this.#writers !== null) this.#writers.history = history;
  }

  /** Its content may be replaced at any moment, or was: what writers read is not judged, and their errors are right. */
  set isUncertain(isUncertain: boolean) {
    if (this.#writers !== null) this.#writers.isUncertain = isUncertain;
  }

  async stopWriters(): Promise<void> {
    await this.#writers?.stop();
    this.#gone();
  }

  /** The engine was killed, or does not let anybody write here any more. */
  abandonWriters(): void {
    this.#writers?.abandon();
    this.#gone();
  }

  #gone(): void {
    const figures = this.#writers?.figures;
    this.#writers = null;
    if (figures === undefined) return;
    for (const name of ['writes', 'flushes', 'reads', 'errors'] as const) this.figures[name] += figures[name];
  }

  /** Reads all of it and compares it with the history; from then on it is what it was found to be. @returns what is wrong */
  async check(engine: EngineProcess): Promise<readonly string[]> {
    const { history } = this;
    if (history === null) return [];
    history.settle();
    const wrong: string[] = [];
    await using client = await connect({ uri: engine.uri(this.name) });
    for (let at = 0; at < this.#bytes; at += READ_BYTES) {
      const length = Math.min(READ_BYTES, this.#bytes - at);
      const bytes = await client.read(at, length);
      for (let done = 0; done < length; done += BLOCK_BYTES) {
        const block = (at + done) / BLOCK_BYTES;
        const found = blockAt(bytes, done, block);
        if (!('broken' in found) && history.mayShow(block, found.sequence)) history.found(block, found.sequence);
        else
          wrong.push(
            `${this.name}: block ${block} is ${'broken' in found ? found.broken : shown(found.sequence)}, and may be ${history.expectation(block)}`,
          );
      }
    }
    return wrong.length <= VIOLATIONS_SHOWN
      ? wrong
      : [...wrong.slice(0, VIOLATIONS_SHOWN), `${this.name}: and ${wrong.length - VIOLATIONS_SHOWN} blocks more`];
  }
}

const shown = (sequence: number): string => (sequence === 0 ? 'zeros' : `write ${sequence}`);
