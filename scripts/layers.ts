/**
 * The layers: which folder may import what. Everything that is not allowed here is refused, so a new dependency between
 * folders is a change of this table, seen in review. `scripts/tidy.ts` checks it; ARCHITECTURE.md shows it.
 *
 * The order is from the bottom up. "The engine" is one object behind `src/engine/api.ts`: that file has types only, and
 * folders that may not import the engine may still name its types.
 */

export type Layer = {
  /** Below the project's root, without a last slash. */
  readonly folder: string;
  /** Other folders from which values and types may be imported. Its own folder is always allowed. */
  readonly folders: readonly string[];
  /** Single files of further folders. */
  readonly files?: readonly string[];
  /** Single files of which only types may be imported. */
  readonly typesOf?: readonly string[];
  /** Modules of Node: all of them, or only these names of these modules. */
  readonly node: 'all' | Readonly<Record<string, readonly string[]>>;
  readonly packages: readonly string[];
};

const PURE = ['src/core', 'src/wire'] as const;
const BASE = [...PURE, 'src/platform'] as const;
const ENGINE_TYPES = 'src/engine/api.ts';
const METHOD_TYPES = 'src/control/method-table.ts';
const CONTROL_CLIENT = 'src/control/client.ts';

export const LAYERS: readonly Layer[] = [
  // Pure: no time, no chance, no input or output. A hash and a checksum are arithmetic.
  { folder: 'src/core', folders: [], node: { 'node:buffer': ['Buffer'], 'node:crypto': ['createHash'] }, packages: [] },
  { folder: 'src/wire', folders: ['src/core'], node: { 'node:buffer': ['Buffer'], 'node:zlib': ['crc32'] }, packages: [] },
  { folder: 'native-free', folders: ['src/core'], node: 'all', packages: [] },
  { folder: 'src/platform', folders: ['src/core', 'native-free'], node: 'all', packages: [] },
  { folder: 'src/store', folders: BASE, node: 'all', packages: [] },
  { folder: 'src/nbd-client', folders: BASE, node: 'all', packages: [] },
  // The workloads of `twinvol bench`: they speak to any server, so they know nothing of this one.
  { folder: 'src/bench', folders: [...BASE, 'src/nbd-client'], node: 'all', packages: [] },
  { folder: 'src/data', folders: [...BASE, 'src/store', 'src/nbd-client'], typesOf: [ENGINE_TYPES], node: 'all', packages: ['piscina'] },
  {
    folder: 'src/engine',
    folders: [...BASE, 'src/store', 'src/nbd-client', 'src/data'],
    node: 'all',
    packages: ['pino', 'piscina'],
  },
  {
    folder: 'src/control',
    folders: BASE,
    typesOf: [ENGINE_TYPES],
    node: 'all',
    packages: ['pino', 'zod', '@peculiar/x509', 'reflect-metadata'],
  },
  { folder: 'src/agent', folders: BASE, files: [CONTROL_CLIENT], typesOf: [ENGINE_TYPES, METHOD_TYPES], node: 'all', packages: ['pino'] },
  { folder: 'src/console', folders: BASE, files: [CONTROL_CLIENT], typesOf: [ENGINE_TYPES, METHOD_TYPES], node: 'all', packages: ['pino'] },
  // The library's entry and the composition root: the one place that joins the engine with its control socket.
  {
    folder: 'src',
    folders: [...BASE, 'src/store', 'src/nbd-client', 'src/data', 'src/engine', 'src/control', 'src/agent'],
    node: 'all',
    packages: ['pino'],
  },
  // The command line uses the library's entry where it starts an engine, and the control socket for everything else.
  {
    folder: 'src/cli',
    folders: [...BASE, 'src/nbd-client', 'src/bench', 'src/agent', 'src/console', 'src'],
    files: [CONTROL_CLIENT],
    typesOf: [ENGINE_TYPES, METHOD_TYPES],
    node: 'all',
    packages: ['commander', 'pino', 'pino-pretty', 'yaml'],
  },
];

/** Files that may consist of re-exports: the two public entries. */
export const PUBLIC_ENTRIES: readonly string[] = ['src/index.ts', 'src/nbd-client/index.ts'];

/** The layer of a file: the one with the longest folder that contains it. `src` is only the files directly in it. */
export const layerOf = (file: string): Layer | null => {
  const folder = file.slice(0, file.lastIndexOf('/'));
  if (folder === 'src') return LAYERS.find((layer) => layer.folder === 'src') ?? null;
  return LAYERS.find((layer) => layer.folder !== 'src' && (folder === layer.folder || folder.startsWith(`${layer.folder}/`))) ?? null;
};

/** The table as Markdown, for ARCHITECTURE.md. */
export const layerTable = (): string => {
  const code = (names: readonly string[]): string => (names.length === 0 ? '-' : names.map((name) => `\`${name}\``).join(', '));
  const rows = LAYERS.map((layer) => {
    const types = (layer.typesOf ?? []).map((file) => `types of \`${file}\``);
    const imports = [code([...layer.folders, ...(layer.files ?? [])]), ...types].join(', ');
    const node =
      layer.node === 'all'
        ? 'all'
        : Object.entries(layer.node)
            .map(([module, names]) => `${names.map((name) => `\`${name}\``).join(', ')} of \`${module}\``)
            .join(', ');
    return `| \`${layer.folder === 'src' ? 'src/*.ts' : layer.folder}\` | ${imports} | ${node} | ${code(layer.packages)} |`;
  });
  return ['| folder | may import, besides itself | Node modules | packages |', '| --- | --- | --- | --- |', ...rows].join('\n');
};
