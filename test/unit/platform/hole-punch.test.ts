/** On real files: needs util-linux `fallocate` and a file system that can punch holes, as the engine does. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { HolePuncher } from '../../../src/platform/hole-punch.ts';
import { findProgram } from '../../../src/platform/program.ts';
import { run } from '../../support/clients.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { workerFile } from '../../../src/platform/worker-file.ts';

const MIB = 1024 ** 2;
const canPunch = findProgram('fallocate') !== null;

/** The shells that this process started. */
const shells = (): number[] =>
  readdirSync(`/proc/self/task`)
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').split(' '))
    .map(Number)
    .filter((pid) => pid > 0 && readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('/bin/sh'));

let puncher = new HolePuncher();
afterEach(async () => {
  await puncher.close();
  puncher = new HolePuncher();
});

describe.skipIf(!canPunch)('punching holes', () => {
  it('gives the space back, keeps the size, and leaves zeros there and nothing else changed', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(4 * MIB, 7));
    const before = statSync(path).blocks;
    expect(await puncher.punch(path, MIB, 2 * MIB)).toBe(true);
    expect(before - statSync(path).blocks).toBe((2 * MIB) / 512);
    expect(readFileSync(path).equals(Buffer.concat([Buffer.alloc(MIB, 7), Buffer.alloc(2 * MIB), Buffer.alloc(MIB, 7)]))).toBe(true);
  });

  it('writes zeros at the edges of an unaligned range', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(64 * 1024, 7));
    expect(await puncher.punch(path, 1000, 10_000)).toBe(true);
    const expected = Buffer.alloc(64 * 1024, 7).fill(0, 1000, 11_000);
    expect(readFileSync(path).equals(expected)).toBe(true);
  });

  it('answers many requests in their order, good and bad, through one shell', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(MIB, 7));
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, index) => puncher.punch(index % 4 === 3 ? temporary.path('none') : path, index * 4096, 4096)),
    );
    expect(answers).toEqual(Array.from({ length: 40 }, (_, index) => index % 4 !== 3));
    expect(shells()).toHaveLength(1);
    expect(puncher.method).toBe('fallocate');
  });

  it.each([
    ' begins and ends with blanks ',
    `quotes ' " and $HOME \`id\``,
    'back\\slash\\n',
    '-p',
    'two\nlines',
    'ünï ✓',
    '*',
    ';touch x;',
  ])('a file called %j is only a name', async (name) => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path(name);
    writeFileSync(path, Buffer.alloc(8192, 7));
    expect(await puncher.punch(path, 0, 4096)).toBe(true);
    expect(readFileSync(path).equals(Buffer.alloc(8192, 7).fill(0, 0, 4096))).toBe(true);
    expect(readdirSync(temporary.root)).toEqual([name]);
  });

  it('says no to what is not there, and to nothing', async () => {
    await using temporary = await temporaryDirectory();
    expect(await puncher.punch(temporary.path('none'), 0, 4096)).toBe(false);
    expect(await puncher.punch(temporary.path('none'), 0, 0)).toBe(false);
    expect(await puncher.punch('with\0zero', 0, 4096)).toBe(false);
  });

  it('replaces a shell that was killed, and does what that one had not answered', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(MIB, 7));
    await puncher.punch(path, 0, 4096);
    const [first] = shells();
    if (first === undefined) throw new Error('no shell');
    const answers = Array.from({ length: 50 }, (_, index) => puncher.punch(path, index * 8192, 8192));
    process.kill(first, 'SIGKILL');
    expect(await Promise.all(answers)).toEqual(answers.map(() => true));
    expect(shells()).not.toContain(first);
    expect(
      readFileSync(path)
        .subarray(0, 50 * 8192)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  it('close answers what was asked, ends the shell, and nothing more can be asked', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(MIB, 7));
    const asked = [puncher.punch(path, 0, 4096), puncher.punch(path, 4096, 4096)];
    await puncher.close();
    expect(await Promise.all(asked)).toEqual([true, true]);
    expect(shells()).toEqual([]);
    expect(await puncher.punch(path, 0, 4096)).toBe(false);
  });

  it('neither keeps the process alive nor outlives it', async () => {
    await using temporary = await temporaryDirectory();
    const path = temporary.path('file');
    writeFileSync(path, Buffer.alloc(8192, 7));
    const { execArgv } = workerFile('platform/hole-punch');
    const source = `
      import { readFileSync } from 'node:fs';
      const { HolePuncher } = await import(${JSON.stringify(workerFile('platform/hole-punch').filename)});
      console.log(await new HolePuncher().punch(${JSON.stringify(path)}, 0, 4096));
      console.log(readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim());`;
    const ended = await run(process.execPath, [...execArgv, '--input-type=module', '-e', source], { timeoutMs: 15_000 });
    const [done, children] = ended.stdout.trim().split('\n');
    expect({ done, stderr: ended.stderr, status: ended.status }).toEqual({ done: 'true', stderr: '', status: 0 });
    const alive = (children ?? '').split(' ').filter((pid) => {
      try {
        return execFileSync('/bin/sh', ['-c', `sleep 0.2; cat /proc/${pid}/cmdline`], { stdio: 'pipe' }).includes('fallocate');
      } catch {
        return false;
      }
    });
    expect(alive).toEqual([]);
  });
});
