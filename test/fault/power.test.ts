/**
 * The power harness in short: the store's file system loses its power at random moments, through pair states and
 * commands. The long form: `npm run harness:power -- --cuts 50`. Needs root; in CI it has to have it.
 */
import { describe, expect, it } from 'vitest';
import { runPowerTrial } from '../harness/power-trial.ts';
import { Random } from '../harness/random.ts';
import { needClient, needRoot } from '../support/clients.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { temporaryDirectory } from '../support/temporary.ts';

soleMounts();

const CUTS = 6;

describe('power loss', () => {
  it('[power-cut] at random moments, level power: nothing flushed is lost, tables are whole, legs are equal once duplex', {
    timeout: 180_000,
  }, async () => {
    needRoot();
    for (const program of ['mkfs.xfs', 'xfs_io', 'losetup']) needClient(program);
    await using temporary = await temporaryDirectory();
    const seed = Math.floor(Math.random() * 1e9);
    const report = await runPowerTrial({ directory: temporary.path('power'), random: new Random(seed), crashes: CUTS, restMs: 4 });
    expect(report.crashes).toBe(CUTS);
    expect(report.flushes).toBeGreaterThan(0);
  });
});
