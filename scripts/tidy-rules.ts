/**
 * The rules that no linter knows, as pure functions of one file's path and text. Each finding names its rule, so that
 * a planted violation can be matched to the rule that has to catch it.
 */
import { posix } from 'node:path';
import { type Layer, layerOf, PUBLIC_ENTRIES } from './layers.ts';

export type Rule =
  | 'layer'
  | 'types-only'
  | 'node-module'
  | 'package'
  | 'barrel'
  | 'length'
  | 'header'
  | 'name'
  | 'unfinished'
  | 'focused-test'
  | 'silenced';
export type Finding = { readonly file: string; readonly line: number; readonly rule: Rule; readonly text: string };
export type Import = { readonly line: number; readonly from: string; readonly typesOnly: boolean; readonly names: readonly string[] };

const LINES_MAX = 520;
/** Names that say nothing about what is inside. */
const EMPTY_NAMES = new Set(['utils', 'util', 'helpers', 'helper', 'misc', 'common', 'stuff', 'shared', 'lib']);
/** Put together here, so that this file does not find itself. */
const UNFINISHED = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'].join('|')})\\b`);
const FOCUSED = /\b(it|test|describe)(\.\w+)*\.(only|skip|todo|fails)\b/;
const SILENCED = /@ts-(ignore|nocheck|expect-error)|(oxlint|eslint)-disable(?!.* -- \S)|biome-ignore(?!.*: \S)/;

const STATEMENT = /^(?:import|export)\s+(type\s+)?([^'";=()]*?)\bfrom\s*['"]([^'"]+)['"]/gm;
const BARE = /^import\s+['"]([^'"]+)['"]/gm;
const DYNAMIC = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;
/** A worker is named by its path below src, so this is an import too. */
const WORKER = /\bworkerFile\(\s*['"]([^'"]+)['"]\s*\)/g;

const lineAt = (text: string, index: number): number => text.slice(0, index).split('\n').length;

/** Names as the other module calls them: `a as b` is `a`; `* as x` is `*`; a default import is `default`. */
const namesOf = (clause: string): { readonly names: string[]; readonly allTypes: boolean } => {
  const braces = /\{([^}]*)\}/.exec(clause)?.[1] ?? '';
  const inBraces = braces
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const outside = clause
    .replace(/\{[^}]*\}/, '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return {
    names: [
      ...outside.map((name) => (name.startsWith('*') ? '*' : 'default')),
      ...inBraces.map((name) => name.replace(/^type\s+/, '').split(/\s/)[0] ?? ''),
    ],
    allTypes: outside.length === 0 && inBraces.length > 0 && inBraces.every((name) => name.startsWith('type ')),
  };
};

/** Everything that the file imports or re-exports, in whatever form. */
export const importsOf = (text: string): Import[] => {
  const found: Import[] = [];
  for (const match of text.matchAll(STATEMENT)) {
    const { names, allTypes } = namesOf(match[2] ?? '');
    found.push({ line: lineAt(text, match.index), from: match[3] ?? '', typesOnly: match[1] !== undefined || allTypes, names });
  }
  for (const pattern of [BARE, DYNAMIC]) {
    for (const match of text.matchAll(pattern))
      found.push({ line: lineAt(text, match.index), from: match[1] ?? '', typesOnly: false, names: ['*'] });
  }
  for (const match of text.matchAll(WORKER)) {
    found.push({ line: lineAt(text, match.index), from: `/src/${match[1] ?? ''}.ts`, typesOnly: false, names: ['*'] });
  }
  return found.sort((one, other) => one.line - other.line);
};

type Refusal = { readonly rule: Rule; readonly text: string };

const nodeRefusal = (layer: Layer, found: Import): Refusal | null => {
  if (layer.node === 'all') return null;
  const allowed = layer.node[found.from] ?? [];
  const refused = found.names.filter((name) => !allowed.includes(name));
  return refused.length === 0
    ? null
    : { rule: 'node-module', text: `${layer.folder} is pure and may not import ${refused.join(', ')} of ${found.from}` };
};

