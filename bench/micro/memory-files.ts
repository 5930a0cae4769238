/**
 * Metadata files in memory, on a medium that takes no time: so that a benchmark of the journal measures the journal and
 * not the disk. Content grows in powers of two; nothing is ever lost.
 */
import type { MetadataFile, MetadataFiles } from '../../src/platform/metadata-files.ts';

class MemoryFile implements MetadataFile {
  #bytes: Buffer = Buffer.alloc(4096);
  #length = 0;

  get content(): Buffer {
    return Buffer.from(this.#bytes.subarray(0, this.#length));
  }

  async pwrite(bytes: Uint8Array, position: number): Promise<void> {
    const end = position + bytes.byteLength;
    this.#grow(end);
    this.#bytes.set(bytes, position);
    this.#length = Math.max(this.#length, end);
  }

  async truncate(byteLength: number): Promise<void> {
    this.#grow(byteLength);
    if (byteLength < this.#length) this.#bytes.fill(0, byteLength, this.#length);
    this.#length = byteLength;
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {}

  #grow(end: number): void {
    if (end <= this.#bytes.length) return;
    const larger = Buffer.alloc(2 ** Math.ceil(Math.log2(end)));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}

export class MemoryFiles implements MetadataFiles {
  readonly #files = new Map<string, MemoryFile>();

  async readFile(path: string): Promise<Buffer | null> {
    return this.#files.get(path)?.content ?? null;
  }

  async open(path: string, how: 'create' | 'existing'): Promise<MetadataFile> {
    const existing = this.#files.get(path);
    if (how === 'existing' && existing === undefined) throw Object.assign(new Error(`no file ${path}`), { code: 'ENOENT' });
    const file = how === 'existing' && existing !== undefined ? existing : new MemoryFile();
    this.#files.set(path, file);
    return file;
  }

  async rename(from: string, to: string): Promise<void> {
    const file = this.#files.get(from);
    if (file === undefined) throw Object.assign(new Error(`no file ${from}`), { code: 'ENOENT' });
    this.#files.delete(from);
    this.#files.set(to, file);
  }

  async unlink(path: string): Promise<void> {
    this.#files.delete(path);
  }

  async list(directory: string): Promise<string[]> {
    const prefix = `${directory}/`;
    return [...this.#files.keys()].filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
  }

  async syncDirectory(): Promise<void> {}
}
