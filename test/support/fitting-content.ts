/**
 * Content that says where it belongs, for tests of region fitting: every 4 KiB of a volume hold the volume's name and
 * their offset in it. So a store that a crash has left can be read region by region, past the engine, and whatever is
 * found can be traced to the volume that once held it.
 */
import fs from 'node:fs';
import type { RegionRun, VolumeRow } from '../../src/core/rows.ts';
import { KiB } from '../../src/core/units.ts';
import { openStore } from '../../src/store/store.ts';
import type { Store } from '../../src/store/store.ts';

const BLOCK_BYTES = 4 * KiB;
const NAME_BYTES = 32;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/** The content of a part of a volume. */
export const contentOf = (volume: string, offset: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length, 0x5a);
  for (let at = 0; at < length; at += BLOCK_BYTES) {
    bytes.fill(0, at, at + NAME_BYTES);
    bytes.write(volume, at, NAME_BYTES, 'latin1');
    bytes.writeDoubleLE(offset + at, at + NAME_BYTES);
  }
  return bytes;
};

/** Whose 4 KiB these are; `zero`, or `torn` for what nobody has written like this. */
export type Origin = 'zero' | 'torn' | { readonly volume: string; readonly offset: number };

const originOf = (block: Buffer): Origin => {
  if (block.equals(ZEROS)) return 'zero';
  const volume = block.toString('latin1', 0, block.indexOf(0));
  const offset = block.readDoubleLE(NAME_BYTES);
  return volume.length < NAME_BYTES && block.equals(contentOf(volume, offset, BLOCK_BYTES)) ? { volume, offset } : 'torn';
};

/** The origins of all blocks of these regions, in order. */
function* originsIn(store: Store, runs: readonly RegionRun[]): IterableIterator<Origin> {
  for (const { pv, start, count } of runs) {
    const bytes = Buffer.alloc(count * store.regionBytes);
    fs.readSync(store.pvFd(pv), bytes, 0, bytes.length, start * store.regionBytes);
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) yield originOf(bytes.subarray(at, at + BLOCK_BYTES));
  }
}

/** Whether a block of a volume may have this origin. */
export type Allowed = (volume: VolumeRow, offset: number, origin: Origin) => boolean;

/**
 * Reads a store that nobody has open: its tables, and the bytes of every region.
 * @returns what is wrong with it, one sentence each
 */
export const findingsIn = async (directory: string, allowed: Allowed): Promise<string[]> => {
  const store = await openStore(directory, { readOnly: true });
  try {
    const { tables } = store;
    const findings = tables.check();
    const runs = [...tables.unassigned.runs()];
    for (const origin of originsIn(store, runs)) if (origin !== 'zero') findings.push(`an unassigned region holds ${textOf(origin)}`);
    for (const volume of tables.volumes()) {
      let offset = 0;
      for (const origin of originsIn(store, volume.runs)) {
        if (!allowed(volume, offset, origin))
          findings.push(`${volume.name} has at ${offset} of ${volume.capacityBytes}: ${textOf(origin)}`);
        offset += BLOCK_BYTES;
      }
    }
    return [...new Set(findings)].slice(0, 5);
  } finally {
    await store.close({ clean: false });
  }
};

const textOf = (origin: Origin): string => (typeof origin === 'string' ? origin : `${origin.volume} at ${origin.offset}`);
