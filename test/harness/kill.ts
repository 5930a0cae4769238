/**
 * `npm run harness:kill -- --kills 200 --seed 1`: ends the engine with SIGKILL at random moments and looks for everything
 * that was acknowledged (crash-trial.ts). Prints one line a round; a failure prints the seed, the decisions and exits 1.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../../src/core/units.ts';
import { initStore } from '../../src/store/init.ts';
import { CrashTrial, TrialViolation } from './crash-trial.ts';
import { requireBuild } from './engine-process.ts';
import { harnessOptions } from './harness-options.ts';
import { Random } from './random.ts';
import { roundLine } from './round-line.ts';

const options = harnessOptions({ kills: 200, seed: Date.now() % 1_000_000, durability: 'power', verbose: false });
if (options.durability !== 'power' && options.durability !== 'process') {
  console.error(`--durability takes power or process, not ${options.durability}`);
  process.exit(64);
}
const { durability } = options;

requireBuild();
const directory = await mkdtemp(join(tmpdir(), 'tv-kill-'));
console.log(`seed ${options.seed}, ${options.kills} kills, durability ${options.durability}`);
try {
  await initStore(join(directory, 's'), { pvBytes: 64 * MiB });
  const trial = new CrashTrial({
    store: join(directory, 's'),
    random: new Random(options.seed),
    crashes: options.kills,
    promised: 'acknowledged',
    durability,
    restMs: 2,
    crash: (engine) => engine.kill(),
    say: (text) => options.verbose && console.log(text),
    onRound: (report) => console.log(roundLine('kill', report)),
  });
  const report = await trial.run();
  console.log(`passed: ${JSON.stringify(report)}`);
  await rm(directory, { recursive: true, force: true });
} catch (error) {
  console.error(error instanceof TrialViolation ? error.message : error);
  console.error(
    `FAILED; again with: npm run harness:kill -- --kills ${options.kills} --seed ${options.seed} --durability ${options.durability}; the store is left in ${directory}`,
  );
  process.exitCode = 1;
}
