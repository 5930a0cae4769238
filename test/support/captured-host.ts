/**
 * Hosts as text: the files of `/proc` and `/sys` from which the agent finds the use of a volume, for set-ups that the
 * kernel of a test machine lacks (kernel NBD, device-mapper, md, ublk) or that need several machines.
 *
 * A capture is one text file. `-- PATH --` begins a file, `-- PATH -> TARGET --` is a symbolic link; what stands before the
 * first of them says what the capture shows. In a `cmdline` each line is an argument. The section `ss` is what `ss -xnH`
 * prints, `ss PID` the same inside that process's network namespace, and `hosts` has lines `NAME ADDRESS`. Several
 * captures can be laid over each other, a later one replaces files of an earlier one.
 */
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { HostProbe } from '../../src/agent/snapshot.ts';
import type { HostTools } from '../../src/platform/host-tools.ts';
import type { TreeRead } from '../../src/platform/host-tree.ts';
import { HostTree } from '../../src/platform/host-tree.ts';

type Sections = Map<string, { readonly link: string } | { readonly text: string }>;

const readSections = (text: string, into: Sections): void => {
  let path: string | null = null;
  let lines: string[] = [];
  const finish = (): void => {
    if (path !== null) into.set(path, { text: path.endsWith('/cmdline') ? `${lines.join('\0')}\0` : `${lines.join('\n')}\n` });
    lines = [];
  };
  for (const line of text.replace(/\n$/, '').split('\n')) {
    const header = /^-- (.+?)(?: -> (.+))? --$/.exec(line);
    if (header === null) {
      lines.push(line);
      continue;
    }
    finish();
    path = header[2] === undefined ? (header[1] ?? '') : null;
    if (header[2] !== undefined) into.set(header[1] ?? '', { link: header[2] });
  }
  finish();
};

/** The tools' answers of a capture; null, as if the tool were missing, where it has none. */
const toolsOf = (sections: Sections): HostTools => {
  const text = (name: string): string | null => {
    const section = sections.get(name);
    return section !== undefined && 'text' in section ? section.text : null;
  };
  const hosts = (text('hosts') ?? '').split('\n').map((line) => line.split(' '));
  return {
    unixSocketPairs: (namespace) => Promise.resolve(text(namespace === null ? 'ss' : `ss ${/\d+/.exec(namespace)?.[0] ?? ''}`)),
    socketTables: () => Promise.resolve(null),
    mountTable: () => Promise.resolve(null),
    addresses: (name) => {
      const isAddress = /^[\d.]+$/.test(name) || name.includes(':');
      return Promise.resolve(
        isAddress ? [name] : hosts.flatMap(([host, address]) => (host === name && address !== undefined ? [address] : [])),
      );
    },
  };
};

/** A host of which some files may not be read, whoever asks. */
class GuardedTree extends HostTree {
  readonly #isForbidden: (path: string) => boolean;

  constructor(root: string, isForbidden: (path: string) => boolean) {
    super(root);
    this.#isForbidden = isForbidden;
  }

  #guard<T>(path: string, read: () => TreeRead<T>): TreeRead<T> {
    return this.#isForbidden(path) ? { ok: false, code: 'EACCES' } : read();
  }

  override text(path: string): TreeRead<string> {
    return this.#guard(path, () => super.text(path));
  }

  override link(path: string): TreeRead<string> {
    return this.#guard(path, () => super.link(path));
  }

  override list(path: string): TreeRead<string[]> {
    return this.#guard(path, () => super.list(path));
  }

  override inode(path: string): TreeRead<number> {
    return this.#guard(path, () => super.inode(path));
  }
}

export type CapturedHost = Disposable & { readonly probe: HostProbe; readonly root: string };

export type CaptureOptions = {
  /** Paths that nobody may read. */
  readonly forbidden?: (path: string) => boolean;
  /** More sections, in the form of a capture. */
  readonly extra?: string;
  /** `ss` is not installed. */
  readonly withoutTools?: boolean;
};

/** Lays the named captures, `base` first, below a temporary root. */
export const capturedHost = async (names: readonly string[], options: CaptureOptions = {}): Promise<CapturedHost> => {
  const sections: Sections = new Map();
  for (const name of ['base', ...names]) readSections(readFileSync(join(import.meta.dirname, 'captured', `${name}.txt`), 'utf8'), sections);
  if (options.extra !== undefined) readSections(options.extra, sections);
  const root = await mkdtemp(join(tmpdir(), 'tv-host-'));
  for (const [path, section] of sections) {
    if (/^(?:ss( \d+)?|hosts)$/.test(path)) continue;
    const full = join(root, path);
    mkdirSync(dirname(full), { recursive: true });
    if ('link' in section) symlinkSync(section.link, full);
    else writeFileSync(full, section.text);
    // A process has a folder of open files, even without any.
    if (path.endsWith('/stat')) mkdirSync(join(dirname(full), 'fd'), { recursive: true });
  }
  const tools = options.withoutTools === true ? { ...toolsOf(sections), unixSocketPairs: () => Promise.resolve(null) } : toolsOf(sections);
  const tree = new GuardedTree(root, options.forbidden ?? (() => false));
  return { probe: { tree, tools, scope: 'machine' }, root, [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }) };
};
