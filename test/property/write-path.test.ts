/**
 * One primary with three secondaries against a model: any sequence of writes, zeros, copies, switches and leg failures.
 *
 * After every step: what hosts read is what they wrote and were told is there; a region that is clean on both sides of a
 * pair is the same on both legs; a write is refused only for a reason; and whatever a write touched is marked.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allSet, countSet } from '../../src/core/dirty-bitmap.ts';
import { KiB } from '../../src/core/units.ts';
import { Copies } from '../../src/data/copies.ts';
import { CopyTask } from '../../src/data/copy-task.ts';
import { switchPairs } from '../../src/data/pair-switch.ts';
import type { DirtyChange, PairMode } from '../../src/data/plane-api.ts';
import { PairState, VolumeState } from '../../src/data/plane-state.ts';
import { deviceBlock, PAIR, SLOT_COPY_FIRST, SLOT_MAIN } from '../../src/data/shared-memory.ts';
import { HolePuncher } from '../../src/platform/hole-punch.ts';
import { zeroVolume } from '../../src/data/zero-path.ts';
import { WorkerVolumes } from '../../src/data/worker-volumes.ts';
import { WriteGate } from '../../src/data/write-gate.ts';
import { type LegFailure, truthLeg, type WorkerPair, type WorkerVolume, WritePath } from '../../src/data/write-path.ts';
import { type LegStore, legStore, pairSpec } from '../support/plane-legs.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const REGION = 64 * KiB;
const REGIONS = 6;
const CAPACITY = REGIONS * REGION - 1024;
const PRIMARY = 1;
const PAIRS = 3;

type Step =
  | {
      readonly do: 'write' | 'zeros' | 'long zeros';
      readonly offset: number;
      readonly length: number;
      readonly byte: number;
      readonly allocate: boolean;
    }
  | { readonly do: 'secondary'; readonly pair: number; readonly offset: number; readonly length: number; readonly byte: number }
  | { readonly do: 'fault'; readonly leg: number }
  | { readonly do: 'copy'; readonly pair: number; readonly steps: number }
  | { readonly do: 'move'; readonly pair: number; readonly isRestore: boolean };

const range = fc
  .tuple(fc.nat(CAPACITY / 512 - 1), fc.integer({ min: 1, max: 200 }))
  .map(([first, count]) => ({ offset: first * 512, length: Math.min(count * 512, CAPACITY - first * 512) }));
const pairIndex = fc.nat(PAIRS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .tuple(range, fc.constantFrom('write' as const, 'write' as const, 'zeros' as const, 'long zeros' as const), fc.nat(255), fc.boolean())
      .map(([at, what, byte, allocate]) => ({ do: what, ...at, byte, allocate })),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(range, pairIndex, fc.nat(255)).map(([at, pair, byte]) => ({ do: 'secondary' as const, pair, ...at, byte })),
  },
  { weight: 1, arbitrary: fc.nat(PAIRS).map((leg) => ({ do: 'fault' as const, leg })) },
  {
    weight: 3,
    arbitrary: fc.tuple(pairIndex, fc.constantFrom(0, 1, 2, 100, 100)).map(([pair, steps]) => ({ do: 'copy' as const, pair, steps })),
  },
  { weight: 4, arbitrary: fc.tuple(pairIndex, fc.boolean()).map(([pair, isRestore]) => ({ do: 'move' as const, pair, isRestore })) },
);

class Bench {
  readonly device: Int32Array = deviceBlock();
  readonly gate: WriteGate = new WriteGate(this.device, SLOT_MAIN);
  readonly failures: LegFailure[] = [];
  readonly path: WritePath = new WritePath(this.device, 1, (failure) => this.failures.push(failure));
  readonly volumes: VolumeState[];
  readonly pairs: PairState[];
  readonly workers: readonly WorkerPair[];
  readonly primary: WorkerVolume;
  /** What hosts of the primary have to read; null where a failed write left it open. */
  readonly model: Array<number | null> = Array.from({ length: CAPACITY / 512 }, () => 0);
  readonly #store: LegStore;
  readonly #puncher = new HolePuncher();
  readonly #copies = new Copies({} as never);

  constructor(directory: string, fences: readonly boolean[], dirtyRegionBytes: number) {
    this.#store = legStore(directory, REGION);
    this.volumes = Array.from({ length: PAIRS + 1 }, (_, index) => {
      const volume = new VolumeState({ ...this.#store.volume(index + 1, REGIONS), capacityBytes: CAPACITY }, this.#store);
      volume.setFaults([
        {
          id: index,
          volume: index + 1,
          error: 'write',
          errno: 'EIO',
          offset: 0,
          length: CAPACITY,
          rate: 1,
          latencyMs: 0,
          count: 0,
          seed: 1,
          hits: 0,
          expired: false,
        },
      ]);
      volume.openIntents(true);
      return volume;
    });
    this.pairs = fences.map((fenceData, index) => {
      const spec = pairSpec({ id: index + 1, secondary: index + 2, fenceData, dirtyRegionBytes });
      return new PairState(spec, this.volumes[0] as VolumeState, this.#store, true);
    });
    const picture = new WorkerVolumes<WorkerVolume>(1, (base) => base);
    for (const volume of this.volumes) picture.apply(volume.message());
    for (const pair of this.pairs) picture.apply(pair.message());
    this.workers = this.pairs.map((pair) => picture.pairs.get(pair.spec.id) as WorkerPair);
    this.primary = picture.volumes.get(PRIMARY) as WorkerVolume;
  }

  async close(): Promise<void> {
    await this.#puncher.close();
    for (const pair of this.pairs) pair.close(false);
    for (const volume of this.volumes) volume.closeIntents(false);
    this.#store.close();
  }

  async run(one: Step): Promise<void> {
    switch (one.do) {
      case 'write':
      case 'zeros':
      case 'long zeros':
        return this.#write(one);
      case 'secondary':
        return this.#secondary(one);
      case 'fault': {
        const faults = this.volumes[one.leg]?.faults[0] as { counters: SharedArrayBuffer };
        Atomics.store(new Int32Array(faults.counters), 2, 1);
        return;
      }
      case 'copy':
        return this.#copy(one.pair, one.steps);
      case 'move':
        return this.#move(one.pair, one.isRestore);
    }
  }

  async #write(one: Extract<Step, { do: 'write' | 'zeros' | 'long zeros' }>): Promise<void> {
    const before = this.failures.length;
    const truth = truthLeg(this.primary).number;
    const hitsBefore = this.#hits(truth);
    const isFenced = this.pairs.some(({ block, mode }) => mode !== 'idle' && block.words[PAIR.FENCED] === 1);
    const code = await this.#carryOut(one);
    const failures = this.failures.slice(before);
    const isMirrored = this.pairs.some(({ mode }) => mode !== 'idle');
    if (isMirrored && !isFenced && one.do !== 'long zeros') {
      const marks = this.volumes[0]?.intents as NonNullable<VolumeState['intents']>;
      expect(allSet(marks.block.disk, 0, 1), 'marked').toBe(true);
    }
    const isTruthStruck = this.#hits(truth) > hitsBefore;
    const isRefused =
      isFenced || isTruthStruck || failures.some(({ leg, pair }) => leg === 'primary' || this.pairs[pair - 1]?.spec.fenceData === true);
    // Long zeros leave holes alone, so they may have nothing to do that could be refused.
    if (one.do !== 'long zeros' || code !== '') expect(code !== '', `refused with "${code}"`).toBe(isRefused);
    else expect(isTruthStruck).toBe(false);
    for (let sector = one.offset / 512; sector < (one.offset + one.length) / 512; sector += 1) {
      if (code === '') this.model[sector] = one.do === 'write' ? one.byte : 0;
      else if (!isFenced) this.model[sector] = null;
    }
    this.#learn();
  }

  #carryOut(one: Extract<Step, { do: 'write' | 'zeros' | 'long zeros' }>): string | Promise<string> {
    const { offset, length, allocate } = one;
    if (one.do === 'write') return this.path.write(this.primary, Buffer.alloc(length, one.byte), 0, offset, length);
    if (one.do === 'zeros') return this.path.clear(this.primary, offset, length, allocate);
    return zeroVolume(this.path, this.primary, { offset, length, punch: !allocate }, this.#puncher);
  }

  /** How often the volume's planted fault has struck. */
  #hits(volume: number): number {
    const counters = this.volumes[volume - 1]?.faults[0]?.counters;
    if (counters === undefined) throw new Error(`volume ${volume} has no planted fault`);
    return Atomics.load(new Int32Array(counters), 1);
  }

  /** Where a failed write left it open, what is read now is what has to be read from now on. */
  #learn(): void {
    const read = this.#read();
    for (const [sector, byte] of this.model.entries()) if (byte === null) this.model[sector] = read[sector * 512] as number;
  }

  #read(): Buffer {
    const read = Buffer.alloc(CAPACITY);
    expect(truthLeg(this.primary).read(read, 0, 0, CAPACITY)).toBe(true);
    return read;
  }

  #secondary(one: Extract<Step, { do: 'secondary' }>): void {
    const { secondary } = this.workers[one.pair] as WorkerPair;
    const mode = this.pairs[one.pair]?.mode;
    const code = this.path.write(secondary, Buffer.alloc(one.length, one.byte), 0, one.offset, one.length);
    if (mode === 'tracking' || mode === 'idle') expect(['', 'EIO']).toContain(code);
    else expect(code).toBe('EPERM');
  }

  async #copy(index: number, steps: number): Promise<void> {
    const pair = this.pairs[index] as PairState;
    if (pair.mode !== 'copying' && pair.mode !== 'restoring') return;
    const worker = this.workers[index] as WorkerPair;
    Atomics.store(pair.block.words, PAIR.COPY_STOP, 0);
    let left = steps;
    const slot = SLOT_COPY_FIRST;
    const place = { device: this.device, slot, path: new WritePath(this.device, slot, () => {}), survivesPowerLoss: () => false };
    await new CopyTask(worker, pair.primaryFile, place).run(() => {
      left -= 1;
      if (left < 0) Atomics.store(pair.block.words, PAIR.COPY_STOP, 1);
    });
  }

  async #switch(pair: PairState, mode: PairMode, dirty: DirtyChange, onlyIfClean = false): Promise<boolean> {
    return (await switchPairs(this.gate, [{ change: { id: pair.spec.id, mode, dirty, onlyIfClean }, pair }])).switched;
  }

  /** The next state of a pair's life, as the engine would lead it. */
  async #move(index: number, isRestore: boolean): Promise<void> {
    const pair = this.pairs[index] as PairState;
    const isRestoring = this.pairs.some(({ mode }) => mode === 'restoring');
    switch (pair.mode) {
      case 'idle':
        if (!isRestoring) await this.#switch(pair, 'copying', 'all');
        return;
      case 'copying':
      case 'restoring':
        await this.#switch(pair, 'mirroring', 'keep', true);
        return;
      case 'mirroring':
        if (!(await this.#switch(pair, 'tracking', 'clear', true))) await this.#switch(pair, 'copying', 'keep');
        return;
      case 'tracking':
        if (isRestoring) return;
        if (!isRestore || this.pairs.some((other) => other !== pair && !['tracking', 'idle'].includes(other.mode)))
          await this.#switch(pair, 'copying', 'merge');
        else await this.#restore(pair);
    }
  }

  async #restore(pair: PairState): Promise<void> {
    await this.#switch(pair, 'restoring', 'merge');
    for (const other of this.pairs) if (other !== pair && other.mode === 'tracking') this.#copies.markFrom(other, pair, 1);
    // Hosts see the image of the secondary from here on.
    const read = this.#read();
    for (const sector of this.model.keys()) this.model[sector] = read[sector * 512] as number;
  }

  /** Where the pairs are when it starts; all legs are holes, so they are equal. */
  async begin(modes: readonly PairMode[]): Promise<void> {
    for (const [index, mode] of modes.entries())
      if (mode !== 'idle') await this.#switch(this.pairs[index] as PairState, mode, mode === 'copying' ? 'all' : 'clear');
  }

  check(): void {
    const read = this.#read();
    for (const [sector, byte] of this.model.entries())
      if (read[sector * 512] !== byte) throw new Error(`sector ${sector} reads ${read[sector * 512]} instead of ${byte}`);
    const left = Buffer.alloc(CAPACITY);
    const right = Buffer.alloc(CAPACITY);
    for (const [index, pair] of this.pairs.entries()) {
      if (pair.mode === 'idle') continue;
      const worker = this.workers[index] as WorkerPair;
      worker.primary.leg.read(left, 0, 0, CAPACITY);
      worker.secondary.leg.read(right, 0, 0, CAPACITY);
      const bytes = pair.spec.dirtyRegionBytes;
      for (let region = 0; region < pair.block.regions; region += 1) {
        const isDirty = [pair.block.primary, pair.block.secondary].some(
          (bits) => (((bits[region >>> 5] as number) >>> (region & 31)) & 1) === 1,
        );
        const end = Math.min(CAPACITY, (region + 1) * bytes);
        if (!isDirty && left.compare(right, region * bytes, end, region * bytes, end) !== 0)
          throw new Error(`pair ${index + 1} (${pair.mode}): clean region ${region} differs`);
      }
      if (countSet(pair.block.primary) > pair.block.regions) throw new Error('bits behind the last region');
    }
  }
}

describe('a primary with three secondaries', () => {
  it('keeps what hosts wrote, and knows where legs differ, whatever happens', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 20, maxLength: 60 }),
        fc.array(fc.boolean(), { minLength: PAIRS, maxLength: PAIRS }),
        fc.constantFrom(4 * KiB, 16 * KiB, 64 * KiB),
        fc.array(fc.constantFrom<PairMode>('idle', 'copying', 'mirroring', 'tracking', 'tracking'), { minLength: PAIRS, maxLength: PAIRS }),
        async (steps, fences, dirtyRegionBytes, modes) => {
          await using temporary = await temporaryDirectory();
          const bench = new Bench(temporary.root, fences, dirtyRegionBytes);
          try {
            await bench.begin(modes);
            for (const one of steps) {
              await bench.run(one);
              bench.check();
            }
          } finally {
            await bench.close();
          }
        },
      ),
      { numRuns: 50 },
    );
  }, 60_000);
});
