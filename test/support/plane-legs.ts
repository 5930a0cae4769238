/**
 * Volumes on real files without an engine: a directory that has what the data plane needs of a store, and volumes whose
 * regions lie scattered over it, so that nothing is contiguous by luck.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import type { RegionRun } from '../../src/core/rows.ts';
import { MiB } from '../../src/core/units.ts';
import { Leg } from '../../src/data/leg.ts';
import type { PairSpec, VolumeSpec } from '../../src/data/plane-api.ts';
import { PairState, type PlaneStore, VolumeState } from '../../src/data/plane-state.ts';
import { type VolumeMessage, WorkerVolumes } from '../../src/data/worker-volumes.ts';
import type { WorkerPair, WorkerVolume } from '../../src/data/write-path.ts';

export const PRIMARY = 1;
export const SECONDARY = 2;

export type LegStore = PlaneStore & {
  /** A volume of that many regions, each on a place of its own. */
  volume(number: number, regions: number, name?: string): VolumeSpec;
  close(): void;
};

/** @param layout how a volume's regions lie: one run, or alternately on two physical volumes and backwards */
export const legStore = (directory: string, regionBytes: number = MiB, layout: 'scattered' | 'contiguous' = 'scattered'): LegStore => {
  const fds = new Map<number, number>();
  const pvPath = (number: number): string => join(directory, `pv-${number}.img`);
  for (const folder of ['bitmaps', 'intents']) fs.mkdirSync(join(directory, folder), { recursive: true });
  const pvFd = (number: number): number => {
    let fd = fds.get(number);
    if (fd === undefined) {
      fd = fs.openSync(pvPath(number), fs.existsSync(pvPath(number)) ? 'r+' : 'w+');
      fds.set(number, fd);
    }
    return fd;
  };
  const nextRegion = new Map<number, number>();
  const take = (pv: number): RegionRun => {
    const start = nextRegion.get(pv) ?? 0;
    nextRegion.set(pv, start + 1);
    fs.ftruncateSync(pvFd(pv), (start + 1) * regionBytes);
    return { pv, start, count: 1 };
  };
  const volume = (number: number, regions: number, name = `volume-${number}`): VolumeSpec => {
    const home = number * 2;
    const runs = Array.from({ length: regions }, (_, region) => take(layout === 'contiguous' ? home : home + (region % 2)));
    return { number, name, capacityBytes: regions * regionBytes, runs: layout === 'contiguous' ? runs : runs.reverse() };
  };
  return {
    directory,
    regionBytes,
    pvFd,
    pvPath,
    volume,
    close: () => {
      for (const fd of fds.values()) fs.closeSync(fd);
      fds.clear();
    },
  };
};

export const legOf = (message: VolumeMessage): Leg => new Leg(message.leg);

/** Two volumes and the pair that they make, with all of its files. */
export type LegPair = {
  readonly store: LegStore;
  readonly primary: VolumeState;
  readonly secondary: VolumeState;
  readonly pair: PairState;
  readonly legs: { readonly primary: Leg; readonly secondary: Leg };
  close(): void;
};

export const pairSpec = (changes: Partial<PairSpec> = {}): PairSpec => ({
  id: 1,
  primary: PRIMARY,
  secondary: SECONDARY,
  dirtyRegionBytes: 64 * 1024,
  fenceData: false,
  pace: 15,
  ...changes,
});

export const legPair = (store: LegStore, regions: number, changes: Partial<PairSpec> = {}): LegPair => {
  const spec = pairSpec(changes);
  const primary = new VolumeState(store.volume(spec.primary, regions), store);
  const secondary = new VolumeState(store.volume(spec.secondary, regions), store);
  primary.openIntents(true);
  secondary.openIntents(true);
  const pair = new PairState(spec, primary, store, true);
  return {
    store,
    primary,
    secondary,
    pair,
    legs: { primary: legOf(primary.message()), secondary: legOf(secondary.message()) },
    close: () => {
      pair.close(false);
      primary.closeIntents(false);
      secondary.closeIntents(false);
      store.close();
    },
  };
};

/**
 * The clean regions whose legs differ; with `all` also the dirty ones. Nobody writes meanwhile, but a copy may run: it
 * makes regions clean, so what counts is what was clean before a byte was read.
 */
export const unequalRegions = ({ pair, legs }: LegPair, which: 'clean' | 'all' = 'clean'): number[] => {
  const dirty = [pair.block.primary.slice(), pair.block.secondary.slice()];
  const bytes = pair.spec.dirtyRegionBytes;
  const step = Math.max(bytes, MiB);
  const [left, right] = [Buffer.allocUnsafe(step), Buffer.allocUnsafe(step)];
  const unequal: number[] = [];
  for (let at = 0; at < pair.capacityBytes; at += step) {
    const length = Math.min(step, pair.capacityBytes - at);
    if (!legs.primary.read(left, 0, at, length) || !legs.secondary.read(right, 0, at, length)) throw new Error('a leg cannot be read');
    if (left.compare(right, 0, length, 0, length) === 0) continue;
    for (let from = 0; from < length; from += bytes) {
      const to = Math.min(length, from + bytes);
      const region = (at + from) / bytes;
      const isDirty = dirty.some((bits) => (((bits[region >>> 5] as number) >>> (region & 31)) & 1) === 1);
      if ((which === 'all' || !isDirty) && left.compare(right, from, to, from, to) !== 0) unequal.push(region);
    }
  }
  return unequal;
};

/** The pair as a worker has it, in this thread. */
export const workerPair = ({ primary, secondary, pair }: LegPair, slot = 1): WorkerPair => {
  const picture = new WorkerVolumes<WorkerVolume>(slot, (base) => base);
  for (const message of [primary.message(), secondary.message(), pair.message()]) picture.apply(message);
  return picture.pairs.get(pair.spec.id) as WorkerPair;
};
