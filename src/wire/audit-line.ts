/**
 * On-disk form of the audit record: a line of text for each record, so that it can be read without us.
 *
 *     CRC32 JSON\n        eight hex digits over the JSON's bytes, a blank, one JSON object with "seq" and "atMs"
 *
 * Pure. A line whose checksum does not fit, or that is no record, decodes to null: it is never half believed.
 */
import { crc32 } from 'node:zlib';
import type { AuditEntry, AuditRecord } from '../core/audit.ts';
import { AUDIT_KINDS } from '../core/audit.ts';

export const encodeAuditLine = (seq: number, atMs: number, entry: AuditEntry): string => {
  const json = JSON.stringify({ seq, atMs, ...entry });
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`;
};

/** @param line without its newline */
export const decodeAuditLine = (line: string): AuditRecord | null => {
  const match = /^([0-9a-f]{8}) (\{.*\})$/s.exec(line);
  if (match?.[1] === undefined || match[2] === undefined || crc32(match[2]) !== Number.parseInt(match[1], 16)) return null;
  const record = JSON.parse(match[2]) as Partial<AuditRecord>;
  const isSound = Number.isSafeInteger(record.seq) && Number.isSafeInteger(record.atMs) && AUDIT_KINDS.some((kind) => kind === record.kind);
  return isSound ? (record as AuditRecord) : null;
};

export type AuditLine = {
  /** Byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
  /** null: damaged, or cut off. */
  readonly record: AuditRecord | null;
};

/**
 * All lines of a file, in order. The last one may lack its newline; then it is cut off, whatever its checksum says: the
 * newline is written with the rest.
 */
export function* auditLines(bytes: Buffer): Generator<AuditLine, void, undefined> {
  let offset = 0;
  while (offset < bytes.length) {
    const newline = bytes.indexOf(0x0a, offset);
    const end = newline === -1 ? bytes.length : newline + 1;
    const record = newline === -1 ? null : decodeAuditLine(bytes.toString('utf8', offset, newline));
    yield { offset, byteLength: end - offset, record };
    offset = end;
  }
}
