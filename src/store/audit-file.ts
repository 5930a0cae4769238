/**
 * The audit record's file: `audit.log` in the store, only ever appended to.
 *
 * Fault model as of the journal (platform/metadata-files.ts): until a sync has returned, any part of what was written may
 * be on the medium. A record names the last one that was durable when it was made; so at the next start it is known from
 * where on lines may be missing or torn without anybody having relied on them, and that end is cut off. A damaged line
 * before it stays where it is and is reported: the record is history, nothing is decided from it.
 *
 * What could not be written is kept, and written again with the next record, in its place. Behind the records the file
 * holds space in reserve, because deleting a volume is what helps on a full disk, and that has to be recorded too.
 * Numbers rise by one, in the order of `append`, whatever fails. Appends that wait share one sync.
 */
import { join } from 'node:path';
import type { AuditEntry, AuditRecord } from '../core/audit.ts';
import { TwinvolError } from '../core/faults.ts';
import { KiB, MiB } from '../core/units.ts';
import { type MetadataFile, type MetadataFiles, realMetadataFiles } from '../platform/metadata-files.ts';
import { auditLines, auditPadding, encodeAuditLine, lastAuditLine } from '../wire/audit-line.ts';
import { AUDIT_NAME } from './layout.ts';
import { storeFault } from './store-faults.ts';

/** What may wait for a medium that does not take it. */
const UNWRITTEN_BYTES_MAX = 16 * MiB;
/** Space behind the records; filled up again when half of it is used. */
export const AUDIT_RESERVE_BYTES: number = 128 * KiB;

export type AuditScan = {
  /** Those that were asked for. */
  readonly records: readonly AuditRecord[];
  readonly lastSeq: number;
  /** Bytes up to the end of the last record that counts. */
  readonly endOffset: number;
  /** What follows it and is no space in reserve: the end of writes that were cut off. */
  readonly tornBytes: number;
  /** Damaged lines that were durable once, and numbers that are missing: texts with the line's offset. */
  readonly damage: readonly Flaw[];
};

type Flaw = { readonly offset: number; readonly text: string };

/** Records to give back: those above `since`, at most `limit`. */
type Wanted = { readonly since: number; readonly limit: number };

/** Reads the file as it is. Pure over its bytes; the file may be long, so only the records that are wanted are kept. */
export const scanAudit = (bytes: Buffer, wanted: Wanted = { since: 0, limit: Number.MAX_SAFE_INTEGER }): AuditScan => {
  // Somebody may have relied on what was durable when the last line was made, and on nothing behind it.
  const relied = lastAuditLine(bytes)?.durableSeq ?? 0;
  const records: AuditRecord[] = [];
  const damage: Flaw[] = [];
  let flaws: Flaw[] = [];
  let lastSeq = 0;
  let endOffset = 0;
  for (const { offset, byteLength, decoded } of auditLines(bytes)) {
    if (decoded === null) {
      flaws.push({ offset, text: `the line at byte ${offset} is damaged` });
      continue;
    }
    const { seq } = decoded;
    // A damaged line explains the numbers that it held; without one a gap is a record that was taken out.
    if (seq !== lastSeq + 1 && flaws.length === 0) flaws.push({ offset, text: `record ${seq} follows on record ${lastSeq}` });
    // Behind what somebody relied on, whatever is not whole is the end of writes that a crash has cut off.
    if (flaws.length > 0 && lastSeq >= relied) break;
    damage.push(...flaws);
    flaws = [];
    if (seq > wanted.since && records.length < wanted.limit) records.push(decoded.record());
    lastSeq = seq;
    endOffset = offset + byteLength;
  }
  const rest = bytes.subarray(endOffset);
  const tornBytes = rest.equals(auditPadding(rest.length)) ? 0 : rest.length;
  return { records, lastSeq, endOffset, tornBytes, damage };
};

