/**
 * Reads what a store's metadata says, and changes nothing: superblock, the valid journal, the tables that come of it.
 * What has to be put right (a bad superblock copy, a torn tail, files that a crash has left) is in the result; whoever
 * opens the store for writing does it only after everything else was found sound.
 */
import { join } from 'node:path';
import { TwinvolError } from '../core/faults.ts';
import type { TableOp } from '../core/rows.ts';
import { Tables } from '../core/tables.ts';
import type { MetadataFiles } from '../platform/metadata-files.ts';
import type { Superblock } from '../wire/store-records.ts';
import { type Formats, upgradeOps, upgradePath } from './formats.ts';
import { type JournalScan, scanJournal, type TornTail } from './journal-scan.ts';
import { generationOfName, journalName, SUPERBLOCK_NAME } from './layout.ts';
import { damaged } from './store-faults.ts';
import { readSuperblock } from './superblock.ts';

export type Recovered = {
  readonly superblock: Superblock;
  /** Numbers of the superblock's copies to be written anew. */
  readonly badCopies: readonly number[];
  readonly tables: Tables;
  readonly journalPath: string;
  readonly records: number;
  /** Sequence of the last record. */
  readonly sequence: number;
  readonly endOffset: number;
  readonly snapshotBytes: number;
  /** Length of the journal's file: behind `endOffset` it is reserved space or a torn tail. */
  readonly fileBytes: number;
  /** Where the last record begins, if it is nothing but the mark of a clean shutdown; else null. */
  readonly cleanMarkOffset: number | null;
  readonly tornTail: TornTail | null;
  /** Names of files that nothing refers to. */
  readonly leftovers: readonly string[];
  /** The store is of an older format version. */
  readonly needsUpgrade: boolean;
};

/** @throws TwinvolError STORE_MISSING, STORE_FOREIGN, STORE_VERSION, STORE_DAMAGED; the system's errors otherwise */
export const readMetadata = async (files: MetadataFiles, directory: string, formats: Formats): Promise<Recovered> => {
  const { superblock, badCopies } = await readSuperblock(files, directory, formats.current);
  const path = upgradePath(superblock.formatVersion, formats);
  if (path === null) {
    throw new TwinvolError(
      'STORE_VERSION',
      `the store ${directory} has format version ${superblock.formatVersion}, which this program cannot read any more`,
      {
        remedy: 'open it once with an older version of twinvol that can, then with this one',
        details: { formatVersion: superblock.formatVersion },
      },
    );
  }
  const journalPath = join(directory, journalName(superblock.generation));
  const bytes = await files.readFile(journalPath);
  if (bytes === null) throw damaged(`${journalPath}, the journal that the superblock names, is missing`, { file: journalPath });
  const scan = scanJournal(bytes, { file: journalPath, generation: superblock.generation, uuid: superblock.uuid });
  const tables = replay(scan, superblock.regionBytes, journalPath, (ops) => upgradeOps(ops, path));
  const names = await files.list(directory);
  return {
    superblock,
    badCopies,
    tables,
    journalPath,
    records: scan.records.length,
    sequence: scan.records.at(-1)?.sequence ?? 0,
    endOffset: scan.endOffset,
    snapshotBytes: scan.snapshotBytes,
    fileBytes: bytes.length,
    cleanMarkOffset: tables.isCleanShutdown ? cleanMarkOffset(scan) : null,
    tornTail: scan.tornTail,
    leftovers: names.filter((name) => isLeftover(name, superblock.generation)),
    needsUpgrade: superblock.formatVersion < formats.current,
  };
};

const cleanMarkOffset = ({ records }: JournalScan): number | null => {
  const last = records.at(-1);
  return last !== undefined && records.length > 1 && last.commits.length === 1 && last.commits[0]?.length === 1 ? last.offset : null;
};

const isLeftover = (name: string, generation: number): boolean => {
  if (name === `${SUPERBLOCK_NAME}.new`) return true;
  return generationOfName(name) !== null && name !== journalName(generation);
};

const replay = (scan: JournalScan, regionBytes: number, file: string, upgrade: (ops: readonly unknown[]) => readonly TableOp[]): Tables => {
  const tables = new Tables({ regionBytes });
  for (const record of scan.records) {
    try {
      for (const ops of record.commits) tables.apply(upgrade(ops));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw damaged(
        `${file}: record ${record.number} at byte ${record.offset} does not fit what is before it: ${why}`,
        { file, record: record.number, offset: record.offset },
        error,
      );
    }
  }
  return tables;
};
