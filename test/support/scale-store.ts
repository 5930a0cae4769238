/**
 * A store as large as the scale that is promised: 10,000 volumes, 2,000 pairs, 1,000,000 physical regions, written as
 * records of the journal, the way the engine itself would have left them; no volume has data.
 *
 * Shape: the primaries, their secondaries (split), then the unused volumes of the pool. Every volume has about 86
 * regions in RUNS_PER_VOLUME runs that lie apart, and the unassigned regions lie in holes between them, so that region
 * maps and the unassigned-region table are as scattered as after years of use.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PairRow, RegionRun, TableOp, VolumeRow } from '../../src/core/rows.ts';
import { dirtyRegionBytesFor, INTENT_EXTENT_BYTES } from '../../src/core/units.ts';
import { initStore } from '../../src/store/init.ts';
import { BITMAP_DIRECTORY, INTENT_DIRECTORY } from '../../src/store/layout.ts';
import { openStore } from '../../src/store/store.ts';
import { type BitmapHeader, encodeHeader, encodePage, pageOffset, pagesOf } from '../../src/wire/bitmap-page.ts';

export const SCALE_REGION_BYTES: number = 64 * 1024;

export type Scale = { readonly volumes: number; readonly pairs: number; readonly regions: number };
export const SCALE_PROMISED: Scale = { volumes: 10_000, pairs: 2_000, regions: 1_000_000 };

const RUNS_PER_VOLUME = 5;
/** Of a volume's share of the regions the rest stays unassigned. */
const USED_PERCENT = 86;
const PV_COUNT = 8;
const ROWS_PER_RECORD = 1000;
const LONELY_LESS = 10;

/** Run `index` of volume `number`: the volumes take turns, so that a volume's runs lie far apart. */
const runOf = (scale: Scale, number: number, index: number): RegionRun => {
  const share = Math.floor(scale.regions / (scale.volumes * RUNS_PER_VOLUME));
  const place = index * scale.volumes + (number - 1);
  const placesPerPv = (scale.volumes * RUNS_PER_VOLUME) / PV_COUNT;
  // The unused volumes of the pool differ in size, so that a choice has something to compare.
  const less = number > 2 * scale.pairs && index === 0 ? number % 8 : 0;
  const count = Math.floor((share * USED_PERCENT) / 100) - less;
  return { pv: Math.floor(place / placesPerPv) + 1, start: (place % placesPerPv) * share, count };
};

const volumeOf = (scale: Scale, number: number): VolumeRow => {
  const runs = Array.from({ length: RUNS_PER_VOLUME }, (_, index) => runOf(scale, number, index));
  const kind = number <= scale.pairs ? 'primary' : number <= 2 * scale.pairs ? 'secondary' : 'spare';
  return {
    number,
    name: `${kind}-${number}`,
    capacityBytes: runs.reduce((sum, run) => sum + run.count, 0) * SCALE_REGION_BYTES,
    attribute: kind === 'primary' ? 'normal' : 'secondary',
    runs,
    isProtected: kind === 'spare' && number % 10 === 0,
    uuid: `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`,
    createdAtMs: 1_700_000_000_000,
  };
};

const pairOf = (scale: Scale, id: number): PairRow => ({
  id,
  primary: id,
  secondary: scale.pairs + id,
  state: 'split',
  dirtyRegionBytes: dirtyRegionBytesFor(volumeOf(scale, id).capacityBytes, SCALE_REGION_BYTES),
  fence: 'never',
  pace: 8,
  createdAtMs: 1_700_000_000_000,
  stateSinceMs: 1_700_000_000_000,
});

const numbered = <Row>(count: number, rowOf: (number: number) => Row): Row[] =>
  Array.from({ length: count }, (_, index) => rowOf(index + 1));

/**
 * All operations, in records. One volume is left out of every pair and is `normal`: the last one, `lonely`. Ten regions
 * smaller than any other, so that a choice for it has to compare, and fitting has to move regions.
 */
export const scaleRecords = (scale: Scale): TableOp[][] => {
  const last = volumeOf(scale, scale.volumes);
  const [first, ...others] = last.runs;
  if (first === undefined) throw new Error('a volume has regions');
  const lonely: VolumeRow = {
    ...last,
    name: 'lonely',
    attribute: 'normal',
    isProtected: false,
    capacityBytes: last.capacityBytes - LONELY_LESS * SCALE_REGION_BYTES,
    runs: [{ ...first, count: first.count - LONELY_LESS }, ...others],
  };
  const ops: TableOp[] = [
    ...numbered(PV_COUNT, (number): TableOp => ({ op: 'pv-put', row: { number, regions: scale.regions / PV_COUNT } })),
    ...numbered(scale.volumes - 1, (number): TableOp => ({ op: 'volume-put', row: volumeOf(scale, number) })),
    { op: 'volume-put', row: lonely },
    ...numbered(scale.pairs, (id): TableOp => ({ op: 'pair-put', row: pairOf(scale, id) })),
  ];
  const records: TableOp[][] = [];
  for (let at = 0; at < ops.length; at += ROWS_PER_RECORD) records.push(ops.slice(at, at + ROWS_PER_RECORD));
  return records;
};

/** A bitmap file in which nothing is set, as an engine that ended in order leaves it. */
const writeEmptyBitmap = (path: string, header: BitmapHeader): void => {
  const pages = pagesOf(header.bits);
  const bytes = Buffer.alloc(pageOffset(pages));
  encodeHeader(header).copy(bytes);
  for (let page = 0; page < pages; page += 1) encodePage(new Int32Array(), page, bytes, pageOffset(page));
  writeFileSync(path, bytes, { mode: 0o600 });
};

const writeBitmaps = (directory: string, scale: Scale): void => {
  for (let id = 1; id <= scale.pairs; id += 1) {
    const { primary, secondary, dirtyRegionBytes } = pairOf(scale, id);
    const { capacityBytes } = volumeOf(scale, primary);
    for (const side of ['primary', 'secondary']) {
      const header = { bits: Math.ceil(capacityBytes / dirtyRegionBytes), bytesPerBit: dirtyRegionBytes, owner: id };
      writeEmptyBitmap(join(directory, BITMAP_DIRECTORY, `pair-${id}-${side}.map`), header);
    }
    for (const number of [primary, secondary]) {
      const bits = Math.ceil(volumeOf(scale, number).capacityBytes / INTENT_EXTENT_BYTES);
      writeEmptyBitmap(join(directory, INTENT_DIRECTORY, `volume-${number}.map`), {
        bits,
        bytesPerBit: INTENT_EXTENT_BYTES,
        owner: number,
      });
    }
  }
};

/** Makes the store in an empty directory, as an engine that ended in order leaves it. */
export const makeScaleStore = async (directory: string, scale: Scale = SCALE_PROMISED): Promise<void> => {
  await initStore(directory, { regionBytes: SCALE_REGION_BYTES, pvBytes: (scale.regions / PV_COUNT) * SCALE_REGION_BYTES });
  const store = await openStore(directory);
  try {
    writeBitmaps(directory, scale);
    await store.addPvs(PV_COUNT);
    for (const ops of scaleRecords(scale)) await store.commit(ops.filter((op) => op.op !== 'pv-put'));
  } finally {
    await store.close({ clean: true });
  }
};
