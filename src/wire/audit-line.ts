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

/** A line whose checksum is right; `record` takes it apart, which is the dear part. */
export type DecodedAuditLine = { readonly seq: number; readonly durableSeq: number; record(): AuditRecord };

const HEAD = /^\{"seq":(\d{1,16}),"atMs":\d{1,16},"durableSeq":(\d{1,16}),"kind":"(\w+)"/;

/** @param line without its newline */
export const decodeAuditLine = (line: string): DecodedAuditLine | null => {
  const json = line.slice(9);
  if (line[8] !== ' ' || !/^[0-9a-f]{8}$/.test(line.slice(0, 8)) || crc32(json) !== Number.parseInt(line.slice(0, 8), 16)) return null;
  const [, seq, durableSeq, kind] = HEAD.exec(json) ?? [];
  if (!json.endsWith('}') || !AUDIT_KINDS.some((known) => known === kind)) return null;
  const record = (): AuditRecord => {
    const { durableSeq: _durableSeq, ...rest } = JSON.parse(json) as AuditRecord & { readonly durableSeq: number };
    return rest;
  };
  return { seq: Number(seq), durableSeq: Number(durableSeq), record };
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

/** The last whole line of a file; null when there is none. Looks from the end, so it need not read all of a long file. */
export const lastAuditLine = (bytes: Buffer): DecodedAuditLine | null => {
  let end = bytes.lastIndexOf(NEWLINE);
  while (end > 0) {
    const start = bytes.lastIndexOf(NEWLINE, end - 1) + 1;
    const decoded = start === end ? null : decodeAuditLine(bytes.toString('utf8', start, end));
    if (decoded !== null) return decoded;
    end = start - 1;
  }
  return null;
};
