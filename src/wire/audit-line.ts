/**
 * On-disk form of the audit record: a line of text for each record, so that it can be read without us.
 *
 *     CRC32 JSON\n        eight hex digits over the JSON's bytes, a blank, one JSON object with "seq", "atMs" and "durableSeq"
 *
 * Behind the last line the file may go on with newlines: space that is kept for records when the disk is full. Pure. A
 * line whose checksum does not fit, or that is no record, decodes to null: it is never half believed.
 */
import { crc32 } from 'node:zlib';
import type { AuditEntry, AuditRecord } from '../core/audit.ts';
import { AUDIT_KINDS } from '../core/audit.ts';

const NEWLINE = 0x0a;

/** @param durableSeq number of the last record that is known to be on the medium; what follows it may be lost in a crash */
export const encodeAuditLine = (seq: number, atMs: number, durableSeq: number, entry: AuditEntry): string => {
  const json = JSON.stringify({ seq, atMs, durableSeq, ...entry });
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`;
};

export type DecodedAuditLine = { readonly record: AuditRecord; readonly durableSeq: number };

/** @param line without its newline */
export const decodeAuditLine = (line: string): DecodedAuditLine | null => {
  const match = /^([0-9a-f]{8}) (\{.*\})$/s.exec(line);
  if (match?.[1] === undefined || match[2] === undefined || crc32(match[2]) !== Number.parseInt(match[1], 16)) return null;
  const { durableSeq, ...record } = JSON.parse(match[2]) as Partial<AuditRecord> & { readonly durableSeq?: number };
  const areNumbers = [record.seq, record.atMs, durableSeq].every((value) => Number.isSafeInteger(value));
  if (!areNumbers || !AUDIT_KINDS.some((kind) => kind === record.kind)) return null;
  return { record: record as AuditRecord, durableSeq: durableSeq as number };
};

export type AuditLine = {
  /** Byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
  /** null: damaged, or cut off. */
  readonly decoded: DecodedAuditLine | null;
};

/**
 * All lines of a file but empty ones, in order. The last one may lack its newline; then it is cut off, whatever its
 * checksum says: the newline is written with the rest.
 */
export function* auditLines(bytes: Buffer): Generator<AuditLine, void, undefined> {
  let offset = 0;
  while (offset < bytes.length) {
    const newline = bytes.indexOf(NEWLINE, offset);
    const end = newline === -1 ? bytes.length : newline + 1;
    if (newline !== offset) {
      const decoded = newline === -1 ? null : decodeAuditLine(bytes.toString('utf8', offset, newline));
      yield { offset, byteLength: end - offset, decoded };
    }
    offset = end;
  }
}

/** Space for records that are still to come. */
export const auditPadding = (byteLength: number): Buffer => Buffer.alloc(byteLength, NEWLINE);
