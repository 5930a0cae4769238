/**
 * The audit record's file: `audit.log` in the store, only ever appended to.
 *
 * Fault model as of the journal (platform/metadata-files.ts): until a sync has returned, any part of what was written may
 * be on the medium. So what follows the last whole record is cut off at the next start (nobody was told that it is
 * durable), and what could not be written is kept and written again with the next record, in its place. A damaged line
 * with good ones behind it stays where it is and is reported: the record is history, nothing is decided from it.
 *
 * Numbers rise by one; they are given in the order of `append`, whatever fails. Appends that wait share one sync. The file
 * is made with the first record, so that a store on a full file system can still be opened.
 */
import { join } from 'node:path';
import type { AuditEntry, AuditRecord } from '../core/audit.ts';
import { TwinvolError } from '../core/faults.ts';
import { MiB } from '../core/units.ts';
import { type MetadataFile, type MetadataFiles, realMetadataFiles } from '../platform/metadata-files.ts';
import { auditLines, encodeAuditLine } from '../wire/audit-line.ts';
import { AUDIT_NAME } from './layout.ts';
import { storeFault } from './store-faults.ts';

/** What may wait for a medium that does not take it. */
const UNWRITTEN_BYTES_MAX = 16 * MiB;

export type AuditScan = {
  readonly records: readonly AuditRecord[];
  readonly lastSeq: number;
  /** Bytes up to the end of the last whole record. */
  readonly endOffset: number;
  /** What follows it: the end of a write that was cut off. */
  readonly tornBytes: number;
  /** Damaged lines with good ones behind them, and numbers that are missing: texts with the line's offset. */
  readonly damage: ReadonlyArray<{ readonly offset: number; readonly text: string }>;
};

/** Reads the file as it is. Pure over its bytes. */
export const scanAudit = (bytes: Buffer): AuditScan => {
  const records: AuditRecord[] = [];
  const damage: Array<{ offset: number; text: string }> = [];
  let suspects: Array<{ offset: number; text: string }> = [];
  let endOffset = 0;
  for (const { offset, byteLength, record } of auditLines(bytes)) {
    if (record === null) {
      suspects.push({ offset, text: `the line at byte ${offset} is damaged` });
      continue;
    }
    const due = (records.at(-1)?.seq ?? 0) + 1;
    // A damaged line explains the numbers that it held; without one a gap is a record that was taken out.
    if (record.seq !== due && suspects.length === 0)
      suspects.push({ offset, text: `record ${record.seq} follows on record ${due - 1}` });
    damage.push(...suspects);
    suspects = [];
    records.push(record);
    endOffset = offset + byteLength;
  }
  return { records, lastSeq: records.at(-1)?.seq ?? 0, endOffset, tornBytes: bytes.length - endOffset, damage };
};

export type AuditOptions = {
  readonly files?: MetadataFiles;
  readonly nowMs?: () => number;
  /** One line for the log: what was found and done. */
  readonly notice?: (text: string) => void;
};

export type Appended = {
  /** Numbers of the records, in the order of the entries. */
  readonly seqs: readonly number[];
  /** When they are on the medium. @throws TwinvolError `STORE_FULL`, `STORE_IO`, `ENGINE_STOPPING` */
  readonly durable: Promise<void>;
};

type Waiter = { readonly resolve: () => void; readonly reject: (error: unknown) => void };

