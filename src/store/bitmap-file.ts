/**
 * A bitmap's file: the durable form of a dirty-region bitmap or of a volume's intents (codec: wire/bitmap-page.ts).
 *
 * All calls are synchronous: a lane writes the page of an intent before it lets the write through, on the spot.
 * Only the holder of the bitmap's file lock (a word in shared memory, data/shared-memory.ts) writes.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { setRange } from '../core/dirty-bitmap.ts';
import { systemCode, TwinvolError } from '../core/faults.ts';
import { syncDirectory } from '../platform/durable-file.ts';
import {
  type BitmapHeader,
  decodeHeader,
  decodePage,
  encodeHeader,
  encodePage,
  PAGE_BITS,
  PAGE_BYTES,
  PAGE_WORDS,
  pageOfBit,
  pageOffset,
  pagesOf,
} from '../wire/bitmap-page.ts';

/** Pages written by one system call at most: 256 KiB. */
const BATCH_PAGES = 512;

export type BitmapLoad = {
  /** Pages that could not be read or were damaged; their regions were set dirty. */
  readonly damagedPages: number;
  /** The file was missing, short, or not this bitmap's: everything was set dirty. */
  readonly missing: boolean;
};

export class BitmapFile {
  readonly path: string;
  readonly fd: number;
  readonly #header: BitmapHeader;
  readonly #batch: Buffer = Buffer.alloc(PAGE_BYTES);
  #isClosed = false;

  private constructor(path: string, fd: number, header: BitmapHeader) {
    this.path = path;
    this.fd = fd;
    this.#header = header;
  }

  /** Makes the file anew with the bits of `words`, durable. */
  static create(path: string, header: BitmapHeader, words: Int32Array): BitmapFile {
    const file = new BitmapFile(path, fs.openSync(path, 'w+', 0o600), header);
    try {
      writeWhole(file.fd, encodeHeader(header), PAGE_BYTES, 0);
      file.writePages(words, 0, pagesOf(header.bits));
      fs.fsyncSync(file.fd);
      // Without its name a file that was synced is lost all the same, and everything would be dirty.
      syncDirectory(dirname(path));
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Opens the file and reads it into `words`. What cannot be trusted is set dirty; a file that is missing is made
   * anew with every region dirty.
   */
  static open(path: string, header: BitmapHeader, words: Int32Array): { readonly file: BitmapFile; readonly load: BitmapLoad } {
    const bytes = readWhole(path);
    const found = bytes === null ? null : decodeHeader(bytes);
    if (
      bytes === null ||
      found === null ||
      found.bits !== header.bits ||
      found.bytesPerBit !== header.bytesPerBit ||
      found.owner !== header.owner
    ) {
      setRange(words, 0, header.bits);
      return { file: BitmapFile.create(path, header, words), load: { damagedPages: 0, missing: true } };
    }
    let damagedPages = 0;
    for (let page = 0; page < pagesOf(header.bits); page += 1) {
      if (decodePage(bytes, pageOffset(page), page, words)) continue;
      damagedPages += 1;
      setRange(words, page * PAGE_BITS, Math.min(header.bits, (page + 1) * PAGE_BITS));
    }
    return { file: new BitmapFile(path, fs.openSync(path, 'r+'), header), load: { damagedPages, missing: false } };
  }

  /** A second handle on an open bitmap for another thread: same descriptor, own buffers. */
  static adopt(path: string, fd: number, header: BitmapHeader): BitmapFile {
    return new BitmapFile(path, fd, header);
  }

  /** Writes the pages that hold the bits [first, end). Not durable until `sync`. */
  writeBits(words: Int32Array, first: number, end: number): void {
    this.writePages(words, pageOfBit(first), pageOfBit(end - 1) + 1);
  }

  writePages(words: Int32Array, firstPage: number, endPage: number): void {
    this.#requireOpen();
    const most = Math.min(BATCH_PAGES, endPage - firstPage);
    const buffer = most === 1 ? this.#batch : Buffer.allocUnsafe(most * PAGE_BYTES);
    for (let page = firstPage; page < endPage; page += most) {
      const count = Math.min(most, endPage - page);
      for (let index = 0; index < count; index += 1) encodePage(words, page + index, buffer, index * PAGE_BYTES);
      writeWhole(this.fd, buffer, count * PAGE_BYTES, pageOffset(page));
    }
  }

  /**
   * Does the file hold the bits of `words`? What it holds counts as durable: whoever sets bits in it syncs it, and
   * where bits were cleared without a sync, the medium names more as dirty, not less.
   */
  holds(words: Int32Array): boolean {
    const found = this.read();
    return found !== null && words.every((word, index) => found[index] === word);
  }

  /** The bits that the file holds, in whole pages; null when it is not there or not whole. */
  read(): Int32Array | null {
    const bytes = readWhole(this.path);
    if (bytes === null) return null;
    const pages = pagesOf(this.#header.bits);
    const found = new Int32Array(pages * PAGE_WORDS);
    for (let page = 0; page < pages; page += 1) if (!decodePage(bytes, pageOffset(page), page, found)) return null;
    return found;
  }

  sync(): void {
    this.#requireOpen();
    fs.fdatasyncSync(this.fd);
  }

  get header(): BitmapHeader {
    return this.#header;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    fs.closeSync(this.fd);
  }

  /** The number of a closed descriptor may be another file's by now: a late write must not reach that one. */
  #requireOpen(): void {
    if (this.#isClosed) throw new Error(`the bitmap file ${this.path} was closed`);
  }

  /** Closes and deletes the file. */
  remove(): void {
    this.close();
    fs.rmSync(this.path, { force: true });
  }
}

/** Null when there is no such file or its medium does not give it. Other errors (no descriptor left) say nothing about it. */
const readWhole = (path: string): Buffer | null => {
  try {
    return fs.readFileSync(path);
  } catch (error) {
    if (['ENOENT', 'EIO'].includes(systemCode(error))) return null;
    throw new TwinvolError('STORE_IO', `${path} could not be read: ${systemCode(error)}`, { cause: error });
  }
};

const writeWhole = (fd: number, buffer: Buffer, length: number, position: number): void => {
  let done = 0;
  while (done < length) done += fs.writeSync(fd, buffer, done, length - done, position + done);
};
