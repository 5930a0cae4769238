/**
 * Builds `dist` before the tests that start the real command line, where a source is newer than the last build.
 *
 * A type error is the business of `npm run typecheck`: what was emitted is tested all the same, with a warning.
 */
import { existsSync } from 'node:fs';
import { run } from './clients.ts';

export const setup = async (): Promise<void> => {
  const built = await run('bash', ['scripts/build'], { timeoutMs: 300_000 });
  if (built.status === 0) return;
  const text = `the build failed:\n${built.stdout}${built.stderr}`;
  if (!existsSync('dist/src/cli/main.js')) throw new Error(text);
  console.warn(text);
};
