/**
 * The baseline's source tree: which commit it is, and a git worktree of it beside the project, removed afterwards.
 *
 * The commit is the one in bench/baseline.json. Where the clone does not have it (a shallow one), it is where this branch
 * left the main one, and on the main branch itself the commit before. The tree uses the project's installed packages.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const GIT_MS_MAX = 60_000;
const MAIN_BRANCHES = ['origin/main', 'main', 'origin/master', 'master'];

export type Baseline = { readonly commit: string; readonly why: string };

const execute = promisify(execFile);

/** Output of git, or null when it fails. */
const git = async (root: string, ...words: string[]): Promise<string | null> => {
  try {
    return (await execute('git', ['-C', root, ...words], { timeout: GIT_MS_MAX, encoding: 'utf8' })).stdout.trim();
  } catch {
    return null;
  }
};

const commitOf = (root: string, name: string): Promise<string | null> => git(root, 'rev-parse', '--verify', '--quiet', `${name}^{commit}`);

const stored = (root: string): string | null => {
  const path = join(root, 'bench/baseline.json');
  if (!existsSync(path)) return null;
  const { commit } = JSON.parse(readFileSync(path, 'utf8')) as { readonly commit?: unknown };
  return typeof commit === 'string' ? commit : null;
};

/** @param named a commit that the user named, which then must exist */
export const findBaseline = async (root: string, named: string | undefined): Promise<Baseline | null> => {
  if (named !== undefined) {
    const commit = await commitOf(root, named);
    return commit === null ? null : { commit, why: `named: ${named}` };
  }
  const kept = stored(root);
  const keptCommit = kept === null ? null : await commitOf(root, kept);
  if (keptCommit !== null) return { commit: keptCommit, why: 'bench/baseline.json' };
  const head = await commitOf(root, 'HEAD');
  for (const branch of MAIN_BRANCHES) {
    const base = await git(root, 'merge-base', 'HEAD', branch);
    if (base !== null && base !== '' && base !== head) return { commit: base, why: `where this branch left ${branch}` };
  }
  const parent = await commitOf(root, 'HEAD^');
  return parent === null ? null : { commit: parent, why: 'the commit before' };
};

export type BaselineTree = AsyncDisposable & { readonly path: string };

export const checkOut = async (root: string, commit: string): Promise<BaselineTree> => {
  const folder = await mkdtemp(join(tmpdir(), 'twinvol-baseline-'));
  const path = join(folder, 'tree');
  const remove = async (): Promise<void> => {
    await git(root, 'worktree', 'remove', '--force', path);
    await rm(folder, { recursive: true, force: true });
    await git(root, 'worktree', 'prune');
  };
  if ((await git(root, 'worktree', 'add', '--detach', path, commit)) === null) {
    await remove();
    throw new Error(`git cannot check ${commit} out`);
  }
  symlinkSync(join(root, 'node_modules'), join(path, 'node_modules'));
  return { path, [Symbol.asyncDispose]: remove };
};
