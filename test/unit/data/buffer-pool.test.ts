/** A lane's buffers: what is taken comes back to the last byte, whatever the sizes, and the budget holds. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BufferPool } from '../../../src/data/buffer-pool.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

const step = fc.record({
  kind: fc.constantFrom('take', 'take', 'rest', 'give'),
  bytes: fc.oneof(
    fc.integer({ min: 1, max: 2 * MiB }),
    fc.constantFrom(28, 32 * KiB, 32 * KiB + 28, 64 * KiB, 64 * KiB + 28, MiB, MiB + 32),
  ),
  which: fc.nat(1000),
});

describe('a pool of buffers', () => {
  it('is empty again when everything was given back, and never beyond its budget', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const pool = new BufferPool(8 * MiB);
        const held: Array<{ buffer: Buffer; isRest: boolean }> = [];
        const giveBack = ({ buffer, isRest }: (typeof held)[number]): void => (isRest ? pool.giveRest(buffer) : pool.give(buffer));
        for (const { kind, bytes, which } of steps) {
          if (kind === 'give') for (const one of held.splice(which % Math.max(1, held.length), 1)) giveBack(one);
          else {
            const buffer = kind === 'rest' ? pool.takeRest(bytes) : pool.take(bytes);
            if (buffer === null) continue;
            expect(buffer.length).toBeGreaterThanOrEqual(bytes);
            held.push({ buffer, isRest: kind === 'rest' });
          }
          expect(pool.budgetedBytes).toBeLessThanOrEqual(8 * MiB);
          expect(new Set(held.map(({ buffer }) => buffer.buffer)).size).toBe(held.length);
        }
        for (const one of held) giveBack(one);
        expect([pool.takenBytes, pool.budgetedBytes]).toEqual([0, 0]);
      }),
    );
  });

  it('gives room for what comes behind while there is plenty, and no more than a little when it is scarce', () => {
    const pool = new BufferPool(3 * MiB);
    const ahead = 256 * KiB;
    const lengths = [64 * KiB + 28, MiB + 28, 64 * KiB + 28].map((bytes) => pool.take(bytes, ahead)?.length);
    expect(lengths).toEqual([320 * KiB, MiB + ahead, 128 * KiB]);
  });

  it('says when it is scarce and when it has no room for one more piece', () => {
    const pool = new BufferPool(3 * MiB);
    expect([pool.isScarce, pool.hasRoom]).toEqual([false, true]);
    const [first, second] = [pool.take(MiB), pool.take(MiB)];
    expect([pool.isScarce, pool.hasRoom, pool.take(MiB)]).toEqual([true, false, null]);
    let given = 0;
    pool.onGiven = () => {
      given += 1;
    };
    for (const buffer of [first, second]) if (buffer !== null) pool.give(buffer);
    expect([pool.isScarce, pool.hasRoom, given]).toEqual([false, true, 2]);
  });
});
