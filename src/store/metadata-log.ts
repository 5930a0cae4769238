/**
 * The durable tables: takes changes, makes each durable in the journal, then applies it. The only writer of the
 * superblock and the journal.
 *
 * - Changes that wait while a flush runs go out together in one frame with one flush (group commit), in the order in
 *   which they came. Each is checked against the tables with all earlier ones in effect; one that is refused takes no
 *   other with it. Nobody sees a change before it is durable.
 * - An error while writing: the changes of that frame fail, the tables stay, the journal is cut back to its last good
 *   record. If even that fails, nothing is known about the journal's end, and every later change is refused until
 *   cutting back succeeds, which each of them tries first.
 * - The journal keeps some space in reserve behind its end, written as zeros: on a full file system volumes can still be
 *   deleted (which is what frees space), and a flush need not change the file's length.
 * - Compaction, when the journal is much longer than its snapshot: the tables are written as the first record of a new
 *   journal beside the old one, made durable under its name, and only then the superblock is switched to it. Until the
 *   first superblock copy is durable the old journal is valid, afterwards the new one; nothing is written to either
 *   in between. An upgrade from an older format version is the same step.
 */
import { join } from 'node:path';
import { TwinvolError } from '../core/faults.ts';
import type { TableOp } from '../core/rows.ts';
import { Tables, type Undo } from '../core/tables.ts';
import { KiB, MiB } from '../core/units.ts';
import { type MetadataFile, type MetadataFiles, replaceDurably } from '../platform/metadata-files.ts';
import { encodeFrame, PAYLOAD_BYTES_MAX, type Superblock } from '../wire/store-records.ts';
import { FORMATS, type Formats } from './formats.ts';
import { encodePayload } from './journal-scan.ts';
import { journalName } from './layout.ts';
import { type Recovered, readMetadata } from './recovery.ts';
import { storeFault } from './store-faults.ts';
import { repairSuperblock, SuperblockKeeper, superblockFileBytes, superblockPath } from './superblock.ts';

/** Below this a journal is never compacted. */
const COMPACT_BYTES_MIN = 1 * MiB;
/** A journal is compacted when it is this many times as long as its snapshot. */
const COMPACT_FACTOR = 4;
/** Payload of one frame, where several commits share it. */
const BATCH_BYTES_MAX = 256 * KiB;
/** The reserve behind the journal's end is filled up to this when less than half of it is left. */
const RESERVE_BYTES = 64 * KiB;

/** Operations, or a function that makes them from the tables with all earlier changes in effect. */
export type Change = readonly TableOp[] | ((tables: Tables) => readonly TableOp[]);

export type StoreGeometry = { readonly uuid: string; readonly regionBytes: number; readonly pvBytes: number };

export type MetadataLogOptions = {
  /** One line for the log: what was found and done. */
  readonly notice?: (text: string) => void;
  readonly formats?: Formats;
  /** Journal length at which compaction begins; for tests. */
  readonly compactBytesMin?: number;
};

const CLEAN_MARK: TableOp = { op: 'clean-shutdown' };

type Waiting = { readonly change: Change; readonly resolve: () => void; readonly reject: (error: unknown) => void };
type Accepted = Waiting & { readonly ops: readonly TableOp[]; readonly json: string };

export class MetadataLog {
  readonly directory: string;
  readonly tables: Tables;
  readonly wasCleanShutdown: boolean;
  readonly #files: MetadataFiles;
  readonly #formats: Formats;
  readonly #notice: (text: string) => void;
  readonly #compactBytesMin: number;
  readonly #superblock: SuperblockKeeper;
  #file: MetadataFile;
  #sequence: number;
  #endOffset: number;
  /** The end of the space that is reserved. */
  #reservedEnd: number;
  #compactAt = 0;
  #queue: Waiting[] = [];
  #draining: Promise<void> | null = null;
  #closing = false;
  #failure: TwinvolError | null = null;
  /** Puts right what `#failure` is about. */
  #remedy: () => Promise<void> = () => Promise.resolve();

