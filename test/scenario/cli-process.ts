/**
 * The built command line as processes: a store, its engine in the foreground, and lines run beside it. What is started
 * here is ended here, by its process id.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type RunResult, run } from '../support/clients.ts';

export const MAIN: string = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

/** One line of the command line; words as they are. */
export const twinvol = (
  words: readonly string[],
  options: { readonly store?: string; readonly timeoutMs?: number; readonly input?: string } = {},
): Promise<RunResult> => {
  const { store, ...rest } = options;
  return run(process.execPath, [MAIN, ...words], { ...rest, env: { NO_COLOR: '1', TWINVOL_STORE: store ?? '' } });
};

export type Serving = AsyncDisposable & {
  readonly pid: number;
  /** What it printed until it was ready. */
  readonly banner: string;
  readonly line: (words: string) => Promise<RunResult>;
  readonly json: (words: string) => Promise<unknown>;
  /** Ends it with a signal; how it ended. */
  end(signal: NodeJS.Signals): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
};

const untilReady = (child: ChildProcess): Promise<string> => {
  return new Promise((resolve, reject) => {
    let [out, err] = ['', ''];
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      out += text;
      if (/^ready .*\n/m.test(out)) resolve(out);
    });
    child.once('exit', (code) => reject(new Error(`serve ended with ${code} before it was ready: ${out}${err}`)));
  });
};

/** `twinvol serve` on a store, ready. */
export const serving = async (store: string, words: readonly string[] = []): Promise<Serving> => {
  const child = spawn(process.execPath, [MAIN, 'serve', '--store', store, ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  exited.catch(() => {});
  const end: Serving['end'] = async (signal) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    const [code, by] = await exited;
    return { code, signal: by };
  };
  const banner = await untilReady(child).catch(async (error: unknown) => {
    await end('SIGKILL');
    throw error;
  });
  const line = (text: string): Promise<RunResult> => twinvol(text.split(' '), { store });
  return {
    pid: child.pid ?? 0,
    banner,
    line,
    json: async (text) => {
      const ran = await line(`${text} --json`);
      if (ran.status !== 0) throw new Error(`twinvol ${text} exited with ${ran.status}: ${ran.stderr}`);
      return JSON.parse(ran.stdout);
    },
    end,
    [Symbol.asyncDispose]: async () => {
      await end('SIGKILL');
    },
  };
};

/** An initialised store, and its engine. */
export const initialised = async (store: string, words: readonly string[] = []): Promise<void> => {
  const ran = await twinvol(['init', store, ...words]);
  if (ran.status !== 0) throw new Error(`init failed: ${ran.stderr}`);
};
