/**
 * The cleaner against everybody who can come in between its steps: a mark is dropped only if a crash after that finds
 * all that may differ in the bitmap files. What comes in between is done while the legs are being flushed.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { anySet, clearRange, countSet, setRange } from '../../../src/core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES, MiB } from '../../../src/core/units.ts';
import { IntentCleaner } from '../../../src/data/intent-cleaner.ts';
import { Intents } from '../../../src/data/intents.ts';
import { switchPairs } from '../../../src/data/pair-switch.ts';
import { PairState, VolumeState } from '../../../src/data/plane-state.ts';
import { deviceBlock, SLOT_MAIN, VOLUME } from '../../../src/data/shared-memory.ts';
import { WriteGate } from '../../../src/data/write-gate.ts';
import { type LegPair, legPair, legStore } from '../../support/plane-legs.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const EXTENTS = 4;
const REGIONS_PER_EXTENT = INTENT_EXTENT_BYTES / (64 * 1024);

let temporary: TemporaryDirectory;
let legs: LegPair;
let cleaner: IntentCleaner;
let gate: WriteGate;
let device: Int32Array;
/** What happens while the legs are being flushed. */
let meanwhile: () => void | Promise<void>;

const intentsOf = (volume: VolumeState): Intents => {
  const state = volume.intents as NonNullable<VolumeState['intents']>;
  return new Intents(state.block, state.file, 1, false);
};

/** What a start after a crash at this moment finds: marks of both volumes, bits of both sides. */
const afterCrash = (): { primaryMarks: number; secondaryMarks: number; dirty: (region: number) => boolean } => {
  const primary = new VolumeState(legs.primary.spec, legs.store);
  const secondary = new VolumeState(legs.secondary.spec, legs.store);
  primary.openIntents(false);
  secondary.openIntents(false);
  const pair = new PairState(legs.pair.spec, primary, legs.store, false);
  const marks = [primary, secondary].map(({ intents }) => countSet((intents as NonNullable<VolumeState['intents']>).block.disk));
  pair.addIntents(primary.intents, 'primary');
  pair.addIntents(secondary.intents, 'secondary');
  const { primary: left, secondary: right } = pair.block;
  pair.close(false);
  primary.closeIntents(false);
  secondary.closeIntents(false);
  return {
    primaryMarks: marks[0] as number,
    secondaryMarks: marks[1] as number,
    dirty: (region) => anySet(left, region, region + 1) || anySet(right, region, region + 1),
  };
};

beforeEach(async () => {
  temporary = await temporaryDirectory();
  legs = legPair(legStore(temporary.root), (EXTENTS * INTENT_EXTENT_BYTES) / MiB);
  device = deviceBlock();
  gate = new WriteGate(device, SLOT_MAIN);
  meanwhile = () => {};
  cleaner = new IntentCleaner(
    {
      volumes: () => [legs.primary, legs.secondary],
      pairsOf: () => [legs.pair],
      flushLegs: async () => meanwhile(),
      survivesPowerLoss: () => false,
    },
    gate,
    1_000_000,
  );
  await switchPairs(gate, [{ change: { id: 1, mode: 'mirroring', dirty: 'clear' }, pair: legs.pair }]);
  legs.pair.persist();
});

afterEach(async () => {
  await cleaner.stop();
  legs.close();
  await temporary[Symbol.asyncDispose]();
});

