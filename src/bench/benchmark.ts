/**
 * One benchmark run against one NBD export: connects, warms up, measures, reads back where it verifies, disconnects.
 *
 * A run ends by itself: the runtime is over, then what is in flight may take `ANSWER_MS_MAX`, then the connections are
 * cut and the rest counts as unanswered. The reading back may take as long as it gets on, and `ANSWER_MS_MAX` without a
 * reply. A caller who gives it up (`signal`) gets what was measured until then, two seconds later at the most.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { TwinvolError } from '../core/faults.ts';
import type { NbdClient } from '../nbd-client/nbd-client.ts';
import { BlockLedger } from './block-ledger.ts';
import { ConnectionLoop, type OwnBlocks, RunState } from './connection-loop.ts';
import { connectTo, leave, tooFewConnections } from './export-connection.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import {
  type OperationResult,
  OPERATIONS,
  operationResult,
  type RunResult,
  type StreamResult,
  sumOf,
  type Tally,
  type VerificationResult,
} from './measurement.ts';
import { RandomNumbers } from './random-numbers.ts';
import { RequestSource } from './request-source.ts';
import type { Placement, Stream, Workload } from './workload.ts';

/** How long a server may take to answer what is in flight at the end, and when the user is waiting for the prompt. */
const ANSWER_MS_MAX = 30_000;
const INTERRUPTED_ANSWER_MS_MAX = 2000;
const PROGRESS_MS = 250;

export type Progress = {
  readonly phase: 'warm-up' | 'measuring' | 'answers' | 'reading-back';
  /** Of the phase, 0 to 1. */
  readonly done: number;
  readonly elapsedMs: number;
  /** Of the warm-up, or of what was measured so far. */
  readonly operations: number;
  readonly bytes: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: number;
};

export type BenchmarkInput = {
  readonly uri: string;
  readonly workload: Workload;
  readonly placement: Placement;
  readonly verify: boolean;
  /** An open connection to the export, from `openExport`; the run uses it as its first one, and closes it. */
  readonly first?: NbdClient | null;
};
export type BenchmarkHooks = {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** For tests: instead of `ANSWER_MS_MAX`. */
  readonly answerMsMax?: number;
};

class BenchmarkRun {
  readonly #input: BenchmarkInput;
  readonly #hooks: BenchmarkHooks;
  readonly #state = new RunState();
  readonly #clients: NbdClient[] = [];
  readonly #loops: ConnectionLoop[] = [];
  readonly #ledger: BlockLedger | null;
  #sizeBytes = 0;
  #requestBytesMax = 0;

  constructor(input: BenchmarkInput, hooks: BenchmarkHooks) {
    this.#input = input;
    this.#hooks = hooks;
    const { offset, length } = input.placement;
    const [first] = input.workload.streams;
    this.#ledger = input.verify && first !== undefined ? new BlockLedger(offset, length, first.blockBytes, Date.now()) : null;
  }

  async run(): Promise<RunResult> {
    const { warmupMs, runtimeMs, seed } = this.#input.placement;
    const startedAtMs = Date.now();
    await this.#connect();
    const filler = new RandomNumbers(seed, 0x5eed);
    const loops = Promise.all(this.#loops.map((loop) => loop.run(filler)));
    // All connections are lost, or a fault of ours: either ends the waiting.
    const ended = loops.then(() => true);
    ended.catch(() => {});
    try {
      const isMeasured = await this.#phase('warm-up', warmupMs, ended);
      if (isMeasured) this.#forget();
      const measuredFromMs = performance.now();
      const cpu = process.cpuUsage();
      if (isMeasured) await this.#phase('measuring', runtimeMs, ended);
      const { user, system } = process.cpuUsage(cpu);
      const clientCpuPercent = ((user + system) / 1000 / (performance.now() - measuredFromMs)) * 100;
      await this.#answers(ended);
      const elapsedMs = isMeasured ? performance.now() - measuredFromMs : 0;
      if (!isMeasured) this.#forget();
      const verification = await this.#readBack();
      return this.#result({ startedAtMs, isMeasured, elapsedMs, clientCpuPercent, verification });
    } finally {
      this.#state.isStopped = true;
      await this.#disconnect();
      await loops.catch(() => {});
    }
  }

  async #connect(): Promise<void> {
    const { workload, placement } = this.#input;
    try {
      for (const [key, stream] of workload.streams.entries()) {
        for (let index = 0; index < stream.connections; index += 1) {
          const client = await this.#client(stream.depth);
          this.#clients.push(client);
          const source = new RequestSource(stream, placement.length, placement.seed, index, key);
          this.#loops.push(
            new ConnectionLoop(client, stream, source, this.#state, placement.offset, this.#ownBlocks(client, stream, index)),
          );
        }
      }
    } catch (error) {
      await this.#disconnect();
      throw error;
    }
    const [one] = this.#clients;
    this.#sizeBytes = one?.info.sizeBytes ?? 0;
    this.#requestBytesMax = one?.info.blockSizes.maximumBytes ?? 0;
  }

