/** What an error of the file system means for the store, in one place. */
import { systemCode, TwinvolError } from '../core/faults.ts';

const REMEDIES: ReadonlyMap<string, string> = new Map([
  ['EMFILE', 'raise the limit of open files (ulimit -n), or initialise with fewer, larger physical volumes (--pv-size)'],
  ['EFBIG', 'the file system cannot hold a file of that size: initialise with smaller physical volumes (--pv-size)'],
  ['EACCES', 'run as the user who owns the store'],
  ['EROFS', 'mount the file system for writing'],
]);

/** STORE_FULL for a full file system or an exceeded quota, STORE_IO for anything else; an error that is ours stays. */
export const storeFault = (error: unknown, what: string, path: string): TwinvolError => {
  if (error instanceof TwinvolError) return error;
  const code = systemCode(error);
  const isFull = code === 'ENOSPC' || code === 'EDQUOT';
  const remedy = REMEDIES.get(code);
  const reason = code === '' ? String((error as Error | null)?.message ?? error) : code;
  return new TwinvolError(isFull ? 'STORE_FULL' : 'STORE_IO', `${what} failed: ${reason} (${path})`, {
    cause: error,
    details: { file: path, cause: reason },
    ...(remedy === undefined ? {} : { remedy }),
  });
};

export type DamagePlace = {
  readonly file: string;
  /** Number of the record within the file, counted from 1. */
  readonly record?: number;
  /** Byte offset in the file. */
  readonly offset?: number;
};

export const damaged = (text: string, place: DamagePlace, cause?: unknown): TwinvolError =>
  new TwinvolError('STORE_DAMAGED', text, { details: { ...place }, ...(cause === undefined ? {} : { cause }) });