export type AuditOptions = {
  readonly files?: MetadataFiles;
  readonly nowMs?: () => number;
  /** One line for the log: what was found and done. */
  readonly notice?: (text: string) => void;
  readonly reserveBytes?: number;
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
  readonly #directory: string;
  readonly #files: MetadataFiles;
  readonly #nowMs: () => number;
  readonly #reserveBytes: number;
  #file: MetadataFile | null = null;
  #lastSeq: number;
  #durableSeq: number;
  /** Length of the records that are durable; of the file, with the space in reserve. */
  #durableBytes: number;
  #fileBytes: number;
  /** Behind the durable ones: what is not known to be durable yet. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #waiters: Waiter[] = [];
  #flushing: Promise<void> | null = null;
  #isClosed = false;

  private constructor(directory: string, files: MetadataFiles, scan: AuditScan, fileBytes: number, options: AuditOptions) {
    this.path = join(directory, AUDIT_NAME);
    this.#directory = directory;
    this.#files = files;
    this.#lastSeq = scan.lastSeq;
    this.#durableSeq = scan.lastSeq;
    this.#durableBytes = scan.endOffset;
    this.#fileBytes = fileBytes;
    this.#nowMs = options.nowMs ?? Date.now;
    this.#reserveBytes = options.reserveBytes ?? AUDIT_RESERVE_BYTES;
  }

  /**
   * A file system without space is no reason not to open it.
   * @throws TwinvolError `STORE_IO`
   */
  static async open(directory: string, options: AuditOptions = {}): Promise<AuditFile> {
    const { files = realMetadataFiles, notice = (): void => undefined } = options;
    const path = join(directory, AUDIT_NAME);
    try {
      const bytes = await files.readFile(path);
      const scan = scanAudit(bytes ?? Buffer.alloc(0), { since: 0, limit: 0 });
      for (const { text } of scan.damage) notice(`${path}: ${text}; what is there stays`);
      const audit = new AuditFile(directory, files, scan, bytes?.length ?? 0, options);
      if (bytes !== null) audit.#file = await files.open(path, 'existing');
      if (scan.tornBytes > 0) {
        notice(`${path}: ${scan.tornBytes} bytes behind record ${scan.lastSeq} are the end of writes that were cut off; they are removed`);
        await audit.#file?.pwrite(auditPadding(scan.tornBytes), scan.endOffset);
        await audit.#file?.sync();
      }
      await audit.#reserve();
      return audit;
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
      const text = `the audit record ${this.path} could not be written for too long`;
      return { seqs: [], durable: rejected(new TwinvolError('STORE_IO', text, { details: { file: this.path } })) };
    }
    const atMs = this.#nowMs();
    const seqs = entries.map((entry) => {
      this.#lastSeq += 1;
      const line = Buffer.from(encodeAuditLine(this.#lastSeq, atMs, this.#durableSeq, entry));
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
      return scanAudit(bytes ?? Buffer.alloc(0), { since, limit }).records;
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
    // What is appended in the same turn goes out together.
    await Promise.resolve();
    while (this.#waiters.length > 0) {
      const waiters = this.#waiters.splice(0);
      try {
        await this.#flush();
        for (const { resolve } of waiters) resolve();
      } catch (error) {
        const fault = storeFault(error, 'writing the audit record', this.path);
        for (const { reject } of waiters) reject(fault);
      }
    }
    this.#flushing = null;
  }

  async #flush(): Promise<void> {
    const count = this.#pending.length;
    const lastSeq = this.#lastSeq;
    const bytes = Buffer.concat(this.#pending);
    if (bytes.length === 0) return;
    const file = await this.#opened();
    await file.pwrite(bytes, this.#durableBytes);
    await file.sync();
    this.#durableSeq = lastSeq;
    this.#durableBytes += bytes.length;
    this.#fileBytes = Math.max(this.#fileBytes, this.#durableBytes);
    this.#pending.splice(0, count);
    this.#pendingBytes -= bytes.length;
    await this.#reserve();
  }

  /** Fills the reserve up. Where there is no space for it, there is none: the next record tries again. */
  async #reserve(): Promise<void> {
    const left = this.#fileBytes - this.#durableBytes;
    if (left >= this.#reserveBytes / 2) return;
    try {
      const file = await this.#opened();
      await file.pwrite(auditPadding(this.#reserveBytes - left), this.#fileBytes);
      this.#fileBytes = this.#durableBytes + this.#reserveBytes;
    } catch {
      // A part of it may be there; it is newlines, and is written over.
    }
  }
}

const rejected = (fault: TwinvolError): Promise<never> => {
  const promise = Promise.reject(fault);
  promise.catch(() => undefined);
  return promise;
};
