/**
 * A pair under load: threads write to the primary by the real write path while the real copy runs, and the legs are
 * compared at closed gates in between. What is compared: clean regions, which must be equal at any closed gate.
 */
import type { PairMode } from '../../src/data/plane-api.ts';
import { switchPairs } from '../../src/data/pair-switch.ts';
import { deviceBlock, PAIR, SLOT_COPY_FIRST, SLOT_COPY_HELPER, SLOT_MAIN, wideCount } from '../../src/data/shared-memory.ts';
import { WriteGate } from '../../src/data/write-gate.ts';
import type { HelpResult } from '../../src/data/copy-helper.ts';
import type { CopyResult } from '../../src/data/copy-task.ts';
import { type LegPair, PRIMARY, unequalRegions } from './plane-legs.ts';
import type { TraceEvent, TraceShared } from './plane-trace.ts';
import { CONTROL, controlBlock, type LockKind, startThread, type Thread, type WriteJob } from './plane-thread.ts';

export type WriteResult = { readonly rounds: number; readonly codes: readonly string[] };
type WriterOptions = Partial<Pick<WriteJob, 'volume' | 'locks' | 'where' | 'lengthMax' | 'zerosEvery' | 'restMs' | 'burst' | 'flushEvery'>>;

/** A thread that copies, or helps, each time that it is told. */
type Copier = { readonly thread: Thread<void>; readonly control: Int32Array };

const onGo = <R>({ thread, control }: Copier): Promise<R> => {
  const ended = new Promise<R>((resolve) => {
    thread.onSaid = (result) => resolve(result as R);
  });
  Atomics.add(control, CONTROL.GO, 1);
  Atomics.notify(control, CONTROL.GO);
  return ended;
};

export class PlaneLoad {
  readonly legs: LegPair;
  readonly device: Int32Array = deviceBlock();
  readonly gate: WriteGate = new WriteGate(this.device, SLOT_MAIN);
  readonly #writers: Array<{ readonly thread: Thread<WriteResult>; readonly control: Int32Array }> = [];
  readonly #trace: TraceShared | undefined;
  readonly #survivesPowerLoss: boolean;
  readonly #ended: Array<Thread<unknown>> = [];
  /** What helpers have copied. */
  helpedBytes = 0;
  #copier: Copier | null = null;
  #helper: Copier | null = null;

  /** @param trace records everything that the threads write and sync; they keep it until they have ended (`events`) */
  constructor(legs: LegPair, options: { readonly trace?: TraceShared; readonly survivesPowerLoss?: boolean } = {}) {
    this.legs = legs;
    this.#trace = options.trace;
    this.#survivesPowerLoss = options.survivesPowerLoss ?? false;
  }

  #common(slot: number) {
    const { pair, primary, secondary } = this.legs;
    return {
      slot,
      device: this.device.buffer as SharedArrayBuffer,
      volumes: [primary.message(), secondary.message()],
      pairs: [pair.message()],
      ...(this.#trace === undefined ? {} : { trace: this.#trace }),
    };
  }

  async switch(mode: PairMode, dirty: 'keep' | 'all' | 'clear' | 'merge', onlyIfClean = false): Promise<boolean> {
    return (await switchPairs(this.gate, [{ change: { id: this.legs.pair.spec.id, mode, dirty, onlyIfClean }, pair: this.legs.pair }]))
      .switched;
  }

  /** Starts a writer and waits until it writes. */
  async write(slot: number, options: WriterOptions = {}): Promise<void> {
    const control = controlBlock();
    const thread = startThread<WriteResult>({
      kind: 'write',
      ...this.#common(slot),
      control,
      volume: PRIMARY,
      seed: slot * 7919,
      locks: 'real',
      where: 'wide',
      lengthMax: 64 * 1024,
      zerosEvery: 0,
      restMs: 0,
      burst: 0,
      flushEvery: 0,
      survivesPowerLoss: this.#survivesPowerLoss,
      ...options,
    });
    const words = new Int32Array(control);
    this.#writers.push({ thread, control: words });
    this.#ended.push(thread);
    while (Atomics.load(words, CONTROL.READY) === 0) await Promise.race([later(2), thread.done]);
  }

