/** What is live depends on the machine, so other processes are asked, with the addon and without. */
import { describe, expect, it } from 'vitest';
import { fsExt, type NativeReport } from '../../../src/platform/native.ts';
import { findProgram } from '../../../src/platform/program.ts';
import { workerFile } from '../../../src/platform/worker-file.ts';
import { run } from '../../support/clients.ts';

const reportWith = async (env: Record<string, string>): Promise<NativeReport> => {
  const { filename, execArgv } = workerFile('platform/native');
  const source = `const { nativeReport } = await import(${JSON.stringify(filename)}); console.log(JSON.stringify(nativeReport()));`;
  const { stdout } = await run(process.execPath, [...execArgv, '--input-type=module', '-e', source], { env });
  return JSON.parse(stdout) as NativeReport;
};

describe('what is native', () => {
  it('TWINVOL_NATIVE=off means the stand-ins, each with what is weaker', async () => {
    const report = await reportWith({ TWINVOL_NATIVE: 'off' });
    expect(report).toMatchObject({ fsExt: false, fileLock: 'owner file (native-free)', holeSeek: 'zero check (native-free)' });
    expect(report.weaker.join('\n')).toMatch(/store lock[^]*descriptor[^]*Holes/);
  });

  it.skipIf(fsExt === null)('with fs-ext nothing is weaker on Linux', async () => {
    const report = await reportWith({ TWINVOL_NATIVE: 'on' });
    expect(report).toMatchObject({ fsExt: true, fileLock: 'flock (fs-ext)' });
    expect(report.weaker.filter((sentence) => !sentence.includes('given back'))).toEqual([]);
  });

  it('space cannot be given back where there is no fallocate, and the report says so', async () => {
    // The usual folders are looked at as well, so a machine that has the program cannot hide it.
    const report = await reportWith({ PATH: '/nonexistent' });
    expect(report.spaceReclaim === 'none').toBe(findProgram('fallocate') === null);
    expect(report.weaker.some((sentence) => sentence.includes('given back'))).toBe(findProgram('fallocate') === null);
  });
});
