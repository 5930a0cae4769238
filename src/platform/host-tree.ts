/**
 * Reads the files in which the kernel describes a host (`/proc`, `/sys`, `/etc`), below a root that tests can choose.
 *
 * All calls are synchronous: these files come from memory, and a scan makes thousands of such reads. None of them opens,
 * follows or stats a file of a user, because a file on a dead FUSE or network mount would never answer. A read that
 * fails gives the system's code (`ENOENT`, `EACCES`) instead of throwing: what could not be read is data to the caller.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { systemCode } from '../core/faults.ts';

export type TreeRead<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly code: string };

const attempt = <T>(read: () => T): TreeRead<T> => {
  try {
    return { ok: true, value: read() };
  } catch (error) {
    const code = systemCode(error);
    if (code === '') throw error;
    return { ok: false, code };
  }
};

export class HostTree {
  readonly #root: string;

  /** `root`: the folder that stands for `/`. */
  constructor(root: string = '/') {
    this.#root = root;
  }

  get isLive(): boolean {
    return this.#root === '/';
  }

  /** The whole file as text; bytes that are not UTF-8 become U+FFFD. */
  text(path: string): TreeRead<string> {
    return attempt(() => readFileSync(join(this.#root, path), 'utf8'));
  }

  /** What the symbolic link says, not followed. */
  link(path: string): TreeRead<string> {
    return attempt(() => readlinkSync(join(this.#root, path)));
  }

  /** Names in the directory, sorted. */
  list(path: string): TreeRead<string[]> {
    return attempt(() => readdirSync(join(this.#root, path)).sort());
  }

  /** True if there is something of that name; a symbolic link counts, wherever it leads. */
  has(path: string): boolean {
    return attempt(() => lstatSync(join(this.#root, path))).ok;
  }

  /** Inode number of a file of `/proc`, links followed. */
  inode(path: string): TreeRead<number> {
    return attempt(() => statSync(join(this.#root, path)).ino);
  }

  /** The file's text without the newline at its end; null if it cannot be read. */
  line(path: string): string | null {
    const read = this.text(path);
    return read.ok ? read.value.replace(/\n$/, '') : null;
  }
}
