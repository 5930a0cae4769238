/**
 * Results as files: one JSON file for each run, and from the newest results of each part the page RESULTS.md with its plots.
 * A quick run has a page and a folder of its own, so that it never replaces definitive figures.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Machine } from './machine.ts';
import type { Section, Table } from './section.ts';
import { PART_IDS } from './settings.ts';
import { svgOf } from './svg-plot.ts';

const FORMAT = 1;

export type Results = {
  readonly format: typeof FORMAT;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly command: string;
  readonly isQuick: boolean;
  readonly machine: Machine;
  readonly peers: Readonly<Record<string, string>>;
  readonly sections: readonly Section[];
};

const BENCH = join(import.meta.dirname, '..');

/** Where results and plots go, the page, and how the page names the plots. */
export type Places = { readonly folder: string; readonly page: string; readonly plotsInPage: string };

export const placesOf = (isQuick: boolean, out: string | undefined): Places => {
  const own = out ?? (isQuick ? join(BENCH, 'results', 'quick') : null);
  if (own !== null) return { folder: own, page: join(own, 'RESULTS.md'), plotsInPage: 'plots' };
  return { folder: join(BENCH, 'results'), page: join(BENCH, 'RESULTS.md'), plotsInPage: 'results/plots' };
};

/** @returns the file's path */
export const writeResults = (results: Results, { folder }: Places): string => {
  mkdirSync(folder, { recursive: true });
  const stamp = results.startedAt.replaceAll(/[:]/g, '').replace(/\..*$/, '');
  const parts = results.sections.length === PART_IDS.length ? 'all' : results.sections.map(({ id }) => id).join('-');
  const path = join(folder, `${stamp}-${parts}.json`);
  writeFileSync(path, `${JSON.stringify(results, null, 1)}\n`);
  return path;
};

export const readResults = (path: string): Results => {
  const results = JSON.parse(readFileSync(path, 'utf8')) as Omit<Results, 'format'> & { readonly format: number };
  if (results.format !== FORMAT) throw new Error(`${path} is of format ${results.format}, and this program reads ${FORMAT}`);
  return { ...results, format: FORMAT };
};

const cell = (text: string): string => text.replaceAll('|', '\\|');
const row = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;

export const markdownTable = ({ columns, rows }: Pick<Table, 'columns' | 'rows'>): string =>
  [row(columns), row(columns.map(() => '---')), ...rows.map(row)].join('\n');

type Found = { readonly results: Results; readonly section: Section };

/** The newest results of each part. */
const newestSections = (folder: string): Found[] => {
  const files = existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => name.endsWith('.json'))
        .sort()
    : [];
  const newest = new Map<string, Found>();
  for (const file of files) {
    const results = readResults(join(folder, file));
    for (const section of results.sections) newest.set(section.id, { results, section });
  }
  return PART_IDS.flatMap((id) => newest.get(id) ?? []);
};

const machineLine = ({ startedAt, machine, command }: Results): string => {
  const { processor, processors, memoryBytes, system, node, commit, loadBefore } = machine;
  return (
    `${startedAt.slice(0, 16).replace('T', ' ')} UTC, commit ${commit}, \`${command}\`; ${processors} x ${processor}, ` +
    `${Math.round(memoryBytes / 2 ** 30)} GiB, ${system}, Node ${node}; load before the run ${loadBefore.toFixed(1)}`
  );
};

const sectionText = ({ results, section }: Found, plotFolder: string): string => {
  const parts = [`## ${section.title}`, machineLine(results), ...section.text];
  if (section.bars.length > 0) {
    const rows = section.bars.map(({ what, target, measured, isMet }) => [what, target, measured, isMet ? 'yes' : '**no**']);
    parts.push(markdownTable({ columns: ['target', 'wanted', 'measured', 'met'], rows }));
  }
  for (const plot of section.plots) parts.push(`![${plot.title}](${plotFolder}/${plot.file})`);
  for (const table of section.tables) parts.push(`**${table.title}**`, markdownTable(table));
  return parts.join('\n\n');
};

const HEAD = `# Results

<!-- Made by npm run bench from the files in results/; do not edit. -->

What these figures mean, and what they do not, is in [README.md](README.md). Ratios count more than figures: all sides of a
comparison ran in turns on the same machine.`;

/** Writes RESULTS.md and the plots. @returns the page's path */
export const writeReport = ({ folder, page, plotsInPage }: Places): string => {
  const found = newestSections(folder);
  const plots = join(folder, 'plots');
  mkdirSync(plots, { recursive: true });
  for (const { section } of found) for (const plot of section.plots) writeFileSync(join(plots, plot.file), svgOf(plot));
  const peers = new Map(found.flatMap(({ results }) => Object.entries(results.peers)));
  const peerTable = markdownTable({ columns: ['peer', 'version'], rows: [...peers].map(([name, version]) => [name, version]) });
  const texts = found.map((one) => sectionText(one, plotsInPage));
  writeFileSync(page, `${[HEAD, peerTable, ...texts].join('\n\n')}\n`);
  return page;
};
