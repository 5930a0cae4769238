/**
 * A worker's picture of volumes and pairs, kept by messages from the main thread (data/plane.ts).
 *
 * Every worker that touches legs (lane, zero worker, copy, verify) holds one. Messages carry shared memory and
 * descriptors; applying one is synchronous, so between two requests the picture is always whole.
 */
import { BitmapFile } from '../store/bitmap-file.ts';
import { INTENT_EXTENT_BYTES } from '../core/units.ts';
import type { FaultRule } from '../engine/api.ts';
import { alwaysFails } from './fault-rules.ts';
import { Intents } from './intents.ts';
import { Leg, type LegSpec } from './leg.ts';
import { pairBlock, volumeBlock } from './shared-memory.ts';
import type { WorkerPair, WorkerVolume } from './write-path.ts';

export type IntentsSpec = { readonly buffer: SharedArrayBuffer; readonly extents: number; readonly path: string; readonly fd: number };
export type FaultSpec = { readonly rule: FaultRule; readonly counters: SharedArrayBuffer };

export type VolumeMessage = {
  readonly type: 'volume';
  readonly name: string;
  readonly leg: LegSpec;
  readonly intents: IntentsSpec | null;
  readonly faults: readonly FaultSpec[];
};
export type PairMessage = {
  readonly type: 'pair';
  readonly id: number;
  readonly primary: number;
  readonly secondary: number;
  readonly dirtyRegionBytes: number;
  readonly buffer: SharedArrayBuffer;
  readonly regions: number;
};
export type PictureMessage =
  | VolumeMessage
  | PairMessage
  | { readonly type: 'volume-gone'; readonly number: number }
  | { readonly type: 'pair-gone'; readonly id: number }
  | { readonly type: 'durability'; readonly survivesPowerLoss: boolean };

export class WorkerVolumes<V extends WorkerVolume> {
  readonly volumes = new Map<number, V>();
  readonly pairs = new Map<number, WorkerPair>();
  survivesPowerLoss = true;
  readonly #slot: number;
  readonly #make: (base: WorkerVolume) => V;

  constructor(slot: number, make: (base: WorkerVolume) => V) {
    this.#slot = slot;
    this.#make = make;
  }

  apply(message: PictureMessage): void {
    switch (message.type) {
      case 'volume':
        return this.#volume(message);
      case 'volume-gone':
        return this.#volumeGone(message.number);
      case 'pair':
        return this.#pair(message);
      case 'pair-gone':
        return this.#pairGone(message.id);
      case 'durability':
        this.survivesPowerLoss = message.survivesPowerLoss;
        for (const volume of this.volumes.values())
          if (volume.intents !== null) volume.intents.survivesPowerLoss = message.survivesPowerLoss;
        return;
    }
  }

  #volume(message: VolumeMessage): void {
    const leg = new Leg(message.leg);
    leg.faults =
      message.faults.length === 0 ? null : message.faults.map(({ rule, counters }) => ({ rule, counters: new Int32Array(counters) }));
    const intents = message.intents === null ? null : this.#intents(message.leg.number, message.intents);
    const known = this.volumes.get(message.leg.number);
    if (known === undefined) {
      this.volumes.set(message.leg.number, this.#make({ name: message.name, leg, intents, primaryOf: [], secondaryOf: null }));
      return;
    }
    known.name = message.name;
    known.leg = leg;
    known.intents = intents;
  }

  /** A client that is still there gets an error from here on: its regions may be another volume's soon. */
  #volumeGone(number: number): void {
    const known = this.volumes.get(number);
    if (known === undefined) return;
    known.leg.faults = [alwaysFails(number)];
    this.volumes.delete(number);
  }

  #intents(number: number, spec: IntentsSpec): Intents {
    const header = { bits: spec.extents, bytesPerBit: INTENT_EXTENT_BYTES, owner: number };
    return new Intents(
      volumeBlock(spec.buffer, spec.extents),
      BitmapFile.adopt(spec.path, spec.fd, header),
      this.#slot,
      this.survivesPowerLoss,
    );
  }

  #pair(message: PairMessage): void {
    const primary = this.volumes.get(message.primary);
    const secondary = this.volumes.get(message.secondary);
    if (primary === undefined || secondary === undefined) throw new Error(`pair ${message.id}: its volumes are not known to this worker`);
    this.#pairGone(message.id);
    const pair: WorkerPair = {
      id: message.id,
      block: pairBlock(message.buffer, message.regions),
      dirtyRegionBytes: message.dirtyRegionBytes,
      primary,
      secondary,
    };
    this.pairs.set(pair.id, pair);
    primary.primaryOf.push(pair);
    secondary.secondaryOf = pair;
  }

  #pairGone(id: number): void {
    const pair = this.pairs.get(id);
    if (pair === undefined) return;
    this.pairs.delete(id);
    pair.primary.primaryOf.splice(pair.primary.primaryOf.indexOf(pair), 1);
    pair.secondary.secondaryOf = null;
  }
}
