/**
 * `npm run harness:power -- --cuts 50 --seed 1`: cuts the power of the store's file system at random moments and looks
 * for everything that was flushed (power-trial.ts). Needs root; without it, it says so and exits with status 77, as
 * tests that could not be run do.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TrialViolation } from './crash-trial.ts';
import { requireBuild } from './engine-process.ts';
import { harnessOptions } from './harness-options.ts';
import { loopImpossible } from './loop-file-system.ts';
import { runPowerTrial } from './power-trial.ts';
import { Random } from './random.ts';
import { roundLine } from './round-line.ts';

const SKIPPED = 77;

const options = harnessOptions({ cuts: 50, seed: Date.now() % 1_000_000, verbose: false });

const impossible = loopImpossible('xfs');
if (impossible !== null) {
  console.error(`SKIPPED, nothing was shown: ${impossible}`);
  process.exit(SKIPPED);
}
requireBuild();
const directory = await mkdtemp(join(tmpdir(), 'tv-power-'));
console.log(`seed ${options.seed}, ${options.cuts} cuts`);
try {
  const report = await runPowerTrial({
    directory,
    random: new Random(options.seed),
    crashes: options.cuts,
    restMs: 2,
    say: (text) => options.verbose && console.log(text),
    onRound: (round) => console.log(roundLine('cut', round)),
  });
  console.log(`passed: ${JSON.stringify(report)}`);
} catch (error) {
  console.error(error instanceof TrialViolation ? error.message : error);
  console.error(`FAILED; again with: npm run harness:power -- --cuts ${options.cuts} --seed ${options.seed}`);
  process.exitCode = 1;
} finally {
  await rm(directory, { recursive: true, force: true });
}
