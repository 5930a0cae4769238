/**
 * The fault table of ARCHITECTURE.md against tests and messages, both ways: every test that it names exists once, every
 * test whose title begins with a word in brackets is in it, and every message is one that the program has.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const COLUMNS = ['fault', 'host sees', 'pair', 'message', 'remedy', 'test'];
const TITLE = /[)(]\(?\s*['"`]\[([a-z]+(?:-[a-z]+)*)\] /g;

const filesBelow = (folder: string, ending: string): readonly string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending) && !name.includes('planted'))
    .map((name) => readFileSync(join(ROOT, folder, name), 'utf8'));

const cellsOf = (line: string): readonly string[] =>
  line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());

const page = readFileSync(join(ROOT, 'src/ARCHITECTURE.md'), 'utf8');
const table = page.split('<!-- faults -->\n')[1]?.split('\n<!-- /faults -->')[0] ?? '';
const [head = [], , ...rows] = table.split('\n').map(cellsOf);
const codesIn = (cell: string | undefined): readonly string[] => [...(cell ?? '').matchAll(/`([^`]+)`/g)].map(([, code]) => code as string);

describe('the fault table', () => {
  it('has its six columns in every row, and none of them empty', () => {
    expect(head).toEqual(COLUMNS);
    expect(rows.length).toBeGreaterThan(30);
    for (const row of rows) {
      expect(row, row.join(' | ')).toHaveLength(COLUMNS.length);
      expect(
        row.every((cell) => cell !== ''),
        row.join(' | '),
      ).toBe(true);
    }
  });

  it('names a test for every fault, and every test that is named after a fault', () => {
    const titles = filesBelow('test', '.test.ts').flatMap((text) => [...text.matchAll(TITLE)].map(([, name]) => name as string));
    const named = rows.flatMap((row) => {
      const names = codesIn(row[5]);
      expect(names, row[0]).not.toEqual([]);
      return names;
    });
    expect([...named].sort()).toEqual([...titles].sort());
  });

  it('shows messages that the program has', () => {
    const sources = filesBelow('src', '.ts').join('\n');
    for (const row of rows) {
      for (const message of codesIn(row[3]))
        for (const part of message.split('…')) expect(sources.includes(part.trim()), `${row[0]}: ${part}`).toBe(true);
    }
  });
});
