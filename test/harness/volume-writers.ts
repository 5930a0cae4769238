/**
 * Writers of one volume: several connections that write stamped blocks, zeros, flushes and FUA writes at random, and read
 * some of them back, until they are stopped or the engine is gone.
 *
 * Whatever is issued and answered goes into the volume's history. A part of the writes goes to a few hot blocks, so that
 * writes overlap across connections.
 */
import { connect, NbdError, type NbdClient } from '../../src/nbd-client/index.ts';
import type { Random } from './random.ts';
import { BLOCK_BYTES, blockAt, stampedBlocks } from './stamped-block.ts';
import { nextTick, type WriteHistory } from './write-history.ts';

const DEPTH = 4;
const BLOCKS_OF_A_WRITE_MAX = 24;
const BLOCKS_OF_ZEROS_MAX = 64;
const HOT_BLOCKS = 96;
const RECONNECT_MS = 25;
/** Codes with which a request ends when the engine, or the command that ended the connection, had its way. */
export const GONE: ReadonlySet<string> = new Set([
  'NBD_DISCONNECTED',
  'NBD_CLOSED',
  'NBD_ESHUTDOWN',
  'NBD_CONNECT',
  'NBD_REFUSED',
  'NBD_TIMEOUT',
]);

let lastSequence = 0;

export type WriterFigures = { writes: number; flushes: number; reads: number; errors: number };

export type WriterOptions = {
  readonly uri: string;
  /** Written into the blocks. */
  readonly volume: number;
  readonly history: WriteHistory;
  readonly connections: number;
  readonly random: Random;
  readonly onViolation: (text: string) => void;
  /** Told of each write when it is issued: first block and number of blocks. */
  readonly onIssue: (first: number, count: number) => void;
  /** Whether errors of the engine are right at this time: its medium is gone, or faults are injected. */
  readonly mayFail: () => boolean;
  /** Milliseconds between two requests of one worker; 0: as fast as it goes. */
  readonly restMs?: number;
};

export class VolumeWriters {
  readonly figures: WriterFigures = { writes: 0, flushes: 0, reads: 0, errors: 0 };
  history: WriteHistory;
  /** The volume's content may be replaced at this time: what is read is not judged, and requests may be refused. */
  isUncertain = false;
  readonly #options: WriterOptions;
  readonly #workers: Promise<void>[] = [];
  readonly #clients = new Set<NbdClient>();
  /** Sequence numbers that were used since the start, for reads that meet a write which came and went meanwhile. */
  readonly #firstSequence = lastSequence + 1;
  #isStopped = false;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.history = options.history;
    for (let index = 0; index < options.connections; index += 1)
      this.#workers.push(this.#connection(options.random.fork(`connection ${index}`)));
  }

  /** Ends after what is under way was answered, or could not be any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#workers);
  }

  /** The engine was killed: nothing that is under way is answered any more. */
  abandon(): void {
    this.#isStopped = true;
    for (const client of this.#clients) client.destroy();
  }

  async #connection(random: Random): Promise<void> {
    while (!this.#isStopped) {
      let client: NbdClient;
      try {
        client = await connect({ uri: this.#options.uri, depth: DEPTH, connectTimeoutMs: 5000 });
      } catch {
        await later(RECONNECT_MS);
        continue;
      }
      this.#clients.add(client);
      await Promise.all(Array.from({ length: DEPTH }, (_, index) => this.#work(client, random.fork(`${index}`))));
      this.#clients.delete(client);
      await client.disconnect().catch(() => undefined);
    }
  }

  /** Until the connection is gone. */
  async #work(client: NbdClient, random: Random): Promise<void> {
    while (!this.#isStopped && client.isOpen) {
      try {
        await this.#one(client, random);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        if (GONE.has(error.code)) return;
        this.figures.errors += 1;
        if (!this.#options.mayFail() && !this.isUncertain) this.#options.onViolation(`a request failed: ${error.message}`);
      }
      if ((this.#options.restMs ?? 0) > 0) await later(this.#options.restMs ?? 0);
    }
  }

  #one(client: NbdClient, random: Random): Promise<void> {
    switch (random.weighted({ write: 70, fua: 8, zeros: 6, flush: 4, read: 12 })) {
      case 'write':
        return this.#write(client, random, false);
      case 'fua':
        return this.#write(client, random, true);
      case 'zeros':
        return this.#zeros(client, random);
      case 'flush':
        return this.#flush(client);
      case 'read':
        return this.#read(client, random);
    }
  }

  #place(random: Random, countMax: number): { readonly first: number; readonly count: number } {
    const { blocks } = this.history;
    const isHot = random.chance(0.4);
    const count = random.int(1, random.chance(0.7) ? 2 : countMax);
    const first = random.int(0, (isHot ? Math.min(HOT_BLOCKS, blocks) : blocks) - 1);
    return { first, count: Math.min(count, blocks - first) };
  }

  async #write(client: NbdClient, random: Random, fua: boolean): Promise<void> {
    const { first, count } = this.#place(random, BLOCKS_OF_A_WRITE_MAX);
    lastSequence += 1;
    const sequence = lastSequence;
    const bytes = stampedBlocks(this.#options.volume, first, count, sequence);
    await this.#recorded(first, count, sequence, fua, () => client.write(first * BLOCK_BYTES, bytes, { fua }));
  }

  async #zeros(client: NbdClient, random: Random): Promise<void> {
    const { first, count } = this.#place(random, BLOCKS_OF_ZEROS_MAX);
    const [offset, length] = [first * BLOCK_BYTES, count * BLOCK_BYTES];
    const isTrim = random.chance(0.5);
    await this.#recorded(first, count, 0, false, () => (isTrim ? client.trim(offset, length) : client.writeZeroes(offset, length)));
  }

  async #recorded(first: number, count: number, sequence: number, fua: boolean, work: () => Promise<void>): Promise<void> {
    const { history } = this;
    this.#options.onIssue(first, count);
    const write = history.issue(first, count, sequence);
    try {
      await work();
      history.acknowledge(write, fua);
      this.figures.writes += 1;
    } catch (error) {
      history.giveUp(write);
      throw error;
    }
  }

  async #flush(client: NbdClient): Promise<void> {
    const done = this.history.flushing();
    await client.flush();
    done();
    this.figures.flushes += 1;
  }

  /** What is read was allowed when the read began, or is now, or came in between. */
  async #read(client: NbdClient, random: Random): Promise<void> {
    const { history } = this;
    const { first } = this.#place(random, 1);
    const wasUncertain = this.isUncertain;
    const before = history.shownBy(first);
    const issuedAt = nextTick();
    const found = blockAt(await client.read(first * BLOCK_BYTES, BLOCK_BYTES), 0, first);
    this.figures.reads += 1;
    if (wasUncertain || this.isUncertain || history !== this.history) return;
    if ('broken' in found) return this.#options.onViolation(`block ${first} was read as ${found.broken}`);
    if (before.has(found.sequence) || history.mayShow(first, found.sequence) || history.wasIssuedSince(issuedAt, found.sequence)) return;
    this.#options.onViolation(
      `block ${first} was read as write ${found.sequence}, and may be ${history.expectation(first)} (this run began with ${this.#firstSequence})`,
    );
  }
}

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
