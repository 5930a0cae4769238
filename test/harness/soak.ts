/**
 * `npm run harness:soak -- --seconds 60 --seed 1`: random commands and I/O against a simple model, with faults
 * (soak-run.ts). A failure prints the seed and the number of the operation, and the same seed gives the same operations:
 * `--operations N --verbose` runs up to there and says each of them.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { harnessOptions } from './harness-options.ts';
import { Random } from './random.ts';
import { Soak } from './soak-run.ts';
import { SoakViolation } from './soak-world.ts';

const options = harnessOptions({ seconds: 60, operations: 0, seed: Date.now() % 1_000_000, verbose: false });

const directory = await mkdtemp(join(tmpdir(), 'tv-soak-'));
console.log(`seed ${options.seed}, ${options.operations > 0 ? `${options.operations} operations` : `${options.seconds} s`}`);
const startedMs = performance.now();
const isOver = (operations: number): boolean =>
  options.operations > 0 ? operations >= options.operations : performance.now() - startedMs > options.seconds * 1000;
const soak = new Soak({
  store: join(directory, 's'),
  random: new Random(options.seed),
  say: (text) => options.verbose && console.log(text),
});
try {
  await soak.run(isOver);
  console.log(
    `passed: ${soak.operations} operations in ${Math.round((performance.now() - startedMs) / 1000)} s: ${JSON.stringify(soak.counts)}`,
  );
  await rm(directory, { recursive: true, force: true });
} catch (error) {
  console.error(error instanceof SoakViolation ? error.message : error);
  console.error(
    `FAILED; again with: npm run harness:soak -- --operations ${soak.operations} --seed ${options.seed} --verbose; the store is left in ${directory}`,
  );
  process.exitCode = 1;
}
