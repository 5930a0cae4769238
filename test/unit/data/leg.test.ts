/** A leg over scattered regions against a plain buffer, at its ends, and on files that fail. */
import fs from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KiB } from '../../../src/core/units.ts';
import { Leg } from '../../../src/data/leg.ts';
import { VolumeState } from '../../../src/data/plane-state.ts';
import { FAULT_COUNTER_WORDS } from '../../../src/data/fault-rules.ts';
import { legOf, legStore } from '../../support/plane-legs.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const REGION = 64 * KiB;
const REGIONS = 7;
/** The last region is used in part. */
const CAPACITY = REGIONS * REGION - 5 * 512;

const made = (directory: string): { leg: Leg; volume: VolumeState; fds: readonly number[]; close: () => void } => {
  const store = legStore(directory, REGION);
  const volume = new VolumeState({ ...store.volume(1, REGIONS), capacityBytes: CAPACITY }, store);
  const leg = legOf(volume.message());
  return { leg, volume, fds: leg.fds, close: () => store.close() };
};

describe('a leg', () => {
  it('is one stretch of bytes, whatever its regions are', async () => {
    await using temporary = await temporaryDirectory();
    const { leg, fds, close } = made(temporary.root);
    expect(fds).toHaveLength(2);
    const model = Buffer.alloc(CAPACITY);
    const range = fc
      .tuple(fc.nat(CAPACITY - 1), fc.integer({ min: 1, max: 3 * REGION }))
      .map(([offset, length]) => ({ offset, length: Math.min(length, CAPACITY - offset) }));
    fc.assert(
      fc.property(
        range,
        fc.constantFrom('write', 'zeros', 'clear', 'read'),
        fc.nat(255),
        fc.nat(100),
        ({ offset, length }, what, byte, at) => {
          const buffer = Buffer.alloc(at + length, byte);
          let isGood = true;
          if (what === 'write') isGood = leg.write(buffer, at, offset, length);
          else if (what === 'zeros') isGood = leg.writeZeros(offset, length);
          else if (what === 'clear') isGood = leg.clear(offset, length);
          if (what !== 'read') model.fill(what === 'write' ? byte : 0, offset, offset + length);
          const read = Buffer.alloc(at + length);
          isGood &&= leg.read(read, at, offset, length);
          return isGood && read.compare(model, offset, offset + length, at, at + length) === 0;
        },
      ),
      { numRuns: 300 },
    );
    const whole = Buffer.alloc(CAPACITY);
    expect(leg.read(whole, 0, 0, CAPACITY)).toBe(true);
    expect(whole.equals(model)).toBe(true);
    close();
  });

  it('never calls data a hole, and makes nothing of holes when it clears them', async () => {
    await using temporary = await temporaryDirectory();
    const { leg, fds, close } = made(temporary.root);
    expect(leg.isHole(0, CAPACITY)).toBe(true);
    expect(leg.clear(0, CAPACITY)).toBe(true);
    expect(fds.reduce((sum, fd) => sum + fs.fstatSync(fd).blocks, 0)).toBe(0);
    leg.write(Buffer.alloc(512, 1), 0, 3 * REGION + 4096, 512);
    expect(leg.nextData(0, CAPACITY)).toBeLessThanOrEqual(3 * REGION + 4096);
    expect(leg.nextData(0, CAPACITY)).toBeGreaterThanOrEqual(3 * REGION);
    expect(leg.nextHole(3 * REGION + 4096, CAPACITY)).toBeGreaterThanOrEqual(3 * REGION + 4608);
    expect(leg.nextData(4 * REGION, CAPACITY)).toBe(CAPACITY);
    expect(leg.isHole(0, 2 * REGION)).toBe(true);
    expect(leg.isHole(0, CAPACITY)).toBe(false);
    expect(leg.nextData(100, 100)).toBe(100);
    close();
  });

  it('refuses what is outside of it, and says what a file says', async () => {
    await using temporary = await temporaryDirectory();
    const { leg, volume, close } = made(temporary.root);
    const buffer = Buffer.alloc(1024);
    expect(leg.write(buffer, 0, CAPACITY - 512, 1024)).toBe(false);
    expect(leg.failure).toBe('EIO');
    const { leg: spec } = volume.message();
    const gone = new Leg({ ...spec, files: spec.files.map(([pv, , path]) => [pv, 9999, path] as const) });
    expect([gone.read(buffer, 0, 0, 512), gone.failure]).toEqual([false, 'EBADF']);
    expect([gone.write(buffer, 0, 0, 512), gone.failure]).toEqual([false, 'EBADF']);
    // What cannot be asked may hold data.
    expect(gone.nextData(0, CAPACITY)).toBe(0);
    expect(gone.nextHole(0, CAPACITY)).toBe(CAPACITY);
    close();
  });

  it('fails a read of regions that somebody cut off its physical volume', async () => {
    await using temporary = await temporaryDirectory();
    const { leg, fds, close } = made(temporary.root);
    for (const fd of fds) fs.ftruncateSync(fd, 0);
    expect([leg.read(Buffer.alloc(512), 0, 0, 512), leg.failure]).toEqual([false, 'EIO']);
    close();
  });

  it('fails where a rule says so, and leaves the file alone', async () => {
    await using temporary = await temporaryDirectory();
    const { leg, close } = made(temporary.root);
    const counters = new Int32Array(new SharedArrayBuffer(FAULT_COUNTER_WORDS * 4));
    counters[2] = -1;
    const rule = {
      id: 1,
      volume: 1,
      error: 'write',
      errno: 'ENOSPC',
      offset: REGION,
      length: 512,
      rate: 1,
      latencyMs: 0,
      count: null,
      seed: 1,
      hits: 0,
      expired: false,
    } as const;
    leg.faults = [{ rule, counters }];
    expect([leg.write(Buffer.alloc(2 * REGION, 1), 0, 0, 2 * REGION), leg.failure]).toEqual([false, 'ENOSPC']);
    expect(leg.isHole(0, 2 * REGION)).toBe(true);
    expect(leg.write(Buffer.alloc(512, 1), 0, 0, 512)).toBe(true);
    expect(leg.read(Buffer.alloc(512), 0, REGION, 512)).toBe(true);
    expect([leg.writeZeros(REGION, 512), leg.failure]).toEqual([false, 'ENOSPC']);
    close();
  });
});
