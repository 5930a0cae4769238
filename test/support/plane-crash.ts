/**
 * What a start after a crash finds of a pair: its bitmaps and marks, read by the code that recovers them, against the
 * bytes of both legs as the crash left them.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { PairState, type PlaneStore, VolumeState } from '../../src/data/plane-state.ts';
import type { LegPair } from './plane-legs.ts';
import { type CrashImage, type Replay, SECTOR, type TraceEvent, type TraceShared, traceShared } from './plane-trace.ts';

/** The files of a pair whose volumes lie in one run each, by the names that the trace gives them. */
export const filesOf = ({ store, primary, secondary, pair }: LegPair): ReadonlyArray<readonly [fd: number, name: string]> => {
  const pvOf = (volume: VolumeState): number => store.pvFd((volume.spec.runs[0] as { pv: number }).pv);
  return [
    [pvOf(primary), 'primary'],
    [pvOf(secondary), 'secondary'],
    [pair.primaryFile.fd, 'bits-primary'],
    [pair.secondaryFile.fd, 'bits-secondary'],
    [primary.intents?.file.fd ?? -1, 'marks-primary'],
    [secondary.intents?.file.fd ?? -1, 'marks-secondary'],
  ];
};

export const traceOf = (legs: LegPair): TraceShared => traceShared(filesOf(legs));

/** The files as they are now. */
export const contentOf = (legs: LegPair): Map<string, Buffer> =>
  new Map(
    filesOf(legs).map(([fd, name]) => {
      const content = Buffer.alloc(fs.fstatSync(fd).size);
      fs.readSync(fd, content, 0, content.length, 0);
      return [name, content];
    }),
  );

export class CrashedPair {
  readonly #legs: LegPair;
  readonly #store: PlaneStore;

  /** @param directory where files are put as the crash left them */
  constructor(legs: LegPair, directory: string) {
    this.#legs = legs;
    for (const folder of ['bitmaps', 'intents']) fs.mkdirSync(join(directory, folder), { recursive: true });
    this.#store = { directory, regionBytes: legs.store.regionBytes, pvFd: () => -1, pvPath: () => '' };
  }

  /** Both bitmaps with the marks, ORed, as the next start has them. */
  #dirty(image: CrashImage): Int32Array {
    const { spec } = this.#legs.pair;
    const put = (folder: string, name: string, from: string): void =>
      fs.writeFileSync(join(this.#store.directory, folder, name), image.get(from)?.content ?? Buffer.alloc(0));
    put('bitmaps', `pair-${spec.id}-primary.map`, 'bits-primary');
    put('bitmaps', `pair-${spec.id}-secondary.map`, 'bits-secondary');
    put('intents', `volume-${spec.primary}.map`, 'marks-primary');
    put('intents', `volume-${spec.secondary}.map`, 'marks-secondary');
    const primary = new VolumeState(this.#legs.primary.spec, this.#store);
    const secondary = new VolumeState(this.#legs.secondary.spec, this.#store);
    primary.openIntents(false);
    secondary.openIntents(false);
    const pair = new PairState(spec, primary, this.#store, false);
    pair.addIntents(primary.intents, 'primary');
    pair.addIntents(secondary.intents, 'secondary');
    const dirty = pair.block.primary.map((word, index) => word | (pair.block.secondary[index] as number));
    pair.close(false);
    primary.closeIntents(false);
    secondary.closeIntents(false);
    return Int32Array.from(dirty);
  }

  /** Regions whose legs differ although nothing on disk says that they may. */
  unmarked(image: CrashImage): number[] {
    const bytes = this.#legs.pair.spec.dirtyRegionBytes;
    const left = image.get('primary')?.content as Buffer;
    const right = image.get('secondary')?.content as Buffer;
    const dirty = this.#dirty(image);
    const found: number[] = [];
    for (let at = 0; at < left.length; at += bytes) {
      const region = at / bytes;
      if ((((dirty[region >>> 5] as number) >>> (region & 31)) & 1) === 1) continue;
      const end = Math.min(left.length, at + bytes);
      if (left.compare(right, at, end, at, end) !== 0) found.push(region);
    }
    return found;
  }
}

/**
 * What flushes have promised: for each sector of the primary the oldest write that may still be read. While a pair is
 * restored the primary is not what hosts read, so nothing is promised of it from there to the restore's end.
 */
export class FlushPromises {
  readonly #replay: Replay;
  readonly #volume: number;
  /** Versions of the primary's sectors at each moment at which a flush was asked for. */
  readonly #asked = new Map<number, Uint32Array>();
  #floor: Uint32Array;
  #isRestoring = false;

  constructor(replay: Replay, volume: number, events: readonly TraceEvent[]) {
    this.#replay = replay;
    this.#volume = volume;
    this.#floor = new Uint32Array(replay.seenVersions('primary').length);
    for (const event of events)
      if (event.kind === 'note' && event.text === `flushed ${volume}`) this.#asked.set(event.at, new Uint32Array(0));
  }

  /** After the replay has applied the event. */
  after(event: TraceEvent): void {
    if (this.#asked.has(event.seq)) this.#asked.set(event.seq, this.#replay.seenVersions('primary').slice());
    if (event.kind !== 'note') return;
    if (event.text.startsWith('mode ')) {
      this.#isRestoring = event.text === 'mode restoring';
      if (this.#isRestoring) this.#floor.fill(0);
    } else if (event.text === `flushed ${this.#volume}` && !this.#isRestoring) {
      const then = this.#asked.get(event.at) ?? new Uint32Array(0);
      for (const [sector, version] of then.entries()) if (version > (this.#floor[sector] as number)) this.#floor[sector] = version;
    }
  }

  /** Offsets of the primary that are older than a flush has promised. */
  broken(image: CrashImage): number[] {
    const versions = image.get('primary')?.versions as Uint32Array;
    const found: number[] = [];
    for (let sector = 0; sector < versions.length; sector += 1)
      if ((versions[sector] as number) < (this.#floor[sector] as number)) found.push(sector * SECTOR);
    return found;
  }
}
