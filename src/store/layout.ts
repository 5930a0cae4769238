/**
 * Names in a store directory (mode 0700, files 0600):
 *
 *     superblock      two checksummed copies: what the store is, and which journal is valid
 *     lock, lock.*    held by the one process that owns the store
 *     journal.N       the tables: a snapshot and what came after it
 *     pv/00001.img    physical volumes, sparse
 *     bitmaps/        dirty-region bitmaps (bitmap-file.ts)
 *     intents/        intents
 *     audit.log       inquiries and decisions, a line each (audit-file.ts)
 *     boot            which run of the machine wrote last: tells a power loss from the end of a process
 *
 * `*.new` is a file that was being written when the machine stopped; nothing refers to it.
 */
import { join } from 'node:path';

export const SUPERBLOCK_NAME = 'superblock';
export const LOCK_NAME = 'lock';
export const AUDIT_NAME = 'audit.log';
export const BOOT_NAME = 'boot';
export const PV_DIRECTORY = 'pv';
export const BITMAP_DIRECTORY = 'bitmaps';
export const INTENT_DIRECTORY = 'intents';
export const DIRECTORIES: readonly string[] = [PV_DIRECTORY, BITMAP_DIRECTORY, INTENT_DIRECTORY];

export const journalName = (generation: number): string => `journal.${generation}`;

/** The generation in a journal's name; null for other names. `journal.3.new` is one too. */
export const generationOfName = (name: string): number | null => {
  const match = /^journal\.(\d+)(?:\.new)?$/.exec(name);
  return match?.[1] === undefined ? null : Number(match[1]);
};

export const pvName = (number: number): string => `${String(number).padStart(5, '0')}.img`;
export const pvPath = (directory: string, number: number): string => join(directory, PV_DIRECTORY, pvName(number));
export const pvNumberOfName = (name: string): number | null => (/^\d{5}\.img$/.test(name) ? Number(name.slice(0, 5)) : null);

export type PairSide = 'primary' | 'secondary';
/** The dirty-region bitmap of one side of a pair. */
export const bitmapPath = (directory: string, pair: number, side: PairSide): string =>
  join(directory, BITMAP_DIRECTORY, `pair-${pair}-${side}.map`);
/** The intents of a volume that is in a pair. */
export const intentPath = (directory: string, volume: number): string => join(directory, INTENT_DIRECTORY, `volume-${volume}.map`);
/** The pair whose bitmap has this name; null for other names. */
export const pairOfBitmapName = (name: string): number | null => numberIn(/^pair-(\d+)-(?:primary|secondary)\.map$/, name);
/** The volume whose intents have this name; null for other names. */
export const volumeOfIntentName = (name: string): number | null => numberIn(/^volume-(\d+)\.map$/, name);

const numberIn = (pattern: RegExp, name: string): number | null => {
  const digits = pattern.exec(name)?.[1];
  return digits === undefined ? null : Number(digits);
};

/** Names that `init` itself makes, so that an `init` that was cut off can be repeated; a new file system has the last. */
export const isInitName = (name: string): boolean =>
  [LOCK_NAME, `${SUPERBLOCK_NAME}.new`, ...DIRECTORIES, 'lost+found'].includes(name) ||
  name.startsWith(`${LOCK_NAME}.`) ||
  generationOfName(name) === 1;
