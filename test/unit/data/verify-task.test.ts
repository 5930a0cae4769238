/** Verify: finds every difference that nobody answers for, and raises no alarm about what a host or a copy is doing. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { anySet, clearRange, countSet, setRange } from '../../../src/core/dirty-bitmap.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { deviceBlock, MODE, PAIR } from '../../../src/data/shared-memory.ts';
import { type VerifyResult, VerifyTask } from '../../../src/data/verify-task.ts';
import { type WorkerPair, WritePath } from '../../../src/data/write-path.ts';
import { type LegPair, legPair, legStore, workerPair } from '../../support/plane-legs.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const REGION = 64 * KiB;
const device = deviceBlock();

let temporary: TemporaryDirectory;
let legs: LegPair;
let pair: WorkerPair;
let control: Int32Array;

beforeEach(async () => {
  temporary = await temporaryDirectory();
  legs = legPair(legStore(temporary.root), 4);
  pair = workerPair(legs);
  pair.block.primary.fill(0);
  Atomics.store(pair.block.words, PAIR.MODE, MODE.mirroring);
  control = new Int32Array(new SharedArrayBuffer(16));
  for (const leg of [pair.primary.leg, pair.secondary.leg]) leg.write(Buffer.alloc(2 * MiB, 7), 0, 0, 2 * MiB);
});

afterEach(async () => {
  legs.close();
  await temporary[Symbol.asyncDispose]();
});

/** `between`: what happens at a release of the range lock and at a closing of the gate. */
const verify = (options: { repair?: boolean; onRelease?: () => void; onGate?: () => void } = {}): VerifyResult => {
  const real = new WritePath(device, 2, () => {});
  const locks = {
    acquire: (volume: number, offset: number, length: number) => real.locks.acquire(volume, offset, length),
    release: () => {
      real.locks.release();
      options.onRelease?.();
    },
  };
  const path = new WritePath(device, 2, () => {}, locks);
  const closed = path.gate.closed.bind(path.gate);
  path.gate.closed = (change) => {
    options.onGate?.();
    return closed(change);
  };
  return new VerifyTask(pair, path, device, control, options.repair ?? false).run();
};

const spoil = (offset: number, length: number): void => void pair.secondary.leg.write(Buffer.alloc(length, 9), 0, offset, length);

describe('verify', () => {
  it('finds nothing on equal legs, holes included', () => {
    expect(verify()).toMatchObject({ end: 'done', code: '', checkedBytes: 4 * MiB, differingBytes: 0, differing: [] });
  });

  it('reports what differs by regions, joins neighbours, and looks at data that only one leg has', () => {
    spoil(REGION + 100, 2 * REGION);
    spoil(3 * MiB + 512, 512);
    expect(verify()).toMatchObject({
      end: 'done',
      differingBytes: 4 * REGION,
      differing: [
        { offset: REGION, length: 3 * REGION },
        { offset: 3 * MiB, length: REGION },
      ],
    });
    expect(countSet(pair.block.primary)).toBe(0);
  });

  it('does not report regions that are dirty on either side', () => {
    spoil(0, 4 * REGION);
    setRange(pair.block.primary, 0, 1);
    setRange(pair.block.secondary, 1, 3);
    expect(verify().differing).toEqual([{ offset: 3 * REGION, length: REGION }]);
  });

  it('marks what differs, and only that, when it repairs', () => {
    spoil(5 * REGION, 512);
    spoil(MiB + 2 * REGION, REGION + 512);
    verify({ repair: true });
    expect([5, 18, 19].every((region) => anySet(pair.block.primary, region, region + 1))).toBe(true);
    expect(countSet(pair.block.primary)).toBe(3);
  });

  it('raises no alarm when a copy makes the region equal and clean a moment after it was read', () => {
    spoil(0, REGION);
    setRange(pair.block.primary, 0, 1);
    let isCopied = false;
    const onRelease = (): void => {
      if (isCopied) return;
      isCopied = true;
      pair.secondary.leg.write(Buffer.alloc(REGION, 7), 0, 0, REGION);
      clearRange(pair.block.primary, 0, 1);
    };
    expect(verify({ onRelease }).differing).toEqual([]);
    expect(isCopied).toBe(true);
  });

  it('raises no alarm about a tracked write whose bit comes only at its end', () => {
    Atomics.store(pair.block.words, PAIR.MODE, MODE.tracking);
    pair.primary.leg.write(Buffer.alloc(512, 3), 0, 2 * REGION, 512);
    expect(verify({ onGate: () => setRange(pair.block.primary, 2, 3) }).differing).toEqual([]);
  });

  it('raises no alarm about a region that a whole resync went over between its two looks', () => {
    pair.primary.leg.write(Buffer.alloc(512, 3), 0, 2 * REGION, 512);
    let isResynced = false;
    const onGate = (): void => {
      if (isResynced) return;
      isResynced = true;
      pair.secondary.leg.write(Buffer.alloc(512, 3), 0, 2 * REGION, 512);
    };
    expect(verify({ onGate }).differing).toEqual([]);
  });

  it('says where it was when it is stopped, and which code a leg gave that it could not read', () => {
    Atomics.store(control, 0, 1);
    expect(verify()).toMatchObject({ end: 'stopped', checkedBytes: 0 });
    Atomics.store(control, 0, 0);
    const counters = new Int32Array(new SharedArrayBuffer(12));
    counters[2] = -1;
    const rule = {
      id: 1,
      volume: 2,
      error: 'read',
      errno: 'EIO',
      offset: MiB,
      length: 512,
      rate: 1,
      latencyMs: 0,
      count: null,
      seed: 1,
      hits: 0,
      expired: false,
    } as const;
    pair.secondary.leg.faults = [{ rule, counters }];
    expect(verify()).toMatchObject({ end: 'failed', code: 'EIO', checkedBytes: MiB });
  });
});
