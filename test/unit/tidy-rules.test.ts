/** What the planted files cannot show: that clean code is left alone, and how imports are read. */
import { describe, expect, it } from 'vitest';
import { LAYERS, layerOf, layerTable } from '../../scripts/layers.ts';
import { findingsOf, importsOf } from '../../scripts/tidy-rules.ts';

const HEADER = '/** What it is. */\n';
const rulesOf = (file: string, text: string): string[] => findingsOf(file, HEADER + text).map(({ rule, line }) => `${rule}:${line}`);

describe('reading imports', () => {
  it('sees every form, with its line and its names', () => {
    const text = [
      "import one from './a.ts';",
      "import type { Two } from './b.ts';",
      "import { type Three, type Four } from './c.ts';",
      "import { five as six, type Seven } from './d.ts';",
      "import * as eight from './e.ts';",
      "import './f.ts';",
      'import {',
      '  nine,',
      '  ten,',
      "} from './g.ts';",
      "export { eleven } from './h.ts';",
      "export * from './i.ts';",
      "const later = await import('./j.ts');",
      "const worker = workerFile('data/lane-worker');",
    ].join('\n');
    expect(importsOf(text)).toEqual([
      { line: 1, from: './a.ts', typesOnly: false, names: ['default'] },
      { line: 2, from: './b.ts', typesOnly: true, names: ['Two'] },
      { line: 3, from: './c.ts', typesOnly: true, names: ['Three', 'Four'] },
      { line: 4, from: './d.ts', typesOnly: false, names: ['five', 'Seven'] },
      { line: 5, from: './e.ts', typesOnly: false, names: ['*'] },
      { line: 6, from: './f.ts', typesOnly: false, names: ['*'] },
      { line: 7, from: './g.ts', typesOnly: false, names: ['nine', 'ten'] },
      { line: 11, from: './h.ts', typesOnly: false, names: ['eleven'] },
      { line: 12, from: './i.ts', typesOnly: false, names: ['*'] },
      { line: 13, from: './j.ts', typesOnly: false, names: ['*'] },
      { line: 14, from: '/src/data/lane-worker.ts', typesOnly: false, names: ['*'] },
    ]);
  });

  it('does not take other code for an import, and is quick about it', () => {
    const text = `export const from = 'x';\nexport type A = { from: string };\n${'export class B {\n  a b c d e f g\n'.repeat(2000)}`;
    const startedAt = performance.now();
    expect(importsOf(text)).toEqual([]);
    expect(performance.now() - startedAt).toBeLessThan(500);
  });
});

describe('what is allowed', () => {
  it.each([
    ['src/core/a.ts', "import { b } from './b.ts';\nexport const c = b;"],
    ['src/core/a.ts', "import { createHash } from 'node:crypto';\nexport const c = createHash;"],
    ['src/wire/a.ts', "import { b } from '../core/b.ts';\nexport const c = b;"],
    ['src/wire/deep/a.ts', "import { b } from '../../core/b.ts';\nexport const c = b;"],
    ['src/data/a.ts', "import type { Engine } from '../engine/api.ts';\nexport type C = Engine;"],
    ['src/data/a.ts', "import { Piscina } from 'piscina';\nexport const c = Piscina;"],
    ['src/cli/commands/a.ts', "import { c } from '../../control/client.ts';\nexport const d = c;"],
    ['src/cli/serve.ts', "export const d = () => import('../index.ts');"],
    ['src/index.ts', "export { a } from './engine/a.ts';\nexport type { B } from './engine/api.ts';"],
    ['src/store/a.ts', "import { b } from '../platform/b.ts';\nexport { b };"],
    ['test/unit/a.test.ts', "import { b } from '../../src/engine/b.ts';\nit.skipIf(b)('c', () => undefined);"],
    ['src/core/a.ts', '// oxlint-disable-next-line no-bitwise -- words of a bitmap\nexport const c = 1 | 2;'],
  ])('%s: %s', (file, text) => expect(rulesOf(file, text)).toEqual([]));

  it('a finding names the line', () => {
    expect(rulesOf('src/core/a.ts', "\nimport { x } from '../wire/x.ts';\nexport const y = x;")).toEqual(['layer:3']);
  });
});

describe('the table of layers', () => {
  it('has every folder once, and names only folders that it has', () => {
    const folders = LAYERS.map(({ folder }) => folder);
    expect(new Set(folders).size).toBe(folders.length);
    for (const layer of LAYERS) for (const folder of layer.folders) expect(folders).toContain(folder);
  });

  it('has no circle: what a folder may import may not import it back', () => {
    const above = (folder: string, seen: readonly string[]): void => {
      expect(seen, `${[...seen, folder].join(' -> ')}`).not.toContain(folder);
      for (const below of LAYERS.find((layer) => layer.folder === folder)?.folders ?? []) above(below, [...seen, folder]);
    };
    for (const { folder } of LAYERS) above(folder, []);
  });

  it('finds the layer of a file', () => {
    expect(layerOf('src/core/a.ts')?.folder).toBe('src/core');
    expect(layerOf('src/cli/commands/a.ts')?.folder).toBe('src/cli');
    expect(layerOf('src/index.ts')?.folder).toBe('src');
    expect(layerOf('src/unknown/a.ts')).toBeNull();
    expect(layerOf('test/unit/a.ts')).toBeNull();
  });

  it('is printed with one row for each folder', () => expect(layerTable().split('\n')).toHaveLength(LAYERS.length + 2));
});