  private constructor(files: MetadataFiles, directory: string, recovered: Recovered, file: MetadataFile, options: MetadataLogOptions) {
    this.#files = files;
    this.directory = directory;
    this.tables = recovered.tables;
    this.wasCleanShutdown = recovered.tables.isCleanShutdown && recovered.tornTail === null;
    this.#superblock = new SuperblockKeeper(files, directory, recovered.superblock);
    this.#sequence = recovered.sequence;
    this.#endOffset = recovered.endOffset;
    this.#reservedEnd = recovered.tornTail === null ? recovered.fileBytes : recovered.endOffset;
    this.#file = file;
    this.#formats = options.formats ?? FORMATS;
    this.#notice = options.notice ?? ((): void => undefined);
    this.#compactBytesMin = options.compactBytesMin ?? COMPACT_BYTES_MIN;
    this.#planCompaction(recovered.snapshotBytes);
  }

  /** Writes the metadata of a new store; the superblock last, so that a crash leaves no store rather than half of one. */
  static async create(files: MetadataFiles, directory: string, geometry: StoreGeometry, formats: Formats = FORMATS): Promise<void> {
    const tables = new Tables({ regionBytes: geometry.regionBytes });
    const snapshot = encodeFrame(1, 1, encodePayload([JSON.stringify(tables.snapshot())], geometry.uuid));
    const cleanMark = encodeFrame(2, 1, encodePayload([JSON.stringify([CLEAN_MARK])], null));
    await replaceDurably(files, join(directory, journalName(1)), Buffer.concat([snapshot, cleanMark, Buffer.alloc(RESERVE_BYTES)]));
    const superblock: Superblock = { formatVersion: formats.current, generation: 1, sequence: 1, ...geometry };
    await replaceDurably(files, superblockPath(directory), superblockFileBytes(superblock));
  }

  /** Reads only. @throws TwinvolError, see recovery.ts */
  static read(files: MetadataFiles, directory: string, formats: Formats = FORMATS): Promise<Recovered> {
    return readMetadata(files, directory, formats);
  }

  /**
   * Puts right what `read` has found, and opens the journal for changes. The mark of a clean shutdown is durably taken
   * off before this returns, since from now on there may be writes that it would deny.
   */
  static async start(
    files: MetadataFiles,
    directory: string,
    recovered: Recovered,
    options: MetadataLogOptions = {},
  ): Promise<MetadataLog> {
    const notice = options.notice ?? ((): void => undefined);
    const { superblock, badCopies, tornTail, journalPath } = recovered;
    if (badCopies.length > 0) {
      notice(`superblock: copy ${badCopies.join(' and ')} was bad or old and is written anew`);
      await repairSuperblock(files, directory, recovered);
    }
    const file = await files.open(journalPath, 'existing');
    try {
      if (tornTail !== null) {
        notice(
          `${journalPath}: record ${tornTail.record} at byte ${tornTail.offset} was not whole (${tornTail.byteLength} bytes) and is cut off; nothing in it was acknowledged`,
        );
        await file.truncate(tornTail.offset);
        await file.sync();
      }
      await removeLeftovers(files, directory, recovered.leftovers, notice);
      const log = new MetadataLog(files, directory, recovered, file, options);
      if (recovered.needsUpgrade) {
        notice(`the store is upgraded from format version ${superblock.formatVersion} to ${log.#formats.current}`);
        await log.#compact();
        log.tables.apply([]);
      } else if (log.wasCleanShutdown) {
        await log.#takeOffCleanMark(recovered.cleanMarkOffset);
      }
      return log;
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
  }

  get superblock(): Superblock {
    return this.#superblock.current;
  }
  /** Bytes of the journal. */
  get journalBytes(): number {
    return this.#endOffset;
  }
  /** Why every change is refused, or null. */
  get failure(): TwinvolError | null {
    return this.#failure;
  }

  /**
   * Makes a change durable, then applies it.
   * @throws TwinvolError INTERNAL (the tables refuse it), STORE_FULL, STORE_IO, LIMIT, ENGINE_STOPPING, or what the
   * function throws; nothing has changed then
   */
  commit(change: Change): Promise<void> {
    if (this.#closing) return Promise.reject(new TwinvolError('ENGINE_STOPPING', 'the store is closing and takes no more changes'));
    return this.#enqueue(change);
  }

  /** Waits for the changes under way. `clean`: marks that nothing was left to recover. Closing twice is allowed. */
  async close(options: { readonly clean: boolean }): Promise<void> {
    if (this.#closing) {
      await this.#draining;
      return;
    }
    this.#closing = true;
    await this.#draining;
    try {
      if (options.clean && (await this.#isInOrder())) await this.#enqueue([CLEAN_MARK]);
    } finally {
      await this.#file.close();
    }
  }

  #enqueue(change: Change): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ change, resolve, reject });
      this.#draining ??= this.#drain();
    });
  }

  async #drain(): Promise<void> {
    // What else is asked for in this turn of the event loop goes out with the first.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      await this.#writeBatch();
      if (this.#endOffset >= this.#compactAt && this.#failure === null && !this.#closing) await this.#compactOrPutOff();
    }
    this.#draining = null;
  }

