/** The side-by-side benchmark in its smallest form: it measures, writes its files, and leaves nothing behind. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Results } from '../../bench/side-by-side/report.ts';
import { findProgram } from '../../src/platform/program.ts';
import { needClient, run } from '../support/clients.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

describe('npm run bench', () => {
  it('puts twinvol beside a peer, with one leg and with two, and removes its files and processes', async () => {
    for (const client of ['fio', 'nbdcopy', 'nbdkit', 'qemu-storage-daemon', 'taskset']) needClient(client);
    await using temporary = await temporaryDirectory();
    const out = temporary.path('out');
    const words = [
      '--quick',
      '--parts',
      'throughput',
      '--cells',
      '4k-read-16',
      '--peers',
      'nbdkit,quorum',
      '--runs',
      '1',
      '--runtime',
      '200ms',
    ];
    const place = ['--size', '16', '--place', temporary.root, '--out', out];
    const bench = ['--import', 'tsx', 'bench/side-by-side.ts', ...words, ...place];
    const { status, stdout, stderr } = await run(process.execPath, bench, { cwd: ROOT, timeoutMs: 55_000 });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    // One leg, two legs, and two legs with the client that is compiled on the spot.
    const tables = findProgram('cc') === null ? 2 : 3;
    const [, met = 0, missed = 0] = (/^(\d+) targets met, (\d+) not met, 0 parts failed$/m.exec(stdout) ?? []).map(Number);
    expect(met + missed).toBe(tables);
    const [file] = readdirSync(out).filter((name) => name.endsWith('.json'));
    const results = JSON.parse(readFileSync(`${out}/${file}`, 'utf8')) as Results;
    const [section] = results.sections;
    expect(section?.bars).toHaveLength(tables);
    expect(section?.tables.map(({ rows }) => rows.length)).toEqual(Array.from({ length: tables }, () => 1));
    expect(JSON.stringify(results)).not.toContain(temporary.root);
    const page = readFileSync(`${out}/RESULTS.md`, 'utf8');
    for (const plot of section?.plots ?? []) {
      expect(page).toContain(`(plots/${plot.file})`);
      expect(existsSync(`${out}/plots/${plot.file}`)).toBe(true);
    }
    expect(readdirSync(temporary.root)).toEqual(['out']);
    const left = await run('pgrep', ['-f', temporary.root]);
    expect(left.stdout).toBe('');
  });
});