const packageRefusal = (layer: Layer, found: Import): Refusal | null => {
  const name = found.from
    .split('/')
    .slice(0, found.from.startsWith('@') ? 2 : 1)
    .join('/');
  return layer.packages.includes(name) ? null : { rule: 'package', text: `${layer.folder} may not import the package ${name}` };
};

const folderRefusal = (layer: Layer, file: string, found: Import): Refusal | null => {
  const target = found.from.startsWith('/') ? found.from.slice(1) : posix.join(posix.dirname(file), found.from);
  if (target === 'package.json') return null;
  const folder = layerOf(target)?.folder;
  if (folder !== undefined && (folder === layer.folder || layer.folders.includes(folder))) return null;
  if (layer.files?.includes(target) === true) return null;
  if (layer.typesOf?.includes(target) === true) {
    return found.typesOnly ? null : { rule: 'types-only', text: `${layer.folder} may import types only from ${target}` };
  }
  return { rule: 'layer', text: `${layer.folder} may not import ${target}` };
};

const refusalOf = (layer: Layer, file: string, found: Import): Refusal | null => {
  if (found.from.startsWith('node:')) return nodeRefusal(layer, found);
  return found.from.startsWith('.') || found.from.startsWith('/') ? folderRefusal(layer, file, found) : packageRefusal(layer, found);
};

/** The code without its comments; lines stay where they are. Good for questions about statements, not for strings. */
const withoutComments = (text: string): string =>
  text.replace(/\/\*[^]*?\*\//g, (comment) => comment.replace(/[^\n]/g, '')).replace(/^\s*\/\/.*$/gm, '');

const isBarrel = (text: string): boolean => {
  const code = withoutComments(text);
  if (/^export\s+\*/m.test(code)) return true;
  const rest = code.replace(STATEMENT, '').replace(BARE, '').replace(/[;\s]/g, '');
  return rest === '' && /^export\b/m.test(code);
};

const wholeFileFindings = (file: string, text: string): Finding[] => {
  const found: Finding[] = [];
  const add = (rule: Rule, line: number, message: string): void => void found.push({ file, line, rule, text: message });
  const lineCount = text.split('\n').length - 1;
  if (lineCount > LINES_MAX) add('length', lineCount, `${lineCount} lines; at most ${LINES_MAX}`);
  if (!file.startsWith('test/') && !/^(#!.*\n)?\/\*\*/.test(text))
    add('header', 1, 'begins without a comment that says what the file is and why');
  if (EMPTY_NAMES.has(posix.basename(file).replace(/\..*$/, ''))) add('name', 1, 'the name says nothing about what is inside');
  if (!PUBLIC_ENTRIES.includes(file) && isBarrel(text)) add('barrel', 1, 'only re-exports: import from the file that has it');
  return found;
};

/** All findings of one TypeScript file. `file`: its path below the project's root, with slashes. */
export const findingsOf = (file: string, text: string): Finding[] => {
  const found = wholeFileFindings(file, text);
  for (const [index, line] of text.split('\n').entries()) {
    const add = (rule: Rule, message: string): void => void found.push({ file, line: index + 1, rule, text: message });
    if (UNFINISHED.test(line)) add('unfinished', 'unfinished work: finish it, or make it an issue');
    if (FOCUSED.test(line)) add('focused-test', 'a test that is left out, or that leaves out the others');
    if (SILENCED.test(line)) add('silenced', 'silences a check without a reason (`-- why`)');
  }
  const layer = layerOf(file);
  if (layer === null) {
    return file.startsWith('src/')
      ? [...found, { file, line: 1, rule: 'layer', text: 'is in no layer: scripts/layers.ts has no such folder' }]
      : found;
  }
  for (const one of importsOf(text)) {
    const refusal = refusalOf(layer, file, one);
    if (refusal !== null) found.push({ file, line: one.line, ...refusal });
  }
  return found;
};