  async #writeBatch(): Promise<void> {
    if (!(await this.#isInOrder())) {
      for (const waiting of this.#queue.splice(0)) waiting.reject(this.#failure);
      return;
    }
    const batch = this.#accept();
    if (batch.length === 0) return;
    const payload = encodePayload(
      batch.map(({ json }) => json),
      null,
    );
    const frame = encodeFrame(this.#sequence + 1, this.superblock.generation, payload);
    try {
      await this.#reserve(this.#endOffset + frame.length);
      await this.#file.pwrite(frame, this.#endOffset);
      await this.#file.sync();
    } catch (error) {
      await this.#cutBack();
      for (const waiting of batch) waiting.reject(storeFault(error, 'writing the journal', this.#journalPath));
      return;
    }
    this.#sequence += 1;
    this.#endOffset += frame.length;
    for (const { ops, resolve } of batch) {
      this.tables.apply(ops);
      resolve();
    }
  }

  /** Reserves space behind `end`, where it is getting short. Without it the journal works as well, so no error counts. */
  async #reserve(end: number): Promise<void> {
    if (end + RESERVE_BYTES / 2 <= this.#reservedEnd) return;
    try {
      const from = Math.max(this.#endOffset, this.#reservedEnd);
      await this.#file.pwrite(Buffer.alloc(end + RESERVE_BYTES - from), from);
      this.#reservedEnd = end + RESERVE_BYTES;
    } catch {
      // If the medium is at fault the record's own write says so.
    }
  }

  /**
   * By writing zeros over the mark's record, which needs no space. A mark within another record (of a program that
   * wrote it so) ends with the next record.
   */
  async #takeOffCleanMark(offset: number | null): Promise<void> {
    if (offset === null) return await this.commit([]);
    await this.#file.pwrite(Buffer.alloc(this.#endOffset - offset), offset);
    await this.#file.sync();
    this.#endOffset = offset;
    this.#sequence -= 1;
    this.tables.apply([]);
  }

  /** Takes waiting changes that the tables allow, as many as make one frame; the tables are as before afterwards. */
  #accept(): Accepted[] {
    const accepted: Accepted[] = [];
    const undos: Undo[] = [];
    let byteLength = 0;
    while (this.#queue.length > 0 && byteLength < BATCH_BYTES_MAX) {
      const waiting = this.#queue.shift() as Waiting;
      try {
        const ops = typeof waiting.change === 'function' ? waiting.change(this.tables) : waiting.change;
        const json = JSON.stringify(ops);
        // Three bytes for each UTF-16 unit is the most that UTF-8 takes; the other commits of the frame come on top.
        if (json.length * 3 > PAYLOAD_BYTES_MAX - 8 * MiB)
          throw new TwinvolError('LIMIT', 'a change of the tables is too large for one record');
        undos.push(this.tables.apply(ops));
        accepted.push({ ...waiting, ops, json });
        byteLength += json.length;
      } catch (error) {
        waiting.reject(error);
      }
    }
    for (const undo of undos.reverse()) undo();
    return accepted;
  }

  /** Removes what a failed write may have left behind the last good record. */
  async #cutBack(): Promise<void> {
    const remedy = async (): Promise<void> => {
      this.#reservedEnd = this.#endOffset;
      await this.#file.truncate(this.#endOffset);
      await this.#reserve(this.#endOffset);
      await this.#file.sync();
    };
    await remedy().catch((error: unknown) => this.#fail(error, 'the end of the journal could not be restored after an error', remedy));
  }

  #fail(error: unknown, what: string, remedy: () => Promise<void>): void {
    this.#failure = new TwinvolError('STORE_IO', `${what}, so no change of the tables is possible (${this.#journalPath})`, {
      remedy: 'repair the disk or free space, then repeat the command; if that does not help, restart the engine',
      cause: error,
      details: { file: this.#journalPath },
    });
    this.#remedy = remedy;
    this.#notice(this.#failure.message);
  }

  /** True if changes are possible; tries to make them so. */
  async #isInOrder(): Promise<boolean> {
    if (this.#failure === null) return true;
    try {
      await this.#remedy();
    } catch {
      return false;
    }
    this.#failure = null;
    this.#notice(`${this.#journalPath}: changes of the tables are possible again`);
    return true;
  }

  get #journalPath(): string {
    return join(this.directory, journalName(this.superblock.generation));
  }

