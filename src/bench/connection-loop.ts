/**
 * One connection of a stream at work: `depth` loops that send a request, wait for its reply and count it.
 *
 * A verifying run on a server that does not promise that connections see each other's writes (CAN_MULTI_CONN) keeps each
 * connection to blocks of its own: every `stride`-th one.
 *
 * Invariants: a buffer belongs to one loop and has one request at a time; after `state.isStopped` nothing is sent; a
 * loop ends when the client is broken, so that a dead server does not keep a processor busy.
 */
import { setImmediate, setTimeout } from 'node:timers/promises';
import { NbdError } from '../nbd-client/nbd-error.ts';
import type { NbdClient } from '../nbd-client/nbd-client.ts';
import type { BlockLedger } from './block-ledger.ts';
import { newTallies, type Operation, type Tallies } from './measurement.ts';
import { RandomNumbers } from './random-numbers.ts';
import type { RequestSource } from './request-source.ts';
import type { Stream } from './workload.ts';

/** What all loops of a run share. */
export class RunState {
  isStopped = false;
  /** Error code -> how often. */
  readonly errors = new Map<string, number>();
  unanswered = 0;
  broken: string | null = null;
}

/** The blocks of a connection of a verifying run: every `stride`-th one from `first` on. */
export type OwnBlocks = {
  readonly ledger: BlockLedger;
  readonly first: number;
  readonly stride: number;
  /** It may use those of the others too; only the reading back is shared out. */
  readonly mayUseOthers: boolean;
};

export type ReadingBack = {
  readonly isGivenUp: () => boolean;
  /** A block has been read and compared; one that could not be read is not told. */
  readonly onChecked: () => void;
};

export class ConnectionLoop {
  readonly stream: Stream;
  readonly tallies: Tallies = newTallies();
  readonly #client: NbdClient;
  readonly #source: RequestSource;
  readonly #state: RunState;
  readonly #offset: number;
  readonly #own: OwnBlocks | null;
  readonly #ledger: BlockLedger | null;
  #writesSinceFlush = 0;
  #sentInBurst = 0;
  #pause: Promise<unknown> | null = null;

  constructor(client: NbdClient, stream: Stream, source: RequestSource, state: RunState, offset: number, own: OwnBlocks | null) {
    this.#client = client;
    this.stream = stream;
    this.#source = source;
    this.#state = state;
    this.#offset = offset;
    this.#own = own;
    this.#ledger = own?.ledger ?? null;
  }

  /** Until the run is stopped or the connection is lost. */
  async run(filler: RandomNumbers): Promise<void> {
    const { depth, blockBytes } = this.stream;
    const loops = Array.from({ length: depth }, () => {
      const buffer = Buffer.allocUnsafeSlow(blockBytes);
      filler.fill(buffer);
      return this.#loop(buffer);
    });
    await Promise.all(loops);
  }

  /** Reads back what is known of the connection's blocks, until it is given up or the connection is lost. */
  async readBack({ isGivenUp, onChecked }: ReadingBack): Promise<void> {
    if (this.#own === null) return;
    const { ledger, first, stride } = this.#own;
    let next = first;
    const take = (): number => {
      const block = next < 0 || !this.#client.isOpen || isGivenUp() ? -1 : ledger.nextKnown(next, stride);
      next = block < 0 ? -1 : block + stride;
      return block;
    };
    const loops = Array.from({ length: this.stream.depth }, async () => {
      const buffer = Buffer.allocUnsafeSlow(this.stream.blockBytes);
      for (let block = take(); block >= 0; block = take()) {
        try {
          await this.#client.readInto(buffer, this.#offset + block * this.stream.blockBytes);
        } catch (error) {
          await this.#failed('read', error);
          continue;
        }
        ledger.check(buffer, block);
        onChecked();
      }
    });
    await Promise.all(loops);
  }

  async #loop(buffer: Buffer): Promise<void> {
    const { flushEvery, burst } = this.stream;
    while (!this.#state.isStopped && this.#client.isOpen) {
      if (burst !== null) await this.#keepPace(burst);
      if (flushEvery > 0 && this.#writesSinceFlush >= flushEvery) {
        this.#writesSinceFlush = 0;
        await this.#timed('flush', 0, () => this.#client.flush());
      } else if (!this.#state.isStopped) {
        await this.#request(buffer);
      }
    }
  }

  /** After a burst all loops of the connection wait for the same moment. */
  async #keepPace(burst: { readonly requests: number; readonly pauseMs: number }): Promise<void> {
    if (this.#pause !== null) await this.#pause;
    this.#sentInBurst += 1;
    if (this.#sentInBurst <= burst.requests) return;
    this.#sentInBurst = 0;
    this.#pause = setTimeout(burst.pauseMs);
    await this.#pause;
    this.#pause = null;
  }

  async #request(buffer: Buffer): Promise<void> {
    const source = this.#source;
    source.next();
    const { isWrite } = source;
    const ledger = this.#ledger;
    const block = this.#own === null ? source.block : this.#claim(this.#own, source.block);
    if (block < 0) {
      await setImmediate();
      return;
    }
    if (isWrite) await this.#write(buffer, block, ledger);
    else await this.#read(buffer, block, ledger);
    ledger?.release(block);
  }

  /** The block that the source names, or the nearest one that it may use. */
  #claim({ ledger, first, stride, mayUseOthers }: OwnBlocks, block: number): number {
    if (mayUseOthers) return ledger.claim(block);
    return ledger.claim(block - (block % stride) + first, stride);
  }

  async #read(buffer: Buffer, block: number, ledger: BlockLedger | null): Promise<void> {
    const offset = this.#offset + block * this.stream.blockBytes;
    const isDone = await this.#timed('read', buffer.length, () => this.#client.readInto(buffer, offset));
    if (isDone) ledger?.check(buffer, block);
  }

  async #write(buffer: Buffer, block: number, ledger: BlockLedger | null): Promise<void> {
    const offset = this.#offset + block * this.stream.blockBytes;
    const sequence = ledger?.stamp(buffer, block) ?? 0;
    this.#writesSinceFlush += 1;
    const { fua } = this.stream;
    const isDone = await this.#timed('write', buffer.length, () => this.#client.write(offset, buffer, { fua }));
    ledger?.wrote(block, sequence, isDone);
  }

  /** Sends, waits and counts. @returns whether it was answered without an error */
  async #timed(operation: Operation, bytes: number, send: () => Promise<void>): Promise<boolean> {
    const sentAtMs = performance.now();
    try {
      await send();
    } catch (error) {
      await this.#failed(operation, error);
      return false;
    }
    this.tallies[operation].done(performance.now() - sentAtMs, bytes);
    return true;
  }

  async #failed(operation: Operation, error: unknown): Promise<void> {
    if (!(error instanceof NbdError)) throw error;
    const state = this.#state;
    if (error.code === 'NBD_CLOSED' && state.isStopped) {
      state.unanswered += 1;
      return;
    }
    this.tallies[operation].errors += 1;
    state.errors.set(error.code, (state.errors.get(error.code) ?? 0) + 1);
    if (!this.#client.isOpen) state.broken ??= error.message;
    // A request that fails at once must not keep the timers from running.
    await setImmediate();
  }
}