  /** The next connection. @throws TwinvolError, as `connectTo` does */
  async #client(depth: number): Promise<NbdClient> {
    const { uri, workload, first } = this.#input;
    const made = this.#clients.length;
    if (made === 0 && first?.isOpen === true) return first;
    try {
      return await connectTo(uri, depth, this.#hooks.signal);
    } catch (error) {
      if (made === 0 || !(error instanceof TwinvolError) || error.code !== 'NBD_UNREACHABLE') throw error;
      throw tooFewConnections(workload, made, error);
    }
  }

  #ownBlocks(client: NbdClient, { connections, depth, name }: Stream, index: number): OwnBlocks | null {
    const ledger = this.#ledger;
    if (ledger === null) return null;
    if (ledger.blocks < connections * depth) {
      const remedy = 'use a larger --size or --range, or a smaller --depth';
      throw new TwinvolError('USAGE', `${name}: the range has ${ledger.blocks} blocks, fewer than requests in flight`, { remedy });
    }
    return { ledger, first: index, stride: connections, mayUseOthers: client.info.canMultiConn };
  }

  /** What the warm-up counted. */
  #forget(): void {
    for (const tally of this.#allTallies()) tally.reset();
    this.#state.errors.clear();
  }

  /** @returns true when the time is over, false when the user gave up or all connections are lost before */
  async #phase(phase: 'warm-up' | 'measuring', durationMs: number, ended: Promise<boolean>): Promise<boolean> {
    const fromMs = performance.now();
    const { signal } = this.#hooks;
    let isEnded = false;
    while (!isEnded && signal?.aborted !== true) {
      const leftMs = fromMs + durationMs - performance.now();
      if (leftMs <= 0) return true;
      isEnded = await Promise.race([ended, delay(Math.min(leftMs, PROGRESS_MS), false)]);
      this.#tell(phase, durationMs === 0 ? 1 : Math.min(1, (performance.now() - fromMs) / durationMs), performance.now() - fromMs);
    }
    return false;
  }

  /** Sends no more, and waits for the replies to what is in flight. */
  async #answers(ended: Promise<boolean>): Promise<void> {
    this.#state.isStopped = true;
    const fromMs = performance.now();
    const onTurn = (): void => this.#tell('answers', 0, performance.now() - fromMs);
    await this.#endedOrCut(ended, () => fromMs, onTurn);
  }

  /** Waits for the server as long as a caller can be expected to; then the connections are cut, and that ends it. */
  async #endedOrCut(ended: Promise<boolean>, lastReplyMs: () => number, onTurn: () => void): Promise<void> {
    const { signal, answerMsMax = ANSWER_MS_MAX } = this.#hooks;
    let givenUpMs: number | null = null;
    for (;;) {
      const nowMs = performance.now();
      if (signal?.aborted === true) givenUpMs ??= nowMs;
      if (nowMs - lastReplyMs() >= answerMsMax || (givenUpMs !== null && nowMs - givenUpMs >= INTERRUPTED_ANSWER_MS_MAX)) break;
      if (await Promise.race([ended, delay(PROGRESS_MS, false)])) return;
      onTurn();
    }
    for (const client of this.#clients) client.destroy();
    await ended;
  }

  async #readBack(): Promise<VerificationResult | null> {
    const ledger = this.#ledger;
    if (ledger === null) return null;
    const total = ledger.known;
    const startMs = performance.now();
    let [checked, lastReplyMs] = [0, startMs];
    const isGivenUp = (): boolean => this.#hooks.signal?.aborted === true;
    const onChecked = (): void => {
      checked += 1;
      lastReplyMs = performance.now();
    };
    const ended = Promise.all(this.#loops.map((loop) => loop.readBack({ isGivenUp, onChecked }))).then(() => true);
    const onTurn = (): void => this.#tell('reading-back', total === 0 ? 1 : checked / total, performance.now() - startMs);
    await this.#endedOrCut(ended, () => lastReplyMs, onTurn);
    const { mismatches, details } = ledger;
    return { checkedBlocks: ledger.checked, mismatches, details, unreadBlocks: total - checked, complete: total > 0 && checked === total };
  }

  #allTallies(): Tally[] {
    return this.#loops.flatMap(({ tallies }) => OPERATIONS.map((operation) => tallies[operation]));
  }

  #tell(phase: Progress['phase'], done: number, elapsedMs: number): void {
    const { onProgress } = this.#hooks;
    if (onProgress === undefined) return;
    const latency = new LatencyHistogram();
    let [operations, bytes, errors] = [0, 0, 0];
    for (const tally of this.#allTallies()) {
      latency.merge(tally.latency);
      operations += tally.operations;
      bytes += tally.bytes;
      errors += tally.errors;
    }
    onProgress({ phase, done, elapsedMs, operations, bytes, p50Ms: latency.percentileMs(50), p99Ms: latency.percentileMs(99), errors });
  }

  #result(parts: Pick<RunResult, 'startedAtMs' | 'isMeasured' | 'elapsedMs' | 'clientCpuPercent' | 'verification'>): RunResult {
    const { uri, workload, placement } = this.#input;
    const of = (pick: (loop: ConnectionLoop) => readonly Tally[]): OperationResult =>
      operationResult(sumOf(this.#loops.flatMap(pick)), parts.elapsedMs);
    const streams = workload.streams.map((stream): StreamResult => {
      const loops = this.#loops.filter((loop) => loop.stream === stream);
      const tallies = loops.map((loop) => sumOf(OPERATIONS.map((operation) => loop.tallies[operation])));
      const operations = tallies.map((tally) => tally.operations);
      const mean = operations.reduce((sum, one) => sum + one, 0) / operations.length;
      const fairness = mean === 0 ? 1 : Math.min(...operations) / mean;
      return { name: stream.name, connections: stream.connections, fairness, ...operationResult(sumOf(tallies), parts.elapsedMs) };
    });
    return {
      uri,
      sizeBytes: this.#sizeBytes,
      requestBytesMax: this.#requestBytesMax,
      workload,
      placement,
      ...parts,
      total: of(({ tallies }) => OPERATIONS.map((operation) => tallies[operation])),
      read: of(({ tallies }) => [tallies.read]),
      write: of(({ tallies }) => [tallies.write]),
      flush: of(({ tallies }) => [tallies.flush]),
      streams,
      errors: Object.fromEntries(this.#state.errors),
      unanswered: this.#state.unanswered,
      interrupted: this.#hooks.signal?.aborted === true,
      broken: this.#state.broken,
    };
  }

  #disconnect(): Promise<void> {
    return leave(this.#clients);
  }
}

/**
 * Runs a workload once; the placement must have been checked with `placeWorkload`.
 * @throws TwinvolError `URI_INVALID`, `NBD_UNREACHABLE`, `CANCELLED` (given up while connecting), `USAGE`
 */
export const runBenchmark = (input: BenchmarkInput, hooks: BenchmarkHooks = {}): Promise<RunResult> => new BenchmarkRun(input, hooks).run();