  #planCompaction(snapshotBytes: number): void {
    this.#compactAt = Math.max(this.#compactBytesMin, COMPACT_FACTOR * snapshotBytes);
  }

  /** Compaction that cannot be done now is no fault of a change: it is tried again later. */
  async #compactOrPutOff(): Promise<void> {
    try {
      await this.#compact();
    } catch (error) {
      this.#compactAt = this.#endOffset * 2;
      this.#notice(`the journal could not be compacted, and is used as it is: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #compact(): Promise<void> {
    const old = { file: this.#file, path: this.#journalPath };
    const generation = this.superblock.generation + 1;
    const payload = encodePayload([JSON.stringify(this.tables.snapshot())], this.superblock.uuid);
    const frame = encodeFrame(this.#sequence + 1, generation, payload);
    const file = await this.#writeJournal(join(this.directory, journalName(generation)), frame);
    const { outcome, error } = await this.#superblock.change({ formatVersion: this.#formats.current, generation });
    if (outcome === 'kept' || outcome === 'unknown') {
      await file.close().catch(() => undefined);
      if (outcome === 'unknown') this.#fail(error, 'the superblock could not be written', () => this.#confirmSuperblock());
      throw storeFault(error, 'switching to a new journal', superblockPath(this.directory));
    }
    this.#file = file;
    this.#sequence += 1;
    this.#endOffset = frame.length;
    this.#reservedEnd = frame.length + RESERVE_BYTES;
    this.#planCompaction(frame.length);
    if (outcome === 'half')
      this.#notice(storeFault(error, 'writing one of the two copies of the superblock', superblockPath(this.directory)).message);
    await old.file.close().catch(() => undefined);
    // The old journal is of no use any more; if it stays, the next start removes it.
    if (outcome === 'whole') await this.#files.unlink(old.path).catch(() => undefined);
  }

  async #confirmSuperblock(): Promise<void> {
    if (!(await this.#superblock.confirm())) throw new Error('neither copy of the superblock could be written');
  }

  /** A whole and durable journal file, not yet valid. */
  async #writeJournal(path: string, frame: Buffer): Promise<MetadataFile> {
    let file: MetadataFile | null = null;
    try {
      file = await this.#files.open(`${path}.new`, 'create');
      await file.pwrite(frame, 0);
      await file.pwrite(Buffer.alloc(RESERVE_BYTES), frame.length);
      await file.sync();
      await this.#files.rename(`${path}.new`, path);
      await this.#files.syncDirectory(this.directory);
      return file;
    } catch (error) {
      await file?.close().catch(() => undefined);
      for (const name of [`${path}.new`, path]) await this.#files.unlink(name).catch(() => undefined);
      throw storeFault(error, 'writing a new journal', path);
    }
  }
}

const removeLeftovers = async (
  files: MetadataFiles,
  directory: string,
  names: readonly string[],
  notice: (text: string) => void,
): Promise<void> => {
  for (const name of names) {
    notice(`${join(directory, name)} was left by a crash, nothing refers to it, and it is removed`);
    await files.unlink(join(directory, name));
  }
  if (names.length > 0) await files.syncDirectory(directory);
};
