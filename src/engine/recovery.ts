/**
 * The start of a device: what the tables say is made true again, before anybody is let in.
 *
 * 1. Files of pairs and volumes that are not in the tables are removed: a crash left them before a record or after one.
 * 2. Every volume and every pair is made known to the data plane; a pair's bits are read, and the marked intents are
 *    added to them, so they contain everything that may differ.
 * 3. The machine decides for each pair (`recovered`): a duplex pair with dirty bits is resynced, a copy goes on from its
 *    bits, a split or suspended pair goes on tracking.
 * 4. Regions that were to be cleared are cleared.
 *
 * At durability level `process` nothing is synced, so bits and marks are worth nothing once the machine itself went
 * down: then everything counts as dirty.
 */
import { join } from 'node:path';
import type { PairRow } from '../core/rows.ts';
import type { PairSpec } from '../data/plane-api.ts';
import { bootIdentity, keepBootIdentity, keptBootIdentity } from '../platform/boot-identity.ts';
import { realMetadataFiles } from '../platform/metadata-files.ts';
import { BITMAP_DIRECTORY, BOOT_NAME, INTENT_DIRECTORY, pairOfBitmapName, volumeOfIntentName } from '../store/layout.ts';
import type { Store } from '../store/store.ts';
import type { DeviceContext } from './context.ts';
import type { PairShell } from './pair-shell.ts';
import { volumeSpec } from './volume-support.ts';

/** Volumes or pairs that are made known at a time: the workers answer once for all of them. */
const BATCH = 256;

const inBatches = async <T>(list: readonly T[], work: (one: T) => Promise<void>): Promise<void> => {
  for (let first = 0; first < list.length; first += BATCH) await Promise.all(list.slice(first, first + BATCH).map(work));
};

/** Must run before the data plane opens any of these files. @returns how many were removed */
export const removeOrphanFiles = async (store: Store): Promise<number> => {
  const { tables, directory } = store;
  const isOrphanBitmap = (name: string): boolean => {
    const id = pairOfBitmapName(name);
    return id !== null && tables.pair(id) === undefined;
  };
  const isOrphanIntent = (name: string): boolean => {
    const number = volumeOfIntentName(name);
    return number !== null && !tables.isPaired(number);
  };
  let removed = 0;
  for (const [folder, isOrphan] of [[BITMAP_DIRECTORY, isOrphanBitmap] as const, [INTENT_DIRECTORY, isOrphanIntent] as const]) {
    const path = join(directory, folder);
    for (const name of (await realMetadataFiles.list(path)).filter(isOrphan)) {
      await realMetadataFiles.unlink(join(path, name));
      removed += 1;
    }
  }
  return removed;
};

/** After an unclean end the first write is still the first, but nobody knows the last one. */
const writtenBefore = ({ secondaryWritten }: PairRow, wasClean: boolean): Pick<PairSpec, 'secondaryWritten'> =>
  secondaryWritten === undefined ? {} : { secondaryWritten: wasClean ? secondaryWritten : { ...secondaryWritten, lastAtMs: null } };

/** The level was `process`, the last run did not end in order, and the machine has started anew since, or may have. */
const lostThePageCache = ({ directory, tables, wasCleanShutdown }: Store): boolean => {
  if (wasCleanShutdown || tables.settings.durability !== 'process') return false;
  const now = bootIdentity();
  return now === null || keptBootIdentity(join(directory, BOOT_NAME)) !== now;
};

/** @returns bytes that have to be copied because the last run did not end in order */
export const recoverDevice = async (context: DeviceContext, shell: PairShell): Promise<number> => {
  const { store, plane, regions, log, events } = context;
  const distrust = lostThePageCache(store);
  if (distrust) {
    const text =
      'the machine went down at durability level process: what was not written back is lost, and every pair is copied as a whole';
    log.warn(text);
    events.append('warning', 'device', 'durability', { text });
  }
  const volumes = store.tables.volumes();
  await inBatches(volumes, (row) => plane.volumeAttach(volumeSpec(row)));
  let recoveryBytes = 0;
  const found: Array<{ readonly row: PairRow; readonly dirtyBytes: number }> = [];
  const attach = async (row: PairRow): Promise<void> => {
    const spec = { ...row, fenceData: row.fence === 'data', ...writtenBefore(row, store.wasCleanShutdown) };
    const { recoveredBytes, dirtyBytes } = await plane.pairAttach(spec, { fresh: false, distrust });
    recoveryBytes += row.state === 'duplex' ? dirtyBytes : recoveredBytes;
    found.push({ row, dirtyBytes });
  };
  await inBatches(store.tables.pairs(), attach);
  for (const text of plane.fileDamage()) {
    log.warn(text);
    events.append('warning', 'device', 'bitmaps', { text });
  }
  // All pairs are known before the first copy runs: a restore marks the bits of the primary's other pairs.
  await inBatches(found, async ({ row, dirtyBytes }) => {
    await shell.happening(row.id, { event: 'recovered', dirtyBytes });
    // What fence level `data` had stopped stays stopped: nothing that the secondary lacks may be acknowledged.
    if (row.state === 'suspended' && row.isFenced === true) plane.pairConfigure(row.id, { isFenced: true });
  });
  const boot = bootIdentity();
  if (boot !== null && !keepBootIdentity(join(store.directory, BOOT_NAME), boot))
    log.debug('there was no room to keep which run of the machine this is');
  regions.resume();
  const facts = { volumes: volumes.length, pairs: found.length, wasCleanShutdown: store.wasCleanShutdown, recoveryBytes };
  if (store.wasCleanShutdown) log.info(facts, 'the last run ended in order');
  else log.warn(facts, 'the last run did not end in order; legs that may differ are copied again');
  return recoveryBytes;
};
