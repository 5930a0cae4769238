/**
 * The command line without a process: runs one line against a real control socket whose engine is scripted, with
 * streams that are collected, answers of an operator that are given beforehand, and keys.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { CliIo, Key } from '../../../src/cli/io.ts';
import { run } from '../../../src/cli/run.ts';
import { ControlServer } from '../../../src/control/server.ts';
import type { Engine } from '../../../src/engine/api.ts';
import { scriptedEngine } from '../control/scripted-engine.ts';

export type Ran = { readonly exit: number; readonly out: string; readonly err: string; readonly asked: readonly string[] };
export type Person = {
  /** What the operator answers, in order; null: the terminal is gone. Giving this makes the line interactive. */
  readonly answers?: ReadonlyArray<string | null>;
  readonly keys?: readonly Key[];
  readonly isTerminal?: boolean;
  readonly columns?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly interrupted?: AbortSignal;
};

export type Device = { readonly store: string; readonly line: (words: string, person?: Person) => Promise<Ran> };

/** One line; words are cut at blanks, and `'...'` keeps blanks together. */
export const runLine = async (words: string, person: Person = {}, store?: string): Promise<Ran> => {
  let [out, err] = ['', ''];
  const asked: string[] = [];
  const answers = [...(person.answers ?? [])];
  const stream = (write: (text: string) => void) => ({ write, isTerminal: person.isTerminal === true, columns: person.columns ?? 120 });
  const io: CliIo = {
    stdout: stream((text) => {
      out += text;
    }),
    stderr: stream((text) => {
      err += text;
    }),
    env: { ...(store === undefined ? {} : { TWINVOL_STORE: store }), ...person.env },
    isInteractive: person.answers !== undefined || person.keys !== undefined,
    ask: async (question) => {
      asked.push(question);
      return answers.shift() ?? null;
    },
    keys: async function* () {
      yield* person.keys ?? [];
    },
    nowMs: () => Date.UTC(2024, 4, 1, 13),
    userName: () => 'op',
    interrupted: person.interrupted ?? new AbortController().signal,
  };
  const argv = [...words.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
  const exit = await run(argv, io);
  return { exit, out, err, asked };
};

/** A control socket in a directory of its own, with the scripted engine behind it. */
export const device = async (script: Partial<Engine>): Promise<Device> => {
  const store = mkdtempSync(join(tmpdir(), 'twinvol-cli-'));
  const server = new ControlServer(scriptedEngine(script), join(store, 'control.sock'));
  await server.listen();
  onTestFinished(async () => {
    await server.close();
    rmSync(store, { recursive: true, force: true });
  });
  return { store, line: (words, person) => runLine(words, person, store) };
};