export class AuditFile {
  readonly path: string;
  readonly #files: MetadataFiles;
  readonly #directory: string;
  #file: MetadataFile | null;
  readonly #nowMs: () => number;
  #lastSeq: number;
  /** Length of what is durable. */
  #durableBytes: number;
  /** Behind it: what is not known to be durable yet. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #waiters: Waiter[] = [];
  #flushing: Promise<void> | null = null;
  #isClosed = false;

  private constructor(directory: string, files: MetadataFiles, file: MetadataFile | null, scan: AuditScan, nowMs: () => number) {
    this.path = join(directory, AUDIT_NAME);
    this.#directory = directory;
    this.#files = files;
    this.#file = file;
    this.#lastSeq = scan.lastSeq;
    this.#durableBytes = scan.endOffset;
    this.#nowMs = nowMs;
  }

  /** @throws TwinvolError `STORE_IO`, `STORE_FULL` */
  static async open(directory: string, options: AuditOptions = {}): Promise<AuditFile> {
    const { files = realMetadataFiles, nowMs = Date.now, notice = (): void => undefined } = options;
    const path = join(directory, AUDIT_NAME);
    try {
      const bytes = await files.readFile(path);
      const scan = scanAudit(bytes ?? Buffer.alloc(0));
      const file = bytes === null ? null : await files.open(path, 'existing');
      if (file !== null && scan.tornBytes > 0) {
        notice(`${path}: ${scan.tornBytes} bytes behind record ${scan.lastSeq} are the end of a write that was cut off; they are removed`);
        await file.truncate(scan.endOffset);
        await file.sync();
      }
      for (const { text } of scan.damage) notice(`${path}: ${text}; what is there stays`);
      return new AuditFile(directory, files, file, scan, nowMs);
    } catch (error) {
      throw storeFault(error, 'opening the audit record', path);
    }
  }

  /** Number of the last record. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  append(entries: readonly AuditEntry[]): Appended {
    if (this.#isClosed) return { seqs: [], durable: rejected(new TwinvolError('ENGINE_STOPPING', 'the audit record is closed')) };
    if (this.#pendingBytes > UNWRITTEN_BYTES_MAX) {
      const fault = new TwinvolError('STORE_IO', `the audit record ${this.path} could not be written for too long`, { details: { path: this.path } });
      return { seqs: [], durable: rejected(fault) };
    }
    const atMs = this.#nowMs();
    const seqs = entries.map((entry) => {
      this.#lastSeq += 1;
      const line = Buffer.from(encodeAuditLine(this.#lastSeq, atMs, entry));
      this.#pending.push(line);
      this.#pendingBytes += line.length;
      return this.#lastSeq;
    });
    const durable = new Promise<void>((resolve, reject) => this.#waiters.push({ resolve, reject }));
    // Whoever does not wait for it is not hurt by its failure either.
    durable.catch(() => undefined);
    this.#flushing ??= this.#flushAll();
    return { seqs, durable };
  }

  /**
   * Records above `since`, oldest first, at most `limit`.
   * @throws TwinvolError `STORE_IO`
   */
  async read(since: number, limit: number): Promise<readonly AuditRecord[]> {
    await this.#flushing;
    try {
      const bytes = await this.#files.readFile(this.path);
      const { records } = scanAudit(bytes ?? Buffer.alloc(0));
      return records.filter(({ seq }) => seq > since).slice(0, limit);
    } catch (error) {
      throw storeFault(error, 'reading the audit record', this.path);
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    // A last try for what could not be written so far; if it fails, that was told when it was appended.
    const { durable } = this.append([]);
    this.#isClosed = true;
    await durable.catch(() => undefined);
    await this.#flushing;
    await this.#file?.close();
  }

  async #opened(): Promise<MetadataFile> {
    if (this.#file !== null) return this.#file;
    const file = await this.#files.open(this.path, 'create');
    try {
      await this.#files.syncDirectory(this.#directory);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    return file;
  }

  /** Writes and syncs until nobody waits. Never rejects. */
  async #flushAll(): Promise<void> {
    while (this.#waiters.length > 0) {
      const waiters = this.#waiters.splice(0);
      const count = this.#pending.length;
      const bytes = Buffer.concat(this.#pending);
      if (bytes.length === 0) {
        for (const { resolve } of waiters) resolve();
        continue;
      }
      try {
        const file = await this.#opened();
        await file.pwrite(bytes, this.#durableBytes);
        await file.sync();
        this.#durableBytes += bytes.length;
        this.#pending.splice(0, count);
        this.#pendingBytes -= bytes.length;
        for (const { resolve } of waiters) resolve();
      } catch (error) {
        const fault = storeFault(error, 'writing the audit record', this.path);
        for (const { reject } of waiters) reject(fault);
      }
    }
    this.#flushing = null;
  }
}

const rejected = (error: TwinvolError): Promise<never> => {
  const promise = Promise.reject(error);
  promise.catch(() => undefined);
  return promise;
};
