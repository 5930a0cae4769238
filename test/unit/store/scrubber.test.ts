import { readSync, statSync, writeSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { RegionRun } from '../../../src/core/rows.ts';
import { volumeDeleteOps } from '../../../src/core/table-changes.ts';
import { HolePuncher } from '../../../src/platform/hole-punch.ts';
import { checkStore } from '../../../src/store/check.ts';
import { type Puncher, scrubRuns } from '../../../src/store/scrubber.ts';
import type { Store } from '../../../src/store/store.ts';
import { nextVolumePut, SMALL_REGION_BYTES, testStore } from '../../support/open-stores.ts';

const NO_PUNCH: Puncher = { punch: async () => false };

const fill = (store: Store, runs: readonly RegionRun[], byte: number): void => {
  for (const { pv, start, count } of runs)
    writeSync(store.pvFd(pv), Buffer.alloc(count * SMALL_REGION_BYTES, byte), 0, undefined, start * SMALL_REGION_BYTES);
};

/** True if every byte of the run is this one. */
const isAll = (store: Store, { pv, start, count }: RegionRun, byte: number): boolean => {
  const bytes = Buffer.alloc(count * SMALL_REGION_BYTES);
  readSync(store.pvFd(pv), bytes, 0, bytes.length, start * SMALL_REGION_BYTES);
  return bytes.equals(Buffer.alloc(bytes.length, byte));
};

/** The life of a volume's regions: written, volume deleted, scrubbed, given to the next volume. */
describe.each([
  ['by punching holes', () => new HolePuncher()],
  ['by writing zeros', () => ({ ...NO_PUNCH, method: 'none', close: async (): Promise<void> => undefined })],
])('regions of a deleted volume, cleared %s,', (_how, makePuncher) => {
  test('read as zeros in the next volume, and their neighbours keep their data', async () => {
    await using made = await testStore();
    const store = await made.open();
    const puncher = makePuncher();
    await store.addPvs(1);
    for (const number of [1, 2, 3]) await store.commit(() => [nextVolumePut(store, number)]);
    for (const volume of store.tables.volumes()) fill(store, volume.runs, volume.number);
    await store.commit((tables) => volumeDeleteOps(tables, tables.volume(2)));
    const [list] = store.tables.scrubs();
    expect(list?.runs).toEqual([{ pv: 1, start: 16, count: 16 }]);
    expect(store.tables.unassigned.touchesFree({ pv: 1, start: 16, count: 16 })).toBe(false);

    const canPunch = puncher.method === 'fallocate';
    const blocksBefore = statSync(store.pvPath(1)).blocks;
    const result = await scrubRuns(store, list?.runs ?? [], puncher);
    expect(result.punchedBytes + result.zeroedBytes).toBe(16 * SMALL_REGION_BYTES);
    if (canPunch && result.punchedBytes > 0) expect(statSync(store.pvPath(1)).blocks).toBeLessThan(blocksBefore);
    await store.commit([{ op: 'scrub-delete', id: list?.id ?? 0 }]);
    await puncher.close();

    await store.commit(() => [nextVolumePut(store, 4)]);
    expect(store.tables.volume(4).runs).toEqual([{ pv: 1, start: 16, count: 16 }]);
    expect(isAll(store, { pv: 1, start: 16, count: 16 }, 0)).toBe(true);
    expect(isAll(store, { pv: 1, start: 15, count: 1 }, 1)).toBe(true);
    expect(isAll(store, { pv: 1, start: 32, count: 1 }, 3)).toBe(true);
  });
});

test('a crash before the list is deleted leaves it, and the work can be done again', async () => {
  await using made = await testStore();
  const first = await made.open();
  await first.addPvs(1);
  await first.commit([nextVolumePut(first, 1)]);
  fill(first, first.tables.volume(1).runs, 9);
  await first.commit((tables) => volumeDeleteOps(tables, tables.volume(1)));
  await first.close({ clean: false });

  const second = await made.open();
  const [list] = second.tables.scrubs();
  expect(list?.runs).toEqual([{ pv: 1, start: 0, count: 16 }]);
  await scrubRuns(second, list?.runs ?? [], NO_PUNCH);
  expect(await scrubRuns(second, list?.runs ?? [], NO_PUNCH)).toMatchObject({ punchedBytes: 0 });
  await second.commit([{ op: 'scrub-delete', id: list?.id ?? 0 }]);
  await second.close({ clean: true });
  expect(await checkStore(made.directory)).toMatchObject({ ok: true, findings: [] });
});

test('a region that never held data is neither punched nor written', async () => {
  await using made = await testStore();
  const store = await made.open();
  await store.addPvs(1);
  const asked: string[] = [];
  const result = await scrubRuns(store, [{ pv: 1, start: 0, count: 64 }], { punch: async (path) => asked.push(path) > 0 });
  expect([result, asked, statSync(store.pvPath(1)).blocks]).toEqual([{ punchedBytes: 0, zeroedBytes: 0 }, [], 0]);
});

test('can be stopped between steps', async () => {
  await using made = await testStore();
  const store = await made.open();
  await store.addPvs(1);
  fill(store, [{ pv: 1, start: 0, count: 1 }], 1);
  await expect(scrubRuns(store, [{ pv: 1, start: 0, count: 1 }], NO_PUNCH, AbortSignal.abort())).rejects.toThrow(
    expect.objectContaining({ name: 'AbortError' }),
  );
  expect(isAll(store, { pv: 1, start: 0, count: 1 }, 1)).toBe(true);
});
