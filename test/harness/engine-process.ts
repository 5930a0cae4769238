/**
 * The engine as users run it, `twinvol serve`, as a child that can be killed at any moment, with a control connection.
 * Only what was started here is ended here, by its process id.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ControlClient } from '../../src/control/client.ts';
import type { MethodName, MethodParams, MethodResult } from '../../src/control/method-table.ts';

const MAIN: string = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const START_MS_MAX = 60_000;
const LOG_CHARS_MAX = 64 * 1024;

export const requireBuild = (): void => {
  if (!existsSync(MAIN)) throw new Error('the engine is not built: npm run build');
};

export class EngineProcess {
  readonly store: string;
  /** NBD URI of the engine's socket, with EXPORT in the place of the name. */
  readonly startMs: number;
  readonly #child: ChildProcess;
  readonly #control: ControlClient;
  readonly #nbd: string;
  readonly #log: () => string;

  private constructor(store: string, child: ChildProcess, control: ControlClient, nbd: string, startMs: number, log: () => string) {
    this.store = store;
    this.#child = child;
    this.#control = control;
    this.#nbd = nbd;
    this.startMs = startMs;
    this.#log = log;
  }

  /** @param words more options of `serve` */
  static async start(store: string, words: readonly string[] = []): Promise<EngineProcess> {
    const startedMs = performance.now();
    const args = [MAIN, 'serve', '--store', store, '--log-level', 'info', '--json', ...words];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TWINVOL_STORE: '' } });
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-LOG_CHARS_MAX);
    });
    try {
      const ready = await readyLine(child, () => log);
      const control = await ControlClient.connect(ready.control);
      return new EngineProcess(store, child, control, ready.nbd[0] ?? '', performance.now() - startedMs, () => log);
    } catch (error) {
      await end(child, 'SIGKILL');
      throw error;
    }
  }

  /** The last lines of its log. */
  get log(): string {
    return this.#log();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  uri(volume: string): string {
    const uri = new URL(this.#nbd);
    uri.pathname = `/${encodeURIComponent(volume)}`;
    return uri.href;
  }

  call<Name extends MethodName>(method: Name, params: MethodParams<Name>): Promise<MethodResult<Name>> {
    return this.#control.call(method, params);
  }

  async kill(): Promise<void> {
    await end(this.#child, 'SIGKILL');
    await this.#control.close();
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    await this.#control.close();
    await end(this.#child, 'SIGTERM');
  }
}

const end = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
};

const readyLine = (child: ChildProcess, log: () => string): Promise<{ readonly control: string; readonly nbd: readonly string[] }> =>
  new Promise((resolve, reject) => {
    let text = '';
    const timer = setTimeout(() => reject(new Error(`the engine was not ready after ${START_MS_MAX} ms: ${log()}`)), START_MS_MAX);
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const lineEnd = text.indexOf('\n');
      if (lineEnd < 0) return;
      clearTimeout(timer);
      resolve((JSON.parse(text.slice(0, lineEnd)) as { ready: { control: string; nbd: string[] } }).ready);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      reject(new Error(`the engine ended with ${signal ?? code} before it was ready: ${log()}`));
    });
  });
