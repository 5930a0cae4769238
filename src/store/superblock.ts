/**
 * The superblock's file: two copies, each in a block of its own (4 KiB apart), so that one write that fails or tears
 * leaves the other. What it holds and how: wire/store-records.ts.
 *
 * Invariant: while one copy is being written the other one is sound and says something that is true. So `open` repairs
 * a bad copy before anything else is written, and a change writes and syncs one copy after the other.
 */
import { join } from 'node:path';
import { TwinvolError } from '../core/faults.ts';
import type { MetadataFile, MetadataFiles } from '../platform/metadata-files.ts';
import { decodeSuperblock, encodeSuperblock, SUPERBLOCK_BYTES, type Superblock, type SuperblockRead } from '../wire/store-records.ts';
import { SUPERBLOCK_NAME } from './layout.ts';
import { damaged, storeFault } from './store-faults.ts';

const COPY_OFFSETS = [0, 4096] as const;
const FILE_BYTES = 8192;

export const superblockPath = (directory: string): string => join(directory, SUPERBLOCK_NAME);

/** The content of a new superblock file. */
export const superblockFileBytes = (superblock: Superblock): Buffer => {
  const bytes = Buffer.alloc(FILE_BYTES);
  for (const offset of COPY_OFFSETS) encodeSuperblock(superblock).copy(bytes, offset);
  return bytes;
};

export type SuperblockState = {
  /** What the newest sound copy says. */
  readonly superblock: Superblock;
  /** Numbers (1, 2) of the copies that must be written anew: unreadable, or older than the newest. */
  readonly badCopies: readonly number[];
};

/**
 * Reads the file; changes nothing.
 * @throws TwinvolError STORE_MISSING, STORE_FOREIGN, STORE_VERSION, STORE_DAMAGED
 */
export const readSuperblock = async (files: MetadataFiles, directory: string, versionMax: number): Promise<SuperblockState> => {
  const path = superblockPath(directory);
  const bytes = await files.readFile(path);
  if (bytes === null)
    throw new TwinvolError('STORE_MISSING', `${directory} is not a store: it has no file "${SUPERBLOCK_NAME}"`, { details: { directory } });
  const copies = COPY_OFFSETS.map((offset) => decodeSuperblock(bytes.subarray(offset, offset + SUPERBLOCK_BYTES), versionMax));
  refuseNewer(copies, path, versionMax);
  const sound = copies.flatMap((copy) => (copy.kind === 'ok' ? [copy.superblock] : []));
  const [best] = sound.sort((a, b) => b.sequence - a.sequence);
  if (best === undefined) throw unreadable(copies, path);
  const badCopies = copies.flatMap((copy, index) => (copy.kind === 'ok' && copy.superblock.sequence === best.sequence ? [] : [index + 1]));
  return { superblock: best, badCopies };
};

/** One copy of a newer version is enough: a newer program has begun to change the store. */
const refuseNewer = (copies: readonly SuperblockRead[], path: string, versionMax: number): void => {
  const newer = copies.find((copy) => copy.kind === 'newer');
  if (newer === undefined) return;
  throw new TwinvolError(
    'STORE_VERSION',
    `${path} has format version ${newer.formatVersion}, and this program knows versions up to ${versionMax}`,
    {
      details: { file: path, formatVersion: newer.formatVersion, versionMax },
    },
  );
};

const unreadable = (copies: readonly SuperblockRead[], path: string): TwinvolError =>
  copies.some((copy) => copy.kind === 'damaged') || copies.every((copy) => copy.kind === 'empty')
    ? damaged(`${path}: neither of the two copies of the superblock is whole`, { file: path })
    : new TwinvolError('STORE_FOREIGN', `${path} is not the superblock of a store`, { details: { file: path } });

type CopiesWritten = {
  /** How many copies are durable now. */
  readonly durable: number;
  /** What stopped it; null when all is done. The copy that was next may hold anything. */
  readonly error: unknown;
};

/** Writes copies one after the other, each durable before the next. */
const writeCopies = async (
  files: MetadataFiles,
  directory: string,
  superblock: Superblock,
  copies: readonly number[],
): Promise<CopiesWritten> => {
  const bytes = encodeSuperblock(superblock);
  let durable = 0;
  let file: MetadataFile | null = null;
  try {
    file = await files.open(superblockPath(directory), 'existing');
    for (const copy of copies) {
      await file.pwrite(bytes, COPY_OFFSETS[copy - 1] as number);
      await file.sync();
      durable += 1;
    }
    return { durable, error: null };
  } catch (error) {
    return { durable, error };
  } finally {
    await file?.close().catch(() => undefined);
  }
};

/** Writes anew the copies that `readSuperblock` found bad. @throws TwinvolError STORE_FULL, STORE_IO */
export const repairSuperblock = async (
  files: MetadataFiles,
  directory: string,
  { superblock, badCopies }: SuperblockState,
): Promise<void> => {
  const { error } = await writeCopies(files, directory, superblock, badCopies);
  if (error !== null) throw storeFault(error, 'repairing the superblock', superblockPath(directory));
};

/**
 * What a change of the superblock came to. `whole`: both copies say the new. `half`: one does, which is enough. `kept`:
 * it still says the old. `unknown`: the medium may say either.
 */
export type SuperblockChange = { readonly outcome: 'whole' | 'half' | 'kept' | 'unknown'; readonly error: unknown };

/** The superblock of an open store. */
export class SuperblockKeeper {
  readonly #files: MetadataFiles;
  readonly #directory: string;
  #current: Superblock;
  /** Of the last attempt to write, so that no two different contents ever have the same. */
  #sequence: number;
  /** The order of writing: a copy that may be bad comes first, since the other one is all there is meanwhile. */
  #copies: readonly number[] = [1, 2];

  /** @param superblock what both copies say */
  constructor(files: MetadataFiles, directory: string, superblock: Superblock) {
    this.#files = files;
    this.#directory = directory;
    this.#current = superblock;
    this.#sequence = superblock.sequence;
  }

  get current(): Superblock {
    return this.#current;
  }

  /** Makes it say something else; it does as soon as one copy is durable. If none is, the old is written again. */
  async change(fields: Partial<Omit<Superblock, 'sequence'>>): Promise<SuperblockChange> {
    const old = this.#current;
    const { durable, error } = await this.#write({ ...old, ...fields });
    if (error === null) return { outcome: 'whole', error };
    if (durable > 0) return { outcome: 'half', error };
    return { outcome: (await this.confirm()) ? 'kept' : 'unknown', error };
  }

  /** Writes again what it says. False: no copy could be written. After an `unknown` outcome this brings certainty back. */
  async confirm(): Promise<boolean> {
    return (await this.#write(this.#current)).durable > 0;
  }

  async #write(content: Omit<Superblock, 'sequence'>): Promise<CopiesWritten> {
    this.#sequence += 1;
    const superblock = { ...content, sequence: this.#sequence };
    const written = await writeCopies(this.#files, this.#directory, superblock, this.#copies);
    if (written.durable > 0) this.#current = superblock;
    if (written.durable === 1) this.#copies = [...this.#copies].reverse();
    return written;
  }
}
