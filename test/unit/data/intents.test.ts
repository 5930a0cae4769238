/** Intents: a mark is in the file, synced, before the write that it announces may go on; and what happens when it cannot be. */
import fs from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { clearRange, countSet } from '../../../src/core/dirty-bitmap.ts';
import { INTENT_EXTENT_BYTES, MiB } from '../../../src/core/units.ts';
import { Intents } from '../../../src/data/intents.ts';
import { VolumeState } from '../../../src/data/plane-state.ts';
import { deviceBlock, VOLUME } from '../../../src/data/shared-memory.ts';
import { BitmapFile } from '../../../src/store/bitmap-file.ts';
import { type LegStore, legStore, PRIMARY } from '../../support/plane-legs.ts';
import { startThread } from '../../support/plane-thread.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const EXTENTS = 8;

type Place = { readonly store: LegStore; readonly volume: VolumeState; readonly intents: Intents; readonly file: BitmapFile };

const place = (temporary: TemporaryDirectory, slot = 1): Place => {
  const store = legStore(temporary.root, MiB);
  const volume = new VolumeState(store.volume(PRIMARY, (EXTENTS * INTENT_EXTENT_BYTES) / MiB), store);
  volume.openIntents(true);
  const { block, file } = volume.intents as { block: Intents['block']; file: BitmapFile };
  return { store, volume, intents: new Intents(block, file, slot, true), file };
};

/** What the next start reads. */
const onDisk = ({ store, volume }: Place): number[] => {
  const again = new VolumeState(volume.spec, store);
  again.openIntents(false);
  const { disk } = (again.intents as { block: Intents['block'] }).block;
  again.closeIntents(false);
  return Array.from({ length: EXTENTS }, (_, extent) => extent).filter((extent) => ((disk[0] as number) >>> extent) & 1);
};

describe('an intent', () => {
  it('is on disk when the call returns, for every extent that the range touches', async () => {
    await using temporary = await temporaryDirectory();
    const made = place(temporary);
    expect(made.intents.mark(INTENT_EXTENT_BYTES - 512, 1024)).toBe(true);
    expect(onDisk(made)).toEqual([0, 1]);
    expect(made.intents.mark(4 * INTENT_EXTENT_BYTES, 512)).toBe(true);
    expect(made.intents.mark(6 * INTENT_EXTENT_BYTES, 2 * INTENT_EXTENT_BYTES)).toBe(true);
    expect(onDisk(made)).toEqual([0, 1, 4, 6, 7]);
    expect(made.intents.block.words[VOLUME.MARKED]).toBe(5);
    expect([...made.intents.block.recent]).toEqual([1, 1, 0, 0, 1, 0, 1, 1]);
  });

  it('is synced after it is written, once for an extent, and not at all at level process', async () => {
    await using temporary = await temporaryDirectory();
    const { intents } = place(temporary);
    const calls: string[] = [];
    const realWrite = fs.writeSync;
    const writes = vi.spyOn(fs, 'writeSync').mockImplementation((...args: Parameters<typeof fs.writeSync>) => {
      calls.push('write');
      return realWrite(...args);
    });
    const syncs = vi.spyOn(fs, 'fdatasyncSync').mockImplementation(() => void calls.push('sync'));
    try {
      intents.mark(0, 512);
      intents.mark(4096, 512);
      expect(calls).toEqual(['write', 'sync']);
      intents.survivesPowerLoss = false;
      intents.mark(INTENT_EXTENT_BYTES, 512);
      expect(calls).toEqual(['write', 'sync', 'write']);
    } finally {
      writes.mockRestore();
      syncs.mockRestore();
    }
  });

  it.each(['writeSync', 'fdatasyncSync'] as const)(
    'that cannot be made durable (%s fails) refuses the write, and the next one tries again',
    async (call) => {
      await using temporary = await temporaryDirectory();
      const made = place(temporary);
      made.intents.mark(0, 512);
      const planted = vi.spyOn(fs, call).mockImplementation(() => {
        throw Object.assign(new Error('planted'), { code: 'ENOSPC' });
      });
      expect(made.intents.mark(0, 2 * INTENT_EXTENT_BYTES)).toBe(false);
      expect(made.intents.failure).toBe('ENOSPC');
      // What is armed already needs no file.
      expect(made.intents.mark(0, 512)).toBe(true);
      expect(made.intents.mark(INTENT_EXTENT_BYTES, 512)).toBe(false);
      planted.mockRestore();
      expect(made.intents.block.words[VOLUME.MARKED]).toBe(1);
      expect(made.intents.mark(INTENT_EXTENT_BYTES, 512)).toBe(true);
      expect(onDisk(made)).toEqual([0, 1]);
      expect(made.intents.block.words[VOLUME.MARKED]).toBe(2);
    },
  );

  it('whose mark is on disk but disarmed is armed again without another write', async () => {
    await using temporary = await temporaryDirectory();
    const made = place(temporary);
    made.intents.mark(0, 512);
    clearRange(made.intents.block.armed, 0, EXTENTS);
    const syncs = vi.spyOn(fs, 'fdatasyncSync');
    expect(made.intents.mark(0, 512)).toBe(true);
    expect(syncs).not.toHaveBeenCalled();
    syncs.mockRestore();
    expect(countSet(made.intents.block.armed)).toBe(1);
  });

  it('is in the file for every one of several threads, however they come', async () => {
    await using temporary = await temporaryDirectory();
    const store = legStore(temporary.root, MiB);
    // Three pages of extents.
    const spec = { ...store.volume(PRIMARY, 1), capacityBytes: 9000 * INTENT_EXTENT_BYTES };
    const volume = new VolumeState(spec, store);
    volume.openIntents(true);
    // Threads get the file only; the volume's regions do not matter to a mark.
    const message = { ...volume.message(), leg: { ...volume.message().leg, capacityBytes: MiB } };
    const device = deviceBlock().buffer as SharedArrayBuffer;
    const threads = [1, 2, 3].map((slot) =>
      startThread<{ readonly unmarked: number; readonly failed: number }>({
        kind: 'mark',
        slot,
        device,
        volume: message,
        rounds: 400,
        seed: slot,
      }),
    );
    for (const result of await Promise.all(threads.map(({ done }) => done))) expect(result).toEqual({ unmarked: 0, failed: 0 });
    const { block } = volume.intents as { block: Intents['block'] };
    expect(block.words[VOLUME.MARKED]).toBe(countSet(block.disk));
    volume.closeIntents(false);
    store.close();
  });

  it('that a dying thread had not written yet is written before anybody relies on it', async () => {
    await using temporary = await temporaryDirectory();
    const made = place(temporary);
    const { words, disk } = made.intents.block;
    // Slot 5 had the file's lock and had set the bit in memory only.
    Atomics.store(words, VOLUME.FILE_LOCK, 6);
    disk[0] = 0b100;
    made.volume.forgetHolder(4);
    expect(words[VOLUME.FILE_LOCK]).toBe(6);
    made.volume.forgetHolder(5);
    expect(words[VOLUME.FILE_LOCK]).toBe(0);
    expect(onDisk(made)).toEqual([2]);
    expect(words[VOLUME.MARKED]).toBe(1);
  });
});
