/**
 * Gives the space of a file's range back to the file system: fallocate(2) with FALLOC_FL_PUNCH_HOLE, which neither
 * Node nor fs-ext has, by way of util-linux's `fallocate` program.
 *
 * One shell lives as long as the puncher and runs the program for each line that it reads, so that the big Node
 * process is not forked for each hole. It answers one line for each, in order. The shell is in a session of its own (a
 * terminal's Ctrl-C must not end it before the engine has drained) and ends by itself when the engine is gone (its
 * standard input ends). A shell that dies is replaced, and what it had not answered is sent once more: punching twice
 * does no harm. It never keeps the process alive while nothing is asked.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { resolve } from 'node:path';
import { findProgram, programFolders } from './program.ts';

type Request = {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  attempts: number;
  readonly answer: (done: boolean) => void;
};

type Answer = 'done' | 'failed' | 'never';

const ATTEMPTS_MAX = 2;

/** `p` carries a last dot, because `read` cuts white space off the end of a line. */
const SCRIPT = `while read -r offset length p; do
  if text=$("$0" -p -o "$offset" -l "$length" -- "\${p%.}" 2>&1); then echo done
  else case $text in
    *"not supported"*|*nrecognized*|*"nvalid option"*) echo never;;
    *) echo failed;;
  esac; fi
done`;

const environment = (): NodeJS.ProcessEnv => ({ PATH: programFolders().join(':'), LC_ALL: 'C' });

export class HolePuncher {
  /** Looked for when it is first needed: most copies punch nothing. */
  #found: string | null | undefined;
  #shell: ChildProcess | null = null;
  #closed = false;
  #rest = '';
  /** Sent to the shell and not answered yet, oldest first. */
  readonly #waiting: Request[] = [];

  get #program(): string | null {
    if (this.#found === undefined) this.#found = process.platform === 'linux' ? findProgram('fallocate') : null;
    return this.#found;
  }

  /** `none` where there is no program, or once it has said that this file system cannot do it. */
  get method(): 'fallocate' | 'none' {
    return this.#program === null ? 'none' : 'fallocate';
  }

  /**
   * Makes `length` bytes at `offset` of the file a hole. Alignment is the caller's matter: the edges of an unaligned range
   * are written with zeros by the kernel. False: not possible, the range may have its old content, write zeros.
   */
  punch(path: string, offset: number, length: number): Promise<boolean> {
    if (this.#closed || this.#program === null || path.includes('\0') || !(length > 0)) return Promise.resolve(false);
    const absolute = resolve(path);
    if (absolute.includes('\n')) return this.#punchDirectly(this.#program, absolute, offset, length);
    return new Promise((answer) => this.#send({ path: absolute, offset, length, attempts: 0, answer }));
  }

  /** Answers what was asked, then ends the shell. Nothing more can be asked. */
  async close(): Promise<void> {
    this.#closed = true;
    // A shell that dies now is replaced for what it had not answered, and then ended in its turn.
    for (let shell = this.#shell; shell !== null; shell = this.#shell) {
      this.#keepAlive(shell, true);
      const ended = once(shell, 'close');
      shell.stdin?.end();
      await ended;
    }
  }

  /** A line cannot carry a line end, so such a path goes by an argument. */
  #punchDirectly(program: string, path: string, offset: number, length: number): Promise<boolean> {
    return new Promise((answer) => {
      execFile(program, ['-p', '-o', `${offset}`, '-l', `${length}`, '--', path], { env: environment(), cwd: '/' }, (error) =>
        answer(error === null),
      );
    });
  }

  #send(request: Request): void {
    if (this.#program === null || request.attempts >= ATTEMPTS_MAX) return request.answer(false);
    request.attempts += 1;
    this.#shell ??= this.#start(this.#program);
    if (this.#waiting.length === 0) this.#keepAlive(this.#shell, true);
    this.#waiting.push(request);
    this.#shell.stdin?.write(`${request.offset} ${request.length} ${request.path}.\n`);
  }

  #start(program: string): ChildProcess {
    const shell = spawn('/bin/sh', ['-c', SCRIPT, program], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: environment(),
      cwd: '/',
      detached: true,
    });
    this.#rest = '';
    shell.stdin?.on('error', () => {
      // The shell is dead; 'close' follows and does what is needed.
    });
    shell.stdout?.setEncoding('latin1').on('data', (text: string) => this.#receive(shell, text));
    shell.once('error', () => this.#lost(shell));
    shell.once('close', () => this.#lost(shell));
    this.#keepAlive(shell, false);
    return shell;
  }

  #receive(shell: ChildProcess, text: string): void {
    if (shell !== this.#shell) return;
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const request = this.#waiting.shift();
      const answer = line as Answer;
      if (answer === 'never') this.#found = null;
      request?.answer(answer === 'done');
    }
    if (this.#waiting.length === 0) this.#keepAlive(shell, false);
  }

  #lost(shell: ChildProcess): void {
    if (shell !== this.#shell) return;
    this.#shell = null;
    for (const request of this.#waiting.splice(0)) this.#send(request);
  }

  #keepAlive(shell: ChildProcess, wanted: boolean): void {
    const call = wanted ? 'ref' : 'unref';
    shell[call]();
    (shell.stdin as Socket | null)?.[call]();
    (shell.stdout as Socket | null)?.[call]();
  }
}
