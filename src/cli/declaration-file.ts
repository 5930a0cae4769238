/**
 * A declaration's file: YAML 1.2 or JSON (which is YAML too), from a path or standard input, and the way back from a
 * place in the declaration (a JSON pointer) to the line where it stands.
 */
import { readFile } from 'node:fs/promises';
import { text as textOf } from 'node:stream/consumers';
import { isNode, LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import { systemCode, TwinvolError } from '../core/faults.ts';

/** Aliases may make a short file long; more than this in one document is no honest declaration. */
const ALIASES_MAX = 1000;

export type DeclarationFile = {
  /** As the operator named it; `-` is `standard input`. */
  readonly name: string;
  /** What it says; the engine checks it against the schema. */
  readonly value: unknown;
  /** Line of a place in it, counted from 1, or of the nearest place around it; null: nowhere. */
  lineOf(pointer: string): number | null;
};

/** @throws TwinvolError `USAGE` when it cannot be read, or is no YAML */
export const readDeclaration = async (path: string): Promise<DeclarationFile> => {
  const name = path === '-' ? 'standard input' : path;
  const lines = new LineCounter();
  const document = parseDocument(await contentOf(path, name), { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    // The library's words for this one tell a programmer what to call.
    const why = error.code === 'MULTIPLE_DOCS' ? 'a second document begins here' : error.message;
    throw new TwinvolError('USAGE', `${name}:${line}:${col}: ${why}`, {
      remedy: 'a declaration is one YAML or JSON document',
      details: { file: name, line, column: col },
    });
  }
  return { name, value: valueOf(document, name), lineOf: (pointer) => lineOf(document, lines, pointer) };
};

const contentOf = async (path: string, name: string): Promise<string> => {
  try {
    return path === '-' ? await textOf(process.stdin) : await readFile(path, 'utf8');
  } catch (error) {
    throw new TwinvolError('USAGE', `${name} cannot be read: ${systemCode(error) || String(error)}`, {
      remedy: 'name a file with a declaration, or - for standard input',
      details: { file: name },
      cause: error,
    });
  }
};

const valueOf = (document: Document, name: string): unknown => {
  try {
    // An empty file declares nothing.
    return document.toJS({ maxAliasCount: ALIASES_MAX }) ?? {};
  } catch (error) {
    throw new TwinvolError('USAGE', `${name}: ${error instanceof Error ? error.message : String(error)}`, {
      details: { file: name },
      cause: error,
    });
  }
};

const lineOf = (document: Document, lines: LineCounter, pointer: string): number | null => {
  const path = pointer
    .split('/')
    .slice(1)
    .map((key) => (/^\d+$/.test(key) ? Number(key) : key));
  for (; path.length > 0; path.pop()) {
    const node = document.getIn(path, true);
    if (isNode(node) && node.range !== null && node.range !== undefined) return lines.linePos(node.range[0]).line;
  }
  return null;
};
