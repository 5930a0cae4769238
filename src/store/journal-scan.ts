/**
 * Reads a journal's bytes into records, and tells a tail that a crash has torn from damage.
 *
 * Zeros behind the last frame are space that the writer has reserved, and no tail.
 * The writer has one frame in flight at most, at the end, and acknowledges nothing of it before it is durable. So what
 * a crash can leave is a frame in parts, with nothing behind it: a torn tail, which nobody was promised. A bad frame
 * with a sound one behind it cannot come from a crash: the medium or somebody has changed it. The first frame (the
 * snapshot) was durable before the journal became valid, so it is never a torn tail.
 * Known limit: damage to the very last record looks like a torn tail; it is cut off and named in the log.
 */
import { TwinvolError } from '../core/faults.ts';
import { decodeFrame, type Frame, findFrame } from '../wire/store-records.ts';
import { damaged } from './store-faults.ts';

export type JournalRecord = {
  /** Counted from 1. */
  readonly number: number;
  /** Byte offset in the file. */
  readonly offset: number;
  readonly sequence: number;
  /** Lists of operations, one for each commit; of the format version of the store. */
  readonly commits: ReadonlyArray<readonly unknown[]>;
};

export type TornTail = { readonly offset: number; readonly byteLength: number; readonly record: number };

export type JournalScan = {
  readonly records: readonly JournalRecord[];
  /** Where the next frame goes. */
  readonly endOffset: number;
  readonly tornTail: TornTail | null;
  /** Length of the first frame. */
  readonly snapshotBytes: number;
};

export type JournalIdentity = { readonly file: string; readonly generation: number; readonly uuid: string };

/** The payload of a frame. */
export const encodePayload = (commits: readonly string[], uuid: string | null): Buffer =>
  Buffer.from(`{${uuid === null ? '' : `"store":"${uuid}",`}"commits":[${commits.join(',')}]}`, 'utf8');

/** @throws TwinvolError STORE_DAMAGED with file, record and offset; STORE_FOREIGN */
export const scanJournal = (bytes: Buffer, identity: JournalIdentity): JournalScan => {
  const records: JournalRecord[] = [];
  let offset = 0;
  let snapshotBytes = 0;
  while (offset < bytes.length) {
    const frame = decodeFrame(bytes, offset);
    if (frame === null) break;
    records.push(readRecord(frame, offset, records, identity));
    if (offset === 0) snapshotBytes = frame.byteLength;
    offset += frame.byteLength;
  }
  if (records.length === 0) throw noSnapshot(bytes, identity);
  if (isZero(bytes, offset)) return { records, endOffset: offset, tornTail: null, snapshotBytes };
  const record = records.length + 1;
  const next = findFrame(bytes, offset + 1);
  if (next >= 0) {
    throw damaged(`${identity.file}: record ${record} at byte ${offset} is damaged, and a sound record follows at byte ${next}`, {
      file: identity.file,
      record,
      offset,
    });
  }
  return { records, endOffset: offset, tornTail: { offset, byteLength: bytes.length - offset, record }, snapshotBytes };
};

/** True if there are only zeros (or nothing) from `offset` on. */
const isZero = (bytes: Buffer, offset: number): boolean => {
  for (let at = offset; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
};

const noSnapshot = (bytes: Buffer, { file }: JournalIdentity): TwinvolError => {
  const isOurs = isZero(bytes.subarray(0, 4), 0) || findFrame(bytes, 0) >= 0 || hasFrameMagic(bytes);
  if (isOurs) return damaged(`${file}: record 1 at byte 0, the snapshot of the tables, is damaged`, { file, record: 1, offset: 0 });
  return new TwinvolError('STORE_FOREIGN', `${file} is not a journal of a store`, { details: { file } });
};

const hasFrameMagic = (bytes: Buffer): boolean => bytes[0] === 0xf7 && bytes.toString('latin1', 1, 4) === 'TVJ';

const readRecord = (frame: Frame, offset: number, earlier: readonly JournalRecord[], identity: JournalIdentity): JournalRecord => {
  const number = earlier.length + 1;
  const { file } = identity;
  const refuse = (why: string, cause?: unknown): TwinvolError =>
    damaged(`${file}: record ${number} at byte ${offset} ${why}`, { file, record: number, offset }, cause);
  const last = earlier.at(-1);
  if (frame.generation !== identity.generation) throw refuse(`is of journal ${frame.generation}`);
  if (last !== undefined && frame.sequence !== last.sequence + 1) throw refuse(`has the sequence ${frame.sequence} after ${last.sequence}`);
  let payload: { readonly store?: unknown; readonly commits?: unknown };
  try {
    payload = JSON.parse(frame.payload.toString('utf8')) as typeof payload;
  } catch (error) {
    throw refuse('is not JSON', error);
  }
  if (number === 1 && payload.store !== identity.uuid) {
    throw new TwinvolError('STORE_FOREIGN', `${file} is the journal of another store (${String(payload.store)}), not of ${identity.uuid}`, {
      details: { file },
    });
  }
  const commits = payload.commits;
  if (!Array.isArray(commits) || !commits.every(Array.isArray)) throw refuse('holds no lists of operations');
  return { number, offset, sequence: frame.sequence, commits };
};
