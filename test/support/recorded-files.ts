/**
 * A file system in memory that records what the store's metadata does to it, so that a power loss at any moment can be
 * played back (in the manner of CrashMonkey). The same class runs the recovery afterwards, on what the medium has kept.
 *
 * The fault model
 * - A write is a set of sectors of 512 bytes. Until `sync` of its file has returned, each sector is on the medium, is
 *   not, or is torn (its first half is new), independently of all others and of the order in which they were written.
 * - A file's growth is an effect of its own: the file may be longer with zeros where the data did not arrive, never with
 *   foreign data. A cut (truncate) is on the medium or not until the next sync.
 * - A name that was made, renamed or removed is on the medium or not until `syncDirectory` has returned; a rename is
 *   one effect. Neither sync of a file nor sync of another directory helps.
 * - A flush that fails: what was not durable before stays in doubt for ever, no later flush makes it certain (the page
 *   cache has forgotten that it was dirty). The running program still reads what it wrote.
 * - A write that fails (ENOSPC, EIO) has taken any number of its sectors, here: the first half.
 * - What is durable stays as it is until it is written again. Bit rot is not in this model: other tests damage bytes.
 * - Metadata is all there is: physical volumes and bitmaps have models of their own.
 */
import { dirname } from 'node:path';
import type { MetadataFile, MetadataFiles } from '../../src/platform/metadata-files.ts';

export const SECTOR = 512;

/** Something that a crash may have kept or lost. */
export type Effect =
  | { readonly kind: 'data'; readonly inode: number; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'length'; readonly inode: number; readonly byteLength: number }
  | { readonly kind: 'names'; readonly directory: string; readonly changes: ReadonlyArray<readonly [path: string, inode: number | null]> };

export type TraceEvent =
  | { readonly kind: 'effect'; readonly effect: Effect }
  | { readonly kind: 'sync'; readonly inode: number }
  | { readonly kind: 'sync-failed'; readonly inode: number }
  | { readonly kind: 'sync-directory'; readonly directory: string }
  /** What the test wants to know about this moment: "commit 3 was acknowledged". */
  | { readonly kind: 'mark'; readonly mark: string };

/** What the medium holds: path -> content. */
export type DiskImage = ReadonlyMap<string, Buffer>;

/** Called before each operation; returns the system's error code that it shall fail with, or null. */
export type FaultPlan = (
  operation: 'pwrite' | 'sync' | 'truncate' | 'open' | 'rename' | 'unlink' | 'syncDirectory',
  count: number,
) => string | null;

const systemError = (code: string): Error => Object.assign(new Error(`${code}: injected`), { code });

export class RecordedFiles implements MetadataFiles {
  readonly trace: TraceEvent[] = [];
  readonly initial: DiskImage;
  readonly #names = new Map<string, number>();
  readonly #content = new Map<number, Buffer>();
  #nextInode = 1;
  #operations = 0;
  #plan: FaultPlan = () => null;
  /** A medium that says "durable" and is not: to see that the tests would notice. */
  readonly #isLiar: boolean;

  constructor(image: DiskImage = new Map(), options: { readonly isLiar?: boolean } = {}) {
    this.#isLiar = options.isLiar ?? false;
    this.initial = image;
    for (const [path, bytes] of image) {
      const inode = this.#newInode();
      this.#names.set(path, inode);
      this.#content.set(inode, Buffer.from(bytes));
    }
  }

  /** Operations so far, which `FaultPlan` counts from 0. */
  get operations(): number {
    return this.#operations;
  }
  failBy(plan: FaultPlan): void {
    this.#plan = plan;
  }
  mark(mark: string): void {
    this.trace.push({ kind: 'mark', mark });
  }

  async readFile(path: string): Promise<Buffer | null> {
    const inode = this.#names.get(path);
    return inode === undefined ? null : Buffer.from(this.#bytes(inode));
  }

  async list(directory: string): Promise<string[]> {
    return [...this.#names.keys()].filter((path) => dirname(path) === directory).map((path) => path.slice(directory.length + 1));
  }

  async open(path: string, how: 'create' | 'existing'): Promise<MetadataFile> {
    this.#step('open');
    let inode = this.#names.get(path);
    if (inode === undefined) {
      if (how === 'existing') throw systemError('ENOENT');
      inode = this.#newInode();
      this.#content.set(inode, Buffer.alloc(0));
      this.#changeNames(path, [[path, inode]]);
    } else if (how === 'create') {
      this.#setLength(inode, 0);
    }
    return this.#handle(inode);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step('rename');
    const inode = this.#names.get(from);
    if (inode === undefined) throw systemError('ENOENT');
    this.#changeNames(to, [
      [from, null],
      [to, inode],
    ]);
  }

  async unlink(path: string): Promise<void> {
    this.#step('unlink');
    if (this.#names.has(path)) this.#changeNames(path, [[path, null]]);
  }

  async syncDirectory(directory: string): Promise<void> {
    this.#step('syncDirectory');
    this.trace.push({ kind: 'sync-directory', directory });
  }

  #handle(inode: number): MetadataFile {
    return {
      pwrite: async (bytes, position) => {
        const code = this.#failure('pwrite');
        this.#write(inode, code === null ? bytes : bytes.subarray(0, bytes.byteLength >> 1), position);
        if (code !== null) throw systemError(code);
      },
      truncate: async (byteLength) => {
        this.#step('truncate');
        this.#setLength(inode, byteLength);
      },
      sync: async () => {
        const code = this.#failure('sync');
        if (!this.#isLiar) this.trace.push({ kind: code === null ? 'sync' : 'sync-failed', inode });
        if (code !== null) throw systemError(code);
      },
      close: async () => undefined,
    };
  }

  #write(inode: number, bytes: Uint8Array, position: number): void {
    const end = position + bytes.byteLength;
    const before = this.#bytes(inode);
    if (end > before.length) this.#setLength(inode, end);
    for (let offset = position; offset < end; ) {
      const stop = Math.min(end, (Math.floor(offset / SECTOR) + 1) * SECTOR);
      const piece = Buffer.from(bytes.subarray(offset - position, stop - position));
      // Zeros where the file has just grown are the growth itself.
      if (offset < before.length || piece.some((byte) => byte !== 0)) this.#effect({ kind: 'data', inode, offset, bytes: piece });
      piece.copy(this.#bytes(inode), offset);
      offset = stop;
    }
  }

  #setLength(inode: number, byteLength: number): void {
    const grown = Buffer.alloc(byteLength);
    this.#bytes(inode).copy(grown);
    this.#content.set(inode, grown);
    this.#effect({ kind: 'length', inode, byteLength });
  }

  #changeNames(path: string, changes: ReadonlyArray<readonly [string, number | null]>): void {
    for (const [name, inode] of changes) {
      if (inode === null) this.#names.delete(name);
      else this.#names.set(name, inode);
    }
    this.#effect({ kind: 'names', directory: dirname(path), changes });
  }

  #effect(effect: Effect): void {
    this.trace.push({ kind: 'effect', effect });
  }

  #bytes(inode: number): Buffer {
    return this.#content.get(inode) as Buffer;
  }

  #newInode(): number {
    this.#nextInode += 1;
    return this.#nextInode - 1;
  }

  #failure(operation: Parameters<FaultPlan>[0]): string | null {
    this.#operations += 1;
    return this.#plan(operation, this.#operations - 1);
  }

  #step(operation: Parameters<FaultPlan>[0]): void {
    const code = this.#failure(operation);
    if (code !== null) throw systemError(code);
  }
}
