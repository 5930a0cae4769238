/**
 * Threads that do what lanes and copy workers do to shared memory and files, without connections: the test says what,
 * and gets an answer when the thread has ended (its entry is `plane-thread-main.ts`).
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { PairMessage, VolumeMessage } from '../../src/data/worker-volumes.ts';
import type { TraceEvent, TraceShared } from './plane-trace.ts';
import { workerFile } from '../../src/platform/worker-file.ts';

/** `trace`: the thread's writes and syncs are recorded, and come with its answer. */
type Common = { readonly slot: number; readonly device: SharedArrayBuffer; readonly trace?: TraceShared };
type Picture = { readonly volumes: readonly VolumeMessage[]; readonly pairs: readonly PairMessage[] };
/** `none`: exclusion taken out, to show that the test would see it. */
export type LockKind = 'real' | 'none';

/** Words of a thread's control block. */
export const CONTROL = { STOP: 0, READY: 1, ROUNDS: 2, FAILURES: 3, GO: 4, WORDS: 8 } as const;

export type WriteJob = Common &
  Picture & {
    readonly kind: 'write';
    readonly control: SharedArrayBuffer;
    readonly volume: number;
    readonly seed: number;
    readonly locks: LockKind;
    /** `hot`: a few places, overlapping; `pointer`: around the copy pointer; `wide`: anywhere. */
    readonly where: 'hot' | 'pointer' | 'wide';
    readonly lengthMax: number;
    /** One write in so many makes zeros; 0: none does. */
    readonly zerosEvery: number;
    /** Rests so long after each write; 0: not at all. */
    readonly restMs: number;
    /** After so many writes it rests for 40 ms, so that extents grow cold; 0: never. */
    readonly burst: number;
    /** One write in so many is followed by a flush of the volume; 0: none is. */
    readonly flushEvery: number;
    readonly survivesPowerLoss: boolean;
  };
/** Copies each time that GO is counted up, until STOP; ROUNDS counts the copies that have ended. Says how each ended. */
export type CopyJob = Common &
  Picture & {
    readonly kind: 'copy';
    readonly control: SharedArrayBuffer;
    readonly locks: LockKind;
    readonly file: { readonly path: string; readonly fd: number };
    readonly survivesPowerLoss: boolean;
  };
/** Helps that copy, each time that its own GO is counted up, until STOP; ROUNDS counts how often its help has ended. */
export type HelpJob = Common &
  Picture & {
    readonly kind: 'help';
    readonly control: SharedArrayBuffer;
    readonly locks: LockKind;
    readonly survivesPowerLoss: boolean;
  };
/** Takes ranges of granules and says how often it found somebody else inside of one. */
export type ContendJob = Common & {
  readonly kind: 'contend';
  /** One word for each granule: who is inside. */
  readonly owners: SharedArrayBuffer;
  readonly rounds: number;
  readonly granulesMax: number;
  readonly seed: number;
  readonly locks: LockKind;
};
/** Takes a range, says so, and never lets go. */
export type HoldJob = Common & { readonly kind: 'hold'; readonly granules: number; readonly inGate: boolean; readonly closesGate: boolean };
/** Goes through the gate and looks whether it is closed by somebody who believes to be alone. */
export type PassJob = Common & { readonly kind: 'pass'; readonly control: SharedArrayBuffer; readonly alone: SharedArrayBuffer };
/** Closes the gate that often. */
export type CloseJob = Common & { readonly kind: 'close'; readonly rounds: number; readonly alone: SharedArrayBuffer };
/** Marks extents and looks into the file right after each. */
export type MarkJob = Common & { readonly kind: 'mark'; readonly volume: VolumeMessage; readonly rounds: number; readonly seed: number };

export type ThreadJob = WriteJob | CopyJob | HelpJob | ContendJob | HoldJob | PassJob | CloseJob | MarkJob;

export type Thread<R> = {
  /** What it answers; rejects when it dies. */
  readonly done: Promise<R>;
  /** Resolves with the first thing that it says on its way. */
  readonly said: Promise<unknown>;
  /** What it recorded; complete when it is done. */
  readonly events: TraceEvent[];
  /** Gets everything that it says on its way. */
  onSaid: (value: unknown) => void;
  terminate(): Promise<number>;
};

const entry = join(fileURLToPath(new URL('.', import.meta.url)), 'plane-thread-main.ts');

export const startThread = <R>(job: ThreadJob): Thread<R> => {
  const worker = new Worker(entry, { workerData: job, execArgv: workerFile('data/lane-worker').execArgv });
  let say: (value: unknown) => void = () => {};
  const said = new Promise<unknown>((resolve) => {
    say = resolve;
  });
  let answer: (value: R) => void = () => {};
  const done = new Promise<R>((resolve, reject) => {
    answer = resolve;
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`the thread ended with ${code} and no answer`)));
  });
  done.catch(() => undefined);
  const thread: Thread<R> = { done, said, events: [], onSaid: () => {}, terminate: () => worker.terminate() };
  worker.on('message', (message: { readonly said?: unknown; readonly done?: R; readonly events?: TraceEvent[] }) => {
    if ('done' in message) {
      thread.events.push(...(message.events ?? []));
      return answer(message.done);
    }
    say(message.said);
    thread.onSaid(message.said);
  });
  return thread;
};

export const controlBlock = (): SharedArrayBuffer => new SharedArrayBuffer(CONTROL.WORDS * 4);

/** A small generator with a seed: the same numbers again for the same seed. */
export const randomFrom = (seed: number): (() => number) => {
  let state = (seed ^ 0x9e3779b9) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
};
