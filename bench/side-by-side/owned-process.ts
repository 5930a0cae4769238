/**
 * Programs that the benchmark starts. Each leads a process group of its own, has a time limit or an end of its scope, and
 * is ended by its process id; nothing else is ever signalled. On Ctrl-C all of them end before the benchmark does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';

const END_MS_MAX = 10_000;
const OUTPUT_CHARS_MAX = 64 * 1024 * 1024;

/** Where a program may run: the numbers of processors, or null for all. */
export type Cpus = readonly number[] | null;

export type ProgramOptions = {
  readonly cpus?: Cpus;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
};

/** What still runs. */
const alive = new Set<{ end(): Promise<void> }>();

const commandOn = (cpus: Cpus | undefined, command: string, args: readonly string[]): readonly [string, readonly string[]] =>
  cpus === null || cpus === undefined ? [command, args] : ['taskset', ['-c', cpus.join(','), command, ...args]];

export class OwnedProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #exited: Promise<unknown>;
  #output = '';
  #isOver = false;

  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    const [program, words] = commandOn(options.cpus, command, args);
    this.#name = command;
    this.#child = spawn(program, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
    });
    const keep = (text: string): void => {
      if (this.#output.length < OUTPUT_CHARS_MAX) this.#output += text;
    };
    this.#child.stdout?.setEncoding('utf8').on('data', keep);
    this.#child.stderr?.setEncoding('utf8').on('data', keep);
    this.#exited = once(this.#child, 'close').catch(() => undefined);
    this.#child.once('error', (error) => keep(`${error.message}\n`));
    void this.#exited.then(() => {
      this.#isOver = true;
      alive.delete(this);
    });
    alive.add(this);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What it wrote to its standard output and standard error. */
  get output(): string {
    return this.#output;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Waits until `isReady` says so. @throws Error when the program ends before, or it takes too long */
  async until(isReady: (output: string) => boolean | Promise<boolean>, what: string, limitMs: number = END_MS_MAX): Promise<void> {
    const giveUpMs = performance.now() + limitMs;
    while (!(await isReady(this.#output))) {
      if (this.#isOver) throw new Error(`${this.#name} ended before it ${what}:\n${this.#output}`);
      if (performance.now() > giveUpMs) throw new Error(`${this.#name} has not ${what} within ${limitMs} ms:\n${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Waits for its end. @returns its exit status, 128 and the signal where one ended it */
  async status(limitMs: number): Promise<number> {
    const timer = setTimeout(() => this.signal('SIGKILL'), limitMs);
    await this.#exited;
    clearTimeout(timer);
    const { exitCode, signalCode } = this.#child;
    return exitCode ?? 128 + (signalCode === null ? 0 : constants.signals[signalCode]);
  }

  /** To it and what it started. */
  signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#isOver) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // It has just ended.
    }
  }

  /** Asks it to end, and insists after a while. */
  async end(): Promise<void> {
    this.signal('SIGTERM');
    await this.status(END_MS_MAX);
    // What it started may have been left alone.
    this.signal('SIGKILL');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

/** A program that puts itself into the background, known by the process id in the file that it writes. */
export class Daemon implements AsyncDisposable {
  readonly #pid: number;

  private constructor(pid: number) {
    this.#pid = pid;
    alive.add(this);
  }

  static async start(command: string, args: readonly string[], pidFile: string, options: ProgramOptions = {}): Promise<Daemon> {
    await runProgram(command, args, END_MS_MAX, options);
    const giveUpMs = performance.now() + END_MS_MAX;
    while (true) {
      const pid = existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : 0;
      if (pid > 1) return new Daemon(pid);
      if (performance.now() > giveUpMs) throw new Error(`${command} wrote no process id to ${pidFile}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async end(): Promise<void> {
    alive.delete(this);
    const giveUpMs = performance.now() + END_MS_MAX;
    let signal: NodeJS.Signals = 'SIGTERM';
    while (this.#signal(signal)) {
      if (performance.now() > giveUpMs) signal = 'SIGKILL';
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** False when there is no such process any more. */
  #signal(signal: NodeJS.Signals): boolean {
    try {
      process.kill(this.#pid, signal);
      return true;
    } catch {
      return false;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

export type Ran = { readonly status: number; readonly output: string; readonly elapsedMs: number };

/** Runs a program to its end. @throws Error when its exit status is not 0, or it takes too long */
export const runProgram = async (command: string, args: readonly string[], limitMs: number, options: ProgramOptions = {}): Promise<Ran> => {
  const startMs = performance.now();
  const program = new OwnedProcess(command, args, options);
  const status = await program.status(limitMs);
  const elapsedMs = performance.now() - startMs;
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${status} after ${Math.round(elapsedMs)} ms:\n${program.output}`);
  return { status, output: program.output, elapsedMs };
};

/** Ends everything that is still running; for the end of the benchmark, however it comes. */
export const endAll = async (): Promise<void> => {
  await Promise.all([...alive].map((program) => program.end()));
};
