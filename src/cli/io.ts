/**
 * What a command has of the outside world: two streams to write to, the environment, and perhaps a person to ask.
 * Given from outside, so that tests run commands without a process.
 */

import { on } from 'node:events';
import { userInfo } from 'node:os';
import { emitKeypressEvents } from 'node:readline';

export type CliStream = {
  write(text: string): void;
  readonly isTerminal: boolean;
  /** Width of the terminal; 80 where there is none. */
  readonly columns: number;
};

/** A key, as the terminal sends it. */
export type Key = 'up' | 'down' | 'enter' | 'cancel' | 'other';

export type CliIo = {
  readonly stdout: CliStream;
  readonly stderr: CliStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether a person can be asked. */
  readonly isInteractive: boolean;
  /** Asks on stderr; null when the terminal went away. Only where `isInteractive`. */
  ask(question: string): Promise<string | null>;
  /** The keys that are pressed from the call on, until the reader stops; it has to be read. Only where `isInteractive`. */
  keys(): AsyncIterable<Key>;
  /** Milliseconds since 1970. */
  nowMs(): number;
  /** Name of the user whose process this is. */
  userName(): string;
  /** Fires when the user interrupts (Ctrl-C) or the process is told to end. */
  readonly interrupted: AbortSignal;
};

/** Standard error of a process that still may ask; `write` after the reader has gone does nothing. */
const streamOf = (stream: NodeJS.WriteStream): CliStream => ({
  write: (text) => {
    if (stream.writable) stream.write(text);
  },
  get isTerminal() {
    return stream.isTTY;
  },
  get columns() {
    return stream.columns || 80;
  },
});

const askOnTerminal = async (question: string): Promise<string | null> => {
  const { createInterface } = await import('node:readline');
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  return new Promise((resolve) => {
    lines.once('close', () => {
      // Ctrl-C and Ctrl-D leave the cursor behind the question.
      if (process.stderr.writable) process.stderr.write('\n');
      resolve(null);
    });
    lines.question(question, (answer) => {
      resolve(answer);
      lines.removeAllListeners('close');
      lines.close();
    });
  });
};

const KEY_NAMES: Readonly<Record<string, Key>> = {
  up: 'up',
  down: 'down',
  k: 'up',
  j: 'down',
  return: 'enter',
  enter: 'enter',
  escape: 'cancel',
  q: 'cancel',
};

type KeyPress = [unknown, { readonly name?: string; readonly ctrl?: boolean }];

/** From the call on the terminal sends single keys, so that none is lost, and Ctrl-C is one of them. */
const keysOfTerminal = (): AsyncIterable<Key> => {
  const { stdin } = process;
  emitKeypressEvents(stdin);
  stdin.setRawMode(true);
  const presses = on(stdin, 'keypress', { close: ['end', 'close'] }) as AsyncIterable<KeyPress>;
  stdin.resume();
  return keysOf(presses);
};

async function* keysOf(presses: AsyncIterable<KeyPress>): AsyncGenerator<Key, void, undefined> {
  try {
    for await (const [, key] of presses) {
      const isInterrupt = key.ctrl === true && (key.name === 'c' || key.name === 'd');
      yield isInterrupt ? 'cancel' : (KEY_NAMES[key.name ?? ''] ?? 'other');
    }
  } finally {
    process.stdin.setRawMode(false);
    process.stdin.pause();
  }
}

/** A user without an entry in the system's list has a number only. */
const nameOfUser = (): string => {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? 'unknown'}`;
  }
};

/** The process's own streams. A reader that closes our output (`| head`) ends us without a word. */
export const processIo = (): CliIo => {
  const interrupt = new AbortController();
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
      throw error;
    });
  }
  return {
    stdout: streamOf(process.stdout),
    stderr: streamOf(process.stderr),
    env: process.env,
    isInteractive: process.stdin.isTTY && process.stderr.isTTY,
    ask: askOnTerminal,
    keys: keysOfTerminal,
    nowMs: () => Date.now(),
    userName: nameOfUser,
    get interrupted() {
      return listenForInterrupt(interrupt);
    },
  };
};

/** Installed on first use only: a command that does not look at it ends on Ctrl-C as every program does. */
const listenForInterrupt = (controller: AbortController): AbortSignal => {
  if (!listening.has(controller)) {
    listening.add(controller);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort(signal));
  }
  return controller.signal;
};
const listening = new WeakSet<AbortController>();
