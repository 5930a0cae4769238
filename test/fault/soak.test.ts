/**
 * The soak in short: random commands and I/O against a simple model, with faults. The long form:
 * `npm run harness:soak -- --seconds 600`. A failure says the seed and how many operations repeat it.
 */
import { expect, it } from 'vitest';
import { Random } from '../harness/random.ts';
import { Soak } from '../harness/soak-run.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const OPERATIONS = 500;

it('random commands, requests, errors and restarts: every volume and every pair is what the model says', { timeout: 180_000 }, async () => {
  await using temporary = await temporaryDirectory();
  const seed = Math.floor(Math.random() * 1e6);
  const soak = new Soak({ store: temporary.path('s'), random: new Random(seed), say: () => {} });
  try {
    await soak.run((operations) => operations >= OPERATIONS);
  } catch (error) {
    throw new Error(`npm run harness:soak -- --seed ${seed} --operations ${soak.operations} --verbose: ${String(error)}`, { cause: error });
  }
  expect(soak.operations).toBe(OPERATIONS);
});