describe('the cleaner', () => {
  it('keeps a mark for one round after the last write, then drops it', async () => {
    const intents = intentsOf(legs.primary);
    intents.mark(0, 512);
    intents.mark(2 * INTENT_EXTENT_BYTES, 512);
    await cleaner.round(false);
    expect(afterCrash().primaryMarks).toBe(2);
    intents.mark(0, 512);
    await cleaner.round(false);
    expect(afterCrash().primaryMarks).toBe(1);
    await cleaner.round(false);
    expect(afterCrash().primaryMarks).toBe(0);
    expect(intents.block.words[VOLUME.MARKED]).toBe(0);
  });

  it('drops all of them at the end, whatever is warm', async () => {
    intentsOf(legs.primary).mark(0, EXTENTS * INTENT_EXTENT_BYTES);
    intentsOf(legs.secondary).mark(0, 512);
    await cleaner.cleanAll();
    expect(afterCrash()).toMatchObject({ primaryMarks: 0, secondaryMarks: 0 });
  });

  it('keeps the mark of an extent that is written to again meanwhile', async () => {
    const intents = intentsOf(legs.primary);
    intents.mark(0, 2 * INTENT_EXTENT_BYTES);
    meanwhile = () => void intents.mark(0, 512);
    await cleaner.cleanAll();
    expect(afterCrash().primaryMarks).toBe(1);
    expect(intents.mark(0, 512)).toBe(true);
  });

  it('writes the dirty bits of a tracked pair to their file before the mark goes', async () => {
    await switchPairs(gate, [{ change: { id: 1, mode: 'tracking', dirty: 'clear' }, pair: legs.pair }]);
    intentsOf(legs.primary).mark(0, 512);
    setRange(legs.pair.block.primary, 3, 4);
    intentsOf(legs.secondary).mark(INTENT_EXTENT_BYTES, 512);
    setRange(legs.pair.block.secondary, REGIONS_PER_EXTENT + 5, REGIONS_PER_EXTENT + 6);
    await cleaner.cleanAll();
    const found = afterCrash();
    expect([found.primaryMarks, found.secondaryMarks]).toEqual([0, 0]);
    expect([3, 4, REGIONS_PER_EXTENT + 5, REGIONS_PER_EXTENT + 6].map(found.dirty)).toEqual([true, false, true, false]);
  });

  it('does not call a region clean on disk that a copy cleared meanwhile: its data is not synced yet', async () => {
    const { primary: bits } = legs.pair.block;
    // Regions 3 (to be cleaned) and 200 (somewhere else, in the same page) are being copied.
    setRange(bits, 3, 4);
    setRange(bits, 200, 201);
    legs.pair.persist();
    intentsOf(legs.primary).mark(0, 512);
    meanwhile = () => {
      clearRange(bits, 3, 4);
      clearRange(bits, 200, 201);
    };
    await cleaner.cleanAll();
    const found = afterCrash();
    expect(found.primaryMarks).toBe(0);
    expect([found.dirty(3), found.dirty(200)]).toEqual([true, true]);
  });

  it('finds bits of the secondary that a resync has moved to the primary', async () => {
    await switchPairs(gate, [{ change: { id: 1, mode: 'tracking', dirty: 'clear' }, pair: legs.pair }]);
    intentsOf(legs.secondary).mark(0, 512);
    setRange(legs.pair.block.secondary, 7, 8);
    // As if the switch had merged in memory just now, with the files still to come.
    legs.pair.apply('copying', 'merge');
    await cleaner.cleanAll();
    const found = afterCrash();
    expect(found.secondaryMarks).toBe(0);
    expect(found.dirty(7)).toBe(true);
  });

  it('leaves marks alone while somebody else writes the bitmap files, and switches wait for it', async () => {
    await switchPairs(gate, [{ change: { id: 1, mode: 'tracking', dirty: 'clear' }, pair: legs.pair }]);
    intentsOf(legs.primary).mark(0, 512);
    setRange(legs.pair.block.primary, 3, 4);
    expect(legs.pair.tryLockFiles()).toBe(true);
    await cleaner.cleanAll();
    expect(afterCrash().primaryMarks).toBe(1);
    legs.pair.unlockFiles();
    const order: string[] = [];
    let switching: Promise<unknown> = Promise.resolve();
    meanwhile = async () => {
      switching = switchPairs(gate, [{ change: { id: 1, mode: 'copying', dirty: 'merge' }, pair: legs.pair }]).then(() =>
        order.push('switched'),
      );
      await new Promise((resolve) => setTimeout(resolve, 30));
      order.push('flushed');
    };
    await cleaner.cleanAll();
    await switching;
    expect(order).toEqual(['flushed', 'switched']);
    expect(afterCrash().dirty(3)).toBe(true);
  });

  it('keeps every mark when the legs cannot be flushed', async () => {
    intentsOf(legs.primary).mark(0, 2 * INTENT_EXTENT_BYTES);
    meanwhile = () => {
      throw new Error('planted');
    };
    await cleaner.cleanAll();
    expect(afterCrash().primaryMarks).toBe(2);
  });

  it('waits at the gate for a write that saw its extent armed', async () => {
    const intents = intentsOf(legs.primary);
    const writer = new WriteGate(device, 1);
    writer.enter();
    intents.mark(0, 512);
    let isDone = false;
    const round = cleaner.cleanAll().then(() => {
      isDone = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(isDone).toBe(false);
    expect(anySet(intents.block.armed, 0, 1)).toBe(true);
    writer.leave();
    await round;
    expect(afterCrash().primaryMarks).toBe(0);
  });

  it('drops no mark that was read at a start until the pairs that must find it are all there', async () => {
    intentsOf(legs.primary).mark(0, 512);
    legs.pair.close(false);
    legs.primary.closeIntents(false);
    legs.secondary.closeIntents(false);
    const [primary, secondary] = [legs.primary, legs.secondary];
    primary.openIntents(false);
    secondary.openIntents(false);
    const reopened = { ...legs, pair: new PairState(legs.pair.spec, primary, legs.store, false) };
    Object.assign(legs, { pair: reopened.pair });
    await cleaner.cleanAll();
    expect(afterCrash().primaryMarks).toBe(1);
    primary.mayDropMarks = true;
    await cleaner.cleanAll();
    expect(afterCrash().primaryMarks).toBe(0);
  });
});
