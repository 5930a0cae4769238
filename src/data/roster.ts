/**
 * The volumes and pairs that the main thread knows, and what is asked of all of them: who belongs to whom, which
 * descriptors a flush has to reach, and what may differ once a worker died.
 */
import { TwinvolError } from '../core/faults.ts';
import { INTENT_EXTENT_BYTES, LOCK_GRANULE_BYTES } from '../core/units.ts';
import { setRange } from '../core/dirty-bitmap.ts';
import type { PairState, VolumeState } from './plane-state.ts';
import { DEVICE, PAIR, VOLUME } from './shared-memory.ts';

export class Roster {
  readonly volumes = new Map<number, VolumeState>();
  readonly pairs = new Map<number, PairState>();
  readonly #pairsOf = new Map<number, PairState[]>();

  volume(number: number): VolumeState {
    const volume = this.volumes.get(number);
    if (volume === undefined) throw new TwinvolError('VOLUME_NOT_FOUND', `volume ${number} is not known to the data plane`);
    return volume;
  }

  pair(id: number): PairState {
    const pair = this.pairs.get(id);
    if (pair === undefined) throw new TwinvolError('PAIR_NOT_FOUND', `pair ${id} is not known to the data plane`);
    return pair;
  }

  /** Pairs that the volume belongs to, on either side. */
  pairsOf(volume: number): readonly PairState[] {
    return this.#pairsOf.get(volume) ?? [];
  }

  addPair(pair: PairState): void {
    this.pairs.set(pair.spec.id, pair);
    for (const volume of [pair.spec.primary, pair.spec.secondary]) this.#pairsOf.set(volume, [...this.pairsOf(volume), pair]);
  }

  removePair(pair: PairState): void {
    this.pairs.delete(pair.spec.id);
    for (const volume of [pair.spec.primary, pair.spec.secondary]) {
      const left = this.pairsOf(volume).filter((other) => other !== pair);
      if (left.length > 0) this.#pairsOf.set(volume, left);
      else this.#pairsOf.delete(volume);
    }
  }

  pairedVolumes(): number[] {
    return [...this.#pairsOf.keys()];
  }

  /** All legs that writes to the volume reach or reached, each once. */
  legsOf(volume: number): VolumeState[] {
    const numbers = new Set([volume]);
    for (const { spec } of this.pairsOf(volume)) {
      numbers.add(spec.primary);
      numbers.add(spec.secondary);
    }
    return [...numbers].flatMap((number) => this.volumes.get(number) ?? []);
  }

  /** Bytes that a crash now would make dirty: what is marked on either side of a pair, once for each pair. */
  markedBytes(): number {
    let bytes = 0;
    for (const { spec, capacityBytes } of this.pairs.values()) {
      for (const number of [spec.primary, spec.secondary]) {
        const intents = this.volumes.get(number)?.intents ?? null;
        if (intents === null) continue;
        bytes += Math.min(capacityBytes, Atomics.load(intents.block.words, VOLUME.MARKED) * INTENT_EXTENT_BYTES);
      }
    }
    return bytes;
  }

  /**
   * A sync of a volume's legs failed, and no later sync will say so again: from now on everything that is marked may
   * differ, and so may what a copy has brought over since its last sync.
   * @returns the pairs that are mirrored or copied, whose state has to change
   */
  distrust(volume: number): PairState[] {
    return this.pairsOf(volume).filter((pair) => {
      pair.addIntents(this.volume(pair.spec.primary).intents, 'primary');
      Atomics.add(pair.block.words, PAIR.SYNC_FAILURES, 1);
      if (pair.mode === 'tracking') pair.addIntents(this.volume(pair.spec.secondary).intents, 'secondary');
      return pair.mode !== 'tracking' && pair.mode !== 'idle';
    });
  }

  /**
   * A worker died. What it was writing may be on one leg only: marks that, and takes its rights to write files away.
   * @returns the pairs that are mirrored or copied and may differ
   */
  forgetWorker(device: Int32Array, slot: number): PairState[] {
    const at = DEVICE.SLOT_FIRST + slot * DEVICE.SLOT_WORDS;
    const unequal: PairState[] = [];
    if (Atomics.load(device, at + DEVICE.SLOT_INSIDE) !== 0) {
      for (const pair of this.pairsOf(device[at + DEVICE.SLOT_VOLUME] as number)) {
        markGranules(pair, device[at + DEVICE.SLOT_FIRST_GRANULE] as number, device[at + DEVICE.SLOT_LAST_GRANULE] as number);
        if (pair.mode !== 'idle' && pair.mode !== 'tracking') unequal.push(pair);
      }
    }
    for (const { block } of this.pairs.values()) {
      if (Atomics.compareExchange(block.words, PAIR.FILE_LOCK, slot + 1, 0) === slot + 1) Atomics.notify(block.words, PAIR.FILE_LOCK);
    }
    for (const volume of this.volumes.values()) volume.forgetHolder(slot);
    return unequal;
  }
}

/** Marks granules (1 MiB) of a pair dirty. */
const markGranules = (pair: PairState, firstGranule: number, lastGranule: number): void => {
  const bytes = pair.spec.dirtyRegionBytes;
  const first = Math.floor((firstGranule * LOCK_GRANULE_BYTES) / bytes);
  const end = Math.min(pair.block.regions, Math.ceil(((lastGranule + 1) * LOCK_GRANULE_BYTES) / bytes));
  if (first < end) setRange(pair.block.primary, first, end);
};
