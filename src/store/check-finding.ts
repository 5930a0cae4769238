/** One thing that `twinvol store check` has found. */

export type CheckFinding = {
  readonly severity: 'damage' | 'repair' | 'note';
  /** Path of the file. */
  readonly file: string;
  /** Number of the record in that file, counted from 1; null where it is about no record. */
  readonly record: number | null;
  /** Byte offset in the file. */
  readonly offset: number | null;
  readonly text: string;
};

export type Place = { readonly file: string; readonly record?: number | null; readonly offset?: number | null };

export const finding = (severity: CheckFinding['severity'], { file, record = null, offset = null }: Place, text: string): CheckFinding => ({
  severity,
  file,
  record,
  offset,
  text,
});
