/**
 * Runs oxlint over the planted violations in test/support/planted/oxlint: each file has to be caught by the rule that
 * its first line names, so that a linter that is configured wrongly, or checks nothing, fails here.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const FOLDER = 'test/support/planted/oxlint';

type Diagnostic = { readonly code: string; readonly filename: string };

/** Rules that caught something, by file. The linter's own exit status says only that it found something. */
const caught = (): Map<string, Set<string>> => {
  const linter = spawnSync(join(root, 'node_modules/.bin/oxlint'), ['-c', '.oxlintrc.json', '-f', 'json', FOLDER], {
    cwd: root,
    encoding: 'utf8',
  });
  if (linter.error !== undefined) throw linter.error;
  const { diagnostics } = JSON.parse(linter.stdout) as { readonly diagnostics: readonly Diagnostic[] };
  const rules = new Map<string, Set<string>>();
  for (const { code, filename } of diagnostics) {
    const name = filename.slice(filename.indexOf(FOLDER) + FOLDER.length + 1);
    rules.set(name, (rules.get(name) ?? new Set()).add(code));
  }
  return rules;
};

const rules = caught();
const planted = readdirSync(join(root, FOLDER), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
const missed = planted.flatMap((name) => {
  const wanted = /planted: (\S+)/.exec(readFileSync(join(root, FOLDER, name), 'utf8'))?.[1] ?? '(none)';
  const found = rules.get(name) ?? new Set<string>();
  return found.has(wanted) ? [] : [`${FOLDER}/${name}: planted ${wanted}, caught ${[...found].join(', ') || 'nothing'}`];
});
for (const line of missed) console.log(line);
console.log(`oxlint: ${planted.length - missed.length} of ${planted.length} planted violations caught`);
process.exitCode = planted.length > 0 && missed.length === 0 ? 0 : 1;
