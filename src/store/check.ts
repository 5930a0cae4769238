/**
 * `twinvol store check DIR`: verifies a store that nobody has open, and changes nothing in it.
 *
 * All findings are reported, not only the first. A `damage` is what makes `openStore` refuse the store, or an invariant
 * that is broken; a `repair` is what the next opening puts right by itself; a `note` is worth knowing.
 */
import { join, resolve } from 'node:path';
import { systemCode, TwinvolError } from '../core/faults.ts';
import type { RegionRun } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import { acquireFileLock, type FileLock } from '../platform/file-lock.ts';
import { seekData, seekHole } from '../platform/hole-seek.ts';
import { type MetadataFiles, realMetadataFiles } from '../platform/metadata-files.ts';
import { closeFile, findNonZero, openSparseFile } from '../platform/sparse-file.ts';
import { scanAudit } from './audit-file.ts';
import { bitmapFindings } from './check-bitmaps.ts';
import { type CheckFinding, finding, type Place } from './check-finding.ts';
import { FORMATS, type Formats } from './formats.ts';
import { AUDIT_NAME, LOCK_NAME, PV_DIRECTORY, pvNumberOfName, pvPath } from './layout.ts';
import { MetadataLog } from './metadata-log.ts';
import { firstVolumeBehind } from './pv-files.ts';
import type { Recovered } from './recovery.ts';
import { requireStore } from './store.ts';
import { storeFault } from './store-faults.ts';
import { superblockPath } from './superblock.ts';

export type CheckReport = {
  readonly directory: string;
  /** No finding is a damage. */
  readonly ok: boolean;
  readonly findings: readonly CheckFinding[];
  /** What was checked; null where the metadata could not be read. */
  readonly summary: {
    readonly uuid: string;
    readonly formatVersion: number;
    readonly regionBytes: number;
    readonly journalRecords: number;
    readonly physicalVolumes: number;
    readonly volumes: number;
    readonly pairs: number;
    readonly regions: { readonly total: number; readonly unassigned: number; readonly scrubbing: number };
    readonly wasCleanShutdown: boolean;
  } | null;
};

/**
 * @throws TwinvolError STORE_MISSING; STORE_LOCKED (an engine has it open); STORE_VERSION (nothing can be said about it);
 * STORE_IO. Damage does not throw: it is in the report.
 */
export const checkStore = async (
  directory: string,
  options: { readonly files?: MetadataFiles; readonly formats?: Formats } = {},
): Promise<CheckReport> => {
  const path = resolve(directory);
  const { files = realMetadataFiles, formats = FORMATS } = options;
  let lock: FileLock | null = null;
  try {
    await requireStore(files, path);
    lock = lockUnlessReadOnly(path);
    return await examine(files, path, formats);
  } catch (error) {
    throw storeFault(error, 'checking the store', path);
  } finally {
    lock?.release();
  }
};

/** On a file system that is mounted read-only nobody can own the store. */
const lockUnlessReadOnly = (directory: string): FileLock | null => {
  try {
    return acquireFileLock(join(directory, LOCK_NAME));
  } catch (error) {
    if (systemCode((error as { readonly cause?: unknown }).cause) === 'EROFS') return null;
    throw error;
  }
};

const examine = async (files: MetadataFiles, directory: string, formats: Formats): Promise<CheckReport> => {
  let recovered: Recovered;
  try {
    recovered = await MetadataLog.read(files, directory, formats);
  } catch (error) {
    if (!(error instanceof TwinvolError) || error.code === 'STORE_VERSION' || error.code === 'STORE_MISSING') throw error;
    return { directory, ok: false, findings: [ofError(error, directory)], summary: null };
  }
  const { tables } = recovered;
  const findings = [
    ...metadataFindings(recovered, directory),
    ...tables.check().map((text) => finding('damage', { file: recovered.journalPath }, text)),
    ...(await pvFindings(tables, directory)),
    ...(await bitmapFindings(files, tables, directory)),
    ...(await orphanFindings(files, tables, directory)),
    ...(await auditFindings(files, directory)),
  ];
  return { directory, ok: !findings.some(({ severity }) => severity === 'damage'), findings, summary: summaryOf(recovered) };
};

const ofError = (error: TwinvolError, directory: string): CheckFinding => {
  const { file, record, offset } = error.details as Partial<Place>;
  return finding('damage', { file: file ?? superblockPath(directory), record: record ?? null, offset: offset ?? null }, error.message);
};

const summaryOf = ({ superblock, tables, records, tornTail }: Recovered): CheckReport['summary'] => ({
  uuid: superblock.uuid,
  formatVersion: superblock.formatVersion,
  regionBytes: superblock.regionBytes,
  journalRecords: records,
  physicalVolumes: tables.pvs().length,
  volumes: tables.volumeCount,
  pairs: tables.pairCount,
  regions: {
    total: tables.unassigned.totalRegions,
    unassigned: tables.unassigned.freeRegions,
    scrubbing: tables.scrubs().reduce((sum, { runs }) => sum + runs.reduce((count, run) => count + run.count, 0), 0),
  },
  wasCleanShutdown: tables.isCleanShutdown && tornTail === null,
});

