/**
 * Runs the project's own rules (`tidy-rules.ts`) over the project, which has to be clean, and over the planted
 * violations, each of which has to be caught by its rule: a check that checks nothing fails here.
 *
 *     tsx scripts/tidy.ts            all checks; prints what it finds, exit status 1 when there is anything
 *     tsx scripts/tidy.ts --table    prints the table of layers for ARCHITECTURE.md
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LAYERS, layerOf, layerTable } from './layers.ts';
import { type Finding, findingsOf, type Rule } from './tidy-rules.ts';

const root = join(import.meta.dirname, '..');
const FOLDERS = ['src', 'native-free', 'bench', 'test', 'scripts'];
const PLANTED = 'test/support/planted';
const RULES: readonly Rule[] = [
  'layer',
  'types-only',
  'node-module',
  'package',
  'barrel',
  'length',
  'header',
  'name',
  'unfinished',
  'focused-test',
  'silenced',
];
const TABLE = /<!-- layers -->\n([^]*?)\n<!-- \/layers -->/;

/** TypeScript files below a folder, as paths from it, sorted. */
const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.m?ts$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

const projectFindings = (): { readonly count: number; readonly findings: Finding[] } => {
  const files = FOLDERS.flatMap((folder) => filesBelow(join(root, folder)).map((file) => `${folder}/${file}`)).filter(
    (file) => !file.startsWith(`${PLANTED}/`),
  );
  return { count: files.length, findings: files.flatMap((file) => findingsOf(file, readFileSync(join(root, file), 'utf8'))) };
};

/** The table of layers in ARCHITECTURE.md has to be the one that is checked. */
const documentFindings = (): string[] => {
  const path = join(root, 'src/ARCHITECTURE.md');
  const shown = existsSync(path) ? TABLE.exec(readFileSync(path, 'utf8'))?.[1] : undefined;
  if (shown === undefined) return ['src/ARCHITECTURE.md has no table between <!-- layers --> and <!-- /layers -->'];
  return shown.trim() === layerTable()
    ? []
    : ['src/ARCHITECTURE.md: the table of layers is out of date; tsx scripts/tidy.ts --table prints it'];
};

/** What is wrong with the planted files: not caught, caught by another rule, or a rule or layer without one. */
const plantedFindings = (): { readonly count: number; readonly wrong: string[] } => {
  const folder = join(root, PLANTED, 'tidy');
  const wrong: string[] = [];
  const covered = new Set<string>();
  const files = filesBelow(folder);
  for (const file of files) {
    const text = readFileSync(join(folder, file), 'utf8');
    const wanted = /planted: ([\w-]+)/.exec(text)?.[1] ?? '(none)';
    const caught = [...new Set(findingsOf(file, text).map(({ rule }) => rule))];
    if (caught.length !== 1 || caught[0] !== wanted)
      wrong.push(`${PLANTED}/tidy/${file}: planted ${wanted}, caught ${caught.join(', ') || 'nothing'}`);
    covered.add(wanted);
    covered.add(`${wanted} in ${layerOf(file)?.folder ?? 'no layer'}`);
  }
  const needed = [
    ...RULES,
    ...LAYERS.flatMap(({ folder: layer, node }) => [
      `layer in ${layer}`,
      `package in ${layer}`,
      ...(node === 'all' ? [] : [`node-module in ${layer}`]),
    ]),
  ];
  for (const need of needed) if (!covered.has(need)) wrong.push(`${PLANTED}/tidy: no planted violation of ${need}`);
  return { count: files.length, wrong };
};

const main = (): number => {
  if (process.argv.includes('--table')) {
    console.log(layerTable());
    return 0;
  }
  const project = projectFindings();
  const planted = plantedFindings();
  const lines = [
    ...project.findings.map(({ file, line, rule, text }) => `${file}:${line}: ${text} [${rule}]`),
    ...documentFindings(),
    ...planted.wrong,
  ];
  for (const line of lines) console.log(line);
  console.log(`tidy: ${project.count} files, ${planted.count} planted violations, ${lines.length} findings`);
  return lines.length === 0 ? 0 : 1;
};

process.exitCode = main();
