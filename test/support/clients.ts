/**
 * The field's own programs (nbdinfo, qemu-img, fio and so on) for the tests: where they are, and running them.
 *
 * A program that is missing is a failure where CI says that all are there, and a skipped test elsewhere: never a test
 * that passes without having tested anything.
 */
import { spawn } from 'node:child_process';
import { TestRunner } from 'vitest';
import { findProgram } from '../../src/platform/program.ts';

const isCi = (): boolean => !['', 'false', '0'].includes(process.env.CI ?? '');

/** Whether the program is installed. For `describe.skipIf`; throws in CI when it is not. */
export const hasClient = (name: string): boolean => {
  const found = findProgram(name) !== null;
  if (!found && isCi()) throw new Error(`${name} is not installed (scripts/install-clients installs it)`);
  return found;
};

/** The program's path. Without it the running test fails in CI, and is skipped with a note elsewhere. */
export const needClient = (name: string): string => {
  if (!hasClient(name)) {
    const running = TestRunner.getCurrentTest();
    if (running === undefined) throw new Error(`needClient('${name}') outside a test: use hasClient with describe.skipIf`);
    running.context.skip(`${name} is not installed`);
  }
  return findProgram(name) ?? name;
};

/** Skips the running test unless root (loop devices, mounts, network namespaces); fails in CI. */
export const needRoot = (): void => {
  if (process.getuid?.() === 0) return;
  if (isCi()) throw new Error('this test needs root, and CI has to give it');
  TestRunner.getCurrentTest()?.context.skip('needs root');
};

export type RunOptions = {
  /** After this the program is killed and `run` rejects. Default 30 seconds. */
  readonly timeoutMs?: number;
  /** Written to the program's standard input, which then ends. */
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
};
export type RunResult = {
  /** Exit status; null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

/** Runs a program to its end. Rejects when it cannot be started or takes too long; any exit status is a result. */
export const run = (command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> =>
  new Promise((resolve, reject) => {
    const timeoutMs = options.timeoutMs ?? 30_000;
    const child = spawn(command, args, { cwd: options.cwd, env: { ...process.env, ...options.env }, stdio: 'pipe', detached: true });
    const output = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
    child.stdin.on('error', () => {
      // It ended without reading all of its input; its exit status tells.
    });
    child.stdin.end(options.input);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      // It leads a process group, so that what it started ends with it.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      if (late) reject(new Error(`${command} ${args.join(' ')} took more than ${timeoutMs} ms\n${output.stdout}${output.stderr}`));
      else resolve({ status, signal, ...output });
    });
  });