const metadataFindings = (recovered: Recovered, directory: string): CheckFinding[] => {
  const { badCopies, tornTail, leftovers, journalPath, needsUpgrade, superblock } = recovered;
  const findings = badCopies.map((copy) =>
    finding(
      'repair',
      { file: superblockPath(directory), record: copy },
      `copy ${copy} of the superblock is bad or old; the other one is used`,
    ),
  );
  if (tornTail !== null) {
    const text = `record ${tornTail.record} at byte ${tornTail.offset} is not whole (${tornTail.byteLength} bytes): the end of a write that a crash has cut off`;
    findings.push(finding('repair', { file: journalPath, record: tornTail.record, offset: tornTail.offset }, text));
  }
  for (const name of leftovers)
    findings.push(finding('repair', { file: join(directory, name) }, 'was left by a crash, and nothing refers to it'));
  if (needsUpgrade)
    findings.push(
      finding(
        'note',
        { file: superblockPath(directory) },
        `has the older format version ${superblock.formatVersion}; the next start upgrades it`,
      ),
    );
  return findings;
};

const auditFindings = async (files: MetadataFiles, directory: string): Promise<CheckFinding[]> => {
  const file = join(directory, AUDIT_NAME);
  const bytes = await files.readFile(file);
  if (bytes === null) return [];
  const { damage, tornBytes, endOffset, lastSeq } = scanAudit(bytes, { since: 0, limit: 0 });
  const damaged = damage.map(({ offset, text }) => finding('damage', { file, offset }, text));
  if (tornBytes === 0) return damaged;
  const text = `${tornBytes} bytes behind record ${lastSeq} are the end of a write that a crash has cut off`;
  return [...damaged, finding('repair', { file, offset: endOffset }, text)];
};

const pvFindings = async (tables: Tables, directory: string): Promise<CheckFinding[]> => {
  const findings: CheckFinding[] = [];
  const freeOf = new Map<number, RegionRun[]>(tables.pvs().map(({ number }) => [number, []]));
  for (const run of tables.unassigned.runs()) freeOf.get(run.pv)?.push(run);
  for (const { number, regions } of tables.pvs()) {
    const file = pvPath(directory, number);
    try {
      findings.push(...(await onePv(tables, { number, file, byteLength: regions * tables.regionBytes }, freeOf.get(number) ?? [])));
    } catch (error) {
      findings.push(finding('damage', { file }, storeFault(error, 'reading the physical volume', file).message));
    }
  }
  return findings;
};

const onePv = async (
  tables: Tables,
  pv: { readonly number: number; readonly file: string; readonly byteLength: number },
  free: readonly RegionRun[],
): Promise<CheckFinding[]> => {
  const { number, file, byteLength } = pv;
  const opened = openSparseFile(file, true);
  try {
    const present = opened?.byteLength ?? 0;
    const findings = opened === null ? [] : await dirtyRegions(tables, opened.fd, file, free);
    if (present > byteLength) findings.push(finding('note', { file }, `is ${present} bytes long, more than its ${byteLength}`));
    if (present >= byteLength) return findings;
    const what = opened === null ? 'is missing' : `is ${present} bytes long instead of ${byteLength}`;
    const victim = firstVolumeBehind(tables, number, Math.floor(present / tables.regionBytes));
    const text =
      victim === null ? `${what}; no volume has regions there` : `${what}, and volume ${victim.number} (${victim.name}) has data there`;
    return [...findings, finding(victim === null ? 'repair' : 'damage', { file }, text)];
  } finally {
    if (opened !== null) closeFile(opened.fd);
  }
};

/** Unassigned regions that do not read as zeros: old data that a new volume would show. */
const dirtyRegions = async (tables: Tables, fd: number, file: string, free: readonly RegionRun[]): Promise<CheckFinding[]> => {
  const findings: CheckFinding[] = [];
  for (const run of free) {
    const end = (run.start + run.count) * tables.regionBytes;
    for (let offset = seekData(fd, run.start * tables.regionBytes, end); offset < end; ) {
      const stop = seekHole(fd, offset, end);
      const at = await findNonZero(fd, offset, stop - offset);
      if (at >= 0) {
        findings.push(
          finding(
            'damage',
            { file, offset: at },
            `region ${Math.floor(at / tables.regionBytes)} is unassigned and holds data at byte ${at}`,
          ),
        );
        break;
      }
      offset = seekData(fd, stop, end);
    }
  }
  return findings;
};

const orphanFindings = async (files: MetadataFiles, tables: Tables, directory: string): Promise<CheckFinding[]> => {
  const folder = join(directory, PV_DIRECTORY);
  return (await files.list(folder)).flatMap((name) => {
    const number = pvNumberOfName(name);
    if (number !== null && tables.pv(number) !== undefined) return [];
    return [finding('note', { file: join(folder, name) }, 'is no physical volume of this store; its name is used again when one is added')];
  });
};
