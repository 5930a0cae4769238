/**
 * The kill harness in short: SIGKILL at random moments, through all pair states and commands. The long form:
 * `npm run harness:kill -- --kills 200`. A failure prints the seed with which the decisions repeat.
 */
import { describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { initStore } from '../../src/store/init.ts';
import { CrashTrial } from '../harness/crash-trial.ts';
import { Random } from '../harness/random.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const KILLS = 15;

describe('kill -9 of the engine', () => {
  it.each([
    { durability: 'power' as const, kills: KILLS - 5 },
    { durability: 'process' as const, kills: 5 },
  ])(
    '[kill] at $kills random moments, durability $durability: nothing acknowledged is lost, tables are whole, legs are equal once duplex',
    { timeout: 120_000 },
    async ({ durability, kills }) => {
      await using temporary = await temporaryDirectory();
      const store = temporary.path('s');
      await initStore(store, { pvBytes: 64 * MiB });
      const seed = Math.floor(Math.random() * 1e9);
      const trial = new CrashTrial({
        store,
        random: new Random(seed),
        crashes: kills,
        promised: 'acknowledged',
        durability,
        restMs: 4,
        crash: (engine) => engine.kill(),
      });
      const report = await trial.run();
      expect(report.crashes).toBe(kills);
      expect(report.writes).toBeGreaterThan(100);
    },
  );
});
