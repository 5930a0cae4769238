/**
 * A trace of what threads do to a few files, and what the files may hold after a crash at any point of it.
 *
 * Fault model. `kill`: the process dies, every write that was made is there. `power`: what was written before a sync
 * began is there once that sync has ended; of everything else each sector is there or not, independently, and may be an
 * older or a newer one of those that were written. Sectors are whole. Real files are written as well, so reads see what
 * they should; syncs are only noted, and take a moment, so that others get in between.
 *
 * Import this before anything that keeps a reference to a function of `node:fs`: its functions are replaced once, by
 * ones that ask whether a recorder is at work.
 */
import fs from 'node:fs';

export const SECTOR = 512;

export type TraceEvent =
  | { readonly seq: number; readonly kind: 'write'; readonly file: string; readonly offset: number; readonly data: Uint8Array }
  | { readonly seq: number; readonly kind: 'sync'; readonly file: string; readonly beganAt: number }
  | { readonly seq: number; readonly kind: 'note'; readonly text: string; readonly at: number };

/** What a thread needs to record: one counter and one lock for all, and which descriptors count. */
export type TraceShared = { readonly words: SharedArrayBuffer; readonly files: ReadonlyArray<readonly [fd: number, name: string]> };

export const traceShared = (files: ReadonlyArray<readonly [fd: number, name: string]>): TraceShared => ({
  words: new SharedArrayBuffer(8),
  files,
});

type Callback = (error: NodeJS.ErrnoException | null) => void;
const real = { writeSync: fs.writeSync, fdatasyncSync: fs.fdatasyncSync, fdatasync: fs.fdatasync };

export class Recorder {
  readonly events: TraceEvent[] = [];
  readonly #words: Int32Array;
  readonly #names: ReadonlyMap<number, string>;

  constructor(shared: TraceShared) {
    this.#words = new Int32Array(shared.words);
    this.#names = new Map(shared.files);
  }

  nameOf(fd: number): string | undefined {
    return this.#names.get(fd);
  }

