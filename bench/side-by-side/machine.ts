/** The machine and the versions, without which no figure means anything. */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';

export type Machine = {
  readonly processor: string;
  readonly processors: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly node: string;
  readonly commit: string;
  /** Of the minute before the run: what else the machine was doing. */
  readonly loadBefore: number;
};

const root = join(import.meta.dirname, '../..');

const commitOf = (): string => {
  try {
    const run = (...words: string[]): string =>
      execFileSync('git', ['-C', root, ...words], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return `${run('rev-parse', '--short=12', 'HEAD')}${run('status', '--porcelain', '--', 'src', 'native-free') === '' ? '' : ' with changes'}`;
  } catch {
    return 'unknown';
  }
};

export const machine = (): Machine => ({
  processor: cpus()[0]?.model.trim() ?? 'unknown',
  processors: cpus().length,
  memoryBytes: totalmem(),
  system: `${type()} ${release()}`,
  node: process.version,
  commit: commitOf(),
  loadBefore: loadavg()[0] ?? 0,
});
