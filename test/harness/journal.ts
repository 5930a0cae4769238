/**
 * `npm run harness:journal -- --seed 7`: power loss and errors at every moment of the metadata's life: every prefix of a
 * recorded trace of writes and syncs, with every combination of what was not durable where it is small, and random ones
 * where it is large (test/fault/journal-crash.test.ts, journal-superblock.test.ts). A failure prints the seed.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { harnessOptions } from './harness-options.ts';

const TESTS = ['test/fault/journal-crash.test.ts', 'test/fault/journal-superblock.test.ts'];

/** `every`: one in so many moments of the longest traces is taken; `samples`: random images of each moment. */
const options = harnessOptions({ seed: Date.now() % 1_000_000, samples: 100, every: 1 });

const root = join(import.meta.dirname, '../..');
console.log(`seed ${options.seed}, ${options.samples} random images of each moment, one in ${options.every} moments of the longest traces`);
const { status, error } = spawnSync(join(root, 'node_modules/.bin/vitest'), ['run', '--testTimeout', '1000000', ...TESTS], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    TWINVOL_CRASH_SEED: String(options.seed),
    TWINVOL_CRASH_SAMPLES: String(options.samples),
    TWINVOL_CRASH_EVERY: String(options.every),
  },
});
if (status !== 0) {
  if (error !== undefined) console.error(error.message);
  console.error(
    `FAILED; again with: npm run harness:journal -- --seed ${options.seed} --samples ${options.samples} --every ${options.every}`,
  );
  process.exitCode = 1;
}