  now(): number {
    return Atomics.load(this.#words, 0);
  }

  /** Nothing comes between the number and the call. */
  write(file: string, call: () => number, data: () => Uint8Array, offset: number): number {
    while (Atomics.compareExchange(this.#words, 1, 0, 1) !== 0) Atomics.wait(this.#words, 1, 1, 1);
    try {
      const done = call();
      this.events.push({ seq: Atomics.add(this.#words, 0, 1) + 1, kind: 'write', file, offset, data: data().slice(0, done) });
      return done;
    } finally {
      Atomics.store(this.#words, 1, 0);
      Atomics.notify(this.#words, 1);
    }
  }

  synced(file: string, beganAt: number): void {
    this.events.push({ seq: Atomics.add(this.#words, 0, 1) + 1, kind: 'sync', file, beganAt });
  }

  note(text: string, at: number = this.now()): void {
    this.events.push({ seq: Atomics.add(this.#words, 0, 1) + 1, kind: 'note', text, at });
  }
}

let recorder: Recorder | null = null;

/** From here on this thread's calls are recorded; null: no more. */
export const record = (by: Recorder | null): void => {
  recorder = by;
};

const idle = new Int32Array(new SharedArrayBuffer(4));

fs.writeSync = ((fd: number, buffer: NodeJS.ArrayBufferView, at: number, length: number, position: number) => {
  const name = recorder?.nameOf(fd);
  if (recorder === null || name === undefined) return real.writeSync(fd, buffer, at, length, position);
  const bytes = (): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset + at, length).slice();
  return recorder.write(name, () => real.writeSync(fd, buffer, at, length, position), bytes, position);
}) as typeof fs.writeSync;

fs.fdatasyncSync = (fd: number) => {
  const name = recorder?.nameOf(fd);
  if (recorder === null || name === undefined) return real.fdatasyncSync(fd);
  const beganAt = recorder.now();
  Atomics.wait(idle, 0, 0, 0.3);
  recorder.synced(name, beganAt);
};

fs.fdatasync = ((fd: number, done: Callback) => {
  const by = recorder;
  const name = by?.nameOf(fd);
  if (by === null || name === undefined) return real.fdatasync(fd, done);
  const beganAt = by.now();
  setTimeout(() => {
    by.synced(name, beganAt);
    done(null);
  }, 1);
}) as typeof fs.fdatasync;

type Pending = { readonly seq: number; readonly offset: number; readonly data: Uint8Array; readonly version: number };

/** One file as the trace goes by: what a reader sees, what is durable, and what is in between. */
class TracedFile {
  readonly seen: Buffer;
  readonly durable: Buffer;
  /** For each sector the number of the write that it holds, as seen and as durable. */
  readonly seenVersions: Uint32Array;
  readonly durableVersions: Uint32Array;
  pending: Pending[] = [];

  constructor(content: Buffer) {
    this.seen = Buffer.from(content);
    this.durable = Buffer.from(content);
    this.seenVersions = new Uint32Array(Math.ceil(content.length / SECTOR));
    this.durableVersions = new Uint32Array(this.seenVersions.length);
  }

  write(seq: number, offset: number, data: Uint8Array): void {
    if (offset % SECTOR !== 0 || data.length % SECTOR !== 0)
      throw new Error(`a write of ${data.length} bytes at ${offset} is no whole number of sectors`);
    this.seen.set(data, offset);
    this.seenVersions.fill(seq, offset / SECTOR, (offset + data.length) / SECTOR);
    this.pending.push({ seq, offset, data, version: seq });
  }

  synced(before: number): void {
    for (const { seq, offset, data, version } of this.pending) {
      if (seq > before) continue;
      this.durable.set(data, offset);
      this.durableVersions.fill(version, offset / SECTOR, (offset + data.length) / SECTOR);
    }
    this.pending = this.pending.filter(({ seq }) => seq > before);
  }

  /** What a power loss may leave: of each pending sector, with probability `keep`, what was written. */
  afterPowerLoss(keep: number, random: () => number): { readonly content: Buffer; readonly versions: Uint32Array } {
    const content = Buffer.from(this.durable);
    const versions = this.durableVersions.slice();
    for (const { offset, data, version } of this.pending) {
      for (let at = 0; at < data.length; at += SECTOR) {
        if (random() >= keep) continue;
        content.set(data.subarray(at, at + SECTOR), offset + at);
        versions[(offset + at) / SECTOR] = version;
      }
    }
    return { content, versions };
  }
}

export type CrashFile = { readonly content: Buffer; readonly versions: Uint32Array };
export type CrashImage = ReadonlyMap<string, CrashFile>;

/** Goes through a trace; at any point it gives what a crash there may leave. */
export class Replay {
  readonly #files = new Map<string, TracedFile>();

  constructor(initial: ReadonlyMap<string, Buffer>) {
    for (const [name, content] of initial) this.#files.set(name, new TracedFile(content));
  }

  #file(name: string): TracedFile {
    const file = this.#files.get(name);
    if (file === undefined) throw new Error(`the trace names a file that was not there at its start: ${name}`);
    return file;
  }

  apply(event: TraceEvent): void {
    if (event.kind === 'write') this.#file(event.file).write(event.seq, event.offset, event.data);
    else if (event.kind === 'sync') this.#file(event.file).synced(event.beganAt);
  }

  seenVersions(name: string): Uint32Array {
    return this.#file(name).seenVersions;
  }

  killed(): CrashImage {
    return new Map([...this.#files].map(([name, { seen, seenVersions }]) => [name, { content: seen, versions: seenVersions }]));
  }

  /** Each file loses nothing, everything, or a part. */
  poweredOff(random: () => number): CrashImage {
    const keepOf = (): number => {
      const dice = random();
      return dice < 0.3 ? 0 : dice < 0.6 ? 1 : random();
    };
    return new Map([...this.#files].map(([name, file]) => [name, file.afterPowerLoss(keepOf(), random)]));
  }
}