  /** The copy and its helper, in threads of their own, to their end. */
  async copy(locks: LockKind = 'real'): Promise<CopyResult> {
    const { words } = this.legs.pair.block;
    Atomics.store(words, PAIR.COPY_STOP, 0);
    Atomics.store(words, PAIR.COPY_ACTIVE, 1);
    Atomics.store(words, PAIR.HELPER_END, 0);
    try {
      this.#copier ??= this.#startCopier(locks);
      this.#helper ??= this.#startHelper(locks);
      Atomics.store(words, PAIR.STRETCH, 0);
      let isOver = false;
      const copied = onGo<CopyResult>(this.#copier).finally(() => {
        isOver = true;
      });
      // A lead that is at work may have help.
      while (!isOver && Atomics.load(words, PAIR.STRETCH) === 0) await Promise.race([later(0), this.#copier.thread.done]);
      const helped = onGo<HelpResult>(this.#helper);
      const result = await Promise.race([copied, this.#copier.thread.done.then(() => ({ end: 'stopped' as const }))]);
      Atomics.store(words, PAIR.HELPER_END, 1);
      const help = await Promise.race([helped, this.#helper.thread.done.then(() => ({ end: 'helped' as const }))]);
      this.helpedBytes += wideCount(words, PAIR.HELPER_COPIED_LOW);
      return help.end === 'failed' ? help : result;
    } finally {
      Atomics.store(words, PAIR.COPY_ACTIVE, 0);
    }
  }

  #startCopier(locks: LockKind): Copier {
    const control = controlBlock();
    const { path, fd } = this.legs.pair.primaryFile;
    const thread = startThread<void>({
      kind: 'copy',
      ...this.#common(SLOT_COPY_FIRST),
      control,
      locks,
      file: { path, fd },
      survivesPowerLoss: this.#survivesPowerLoss,
    });
    this.#ended.push(thread);
    return { thread, control: new Int32Array(control) };
  }

  #startHelper(locks: LockKind): Copier {
    const control = controlBlock();
    const common = { ...this.#common(SLOT_COPY_HELPER), control, locks, survivesPowerLoss: this.#survivesPowerLoss };
    const thread = startThread<void>({ kind: 'help', ...common });
    this.#ended.push(thread);
    return { thread, control: new Int32Array(control) };
  }

  stopCopy(): void {
    const { words } = this.legs.pair.block;
    Atomics.store(words, PAIR.COPY_STOP, 1);
    Atomics.notify(words, PAIR.COPY_STOP);
  }

  /** Clean regions that differ at this moment. */
  async unequal(which: 'clean' | 'all' = 'clean'): Promise<number[]> {
    let found: number[] = [];
    await this.gate.closedFromMain(() => {
      found = unequalRegions(this.legs, which);
    });
    return found;
  }

  /** Ends the writers. */
  async stopWriters(): Promise<WriteResult[]> {
    for (const { control } of this.#writers) Atomics.store(control, CONTROL.STOP, 1);
    const results = await Promise.all(this.#writers.map(({ thread }) => thread.done));
    this.#writers.length = 0;
    return results;
  }

  /** What the threads recorded, in order; once they have ended. */
  get events(): TraceEvent[] {
    return this.#ended.flatMap(({ events }) => events).sort((one, other) => one.seq - other.seq);
  }

  /** Ends all threads. */
  async stop(): Promise<void> {
    this.stopCopy();
    await this.stopWriters().catch(() => undefined);
    for (const copier of [this.#copier, this.#helper]) {
      if (copier === null) continue;
      Atomics.store(copier.control, CONTROL.STOP, 1);
      await copier.thread.done.catch(() => undefined);
    }
  }

  async close(): Promise<void> {
    await this.stop();
    this.legs.close();
  }
}

export const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
