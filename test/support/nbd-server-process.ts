/**
 * Starts the data plane in a process of its own (nbd-server-main.ts) and asks it things.
 *
 *     await using server = await startNbdServer({ volumes: [{ name: 'v0', capacityBytes: 64 * MiB }] });
 *     server.uri('v0')
 */
import { fork } from 'node:child_process';
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DataPlane } from '../../src/data/plane-api.ts';
import type { ServerAnswer, ServerConfig } from './nbd-server-main.ts';

export type NbdServerOptions = Omit<ServerConfig, 'directory'> & {
  /** False: without the native addon, on its stand-ins. */
  readonly native?: boolean;
  readonly env?: Readonly<Record<string, string>>;
};

/** What a process holds; all of it must be back where it was when nobody is connected any more. */
export type ProcessFigures = {
  readonly descriptors: number;
  readonly sockets: number;
  readonly threads: number;
  readonly residentBytes: number;
};

export type ServerEvent = { readonly name: string; readonly detail: Record<string, unknown> };

/** Both ways in which a server can be built; tests that concern sockets run on either. */
export const BOTH_KINDS = [
  { kind: 'lanes on handed-over descriptors', native: true },
  { kind: 'one listening lane (no native addon)', native: false },
] as const;

const START_MS_MAX = 20_000;
const STOP_MS_MAX = 15_000;

const readyWith = (child: ReturnType<typeof fork>): Promise<readonly string[]> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the test server did not start')), START_MS_MAX);
    child.once('exit', (status) => reject(new Error(`the test server ended with status ${status}`)));
    child.on('message', (message: ServerAnswer) => {
      if (message.type !== 'ready') return;
      clearTimeout(timer);
      resolve(message.uris);
    });
  });

/** Descriptors, threads and resident memory of a process, as the kernel counts them. */
export const figuresOf = async (pid: number): Promise<ProcessFigures> => {
  const names = await readdir(`/proc/${pid}/fd`);
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
  return {
    descriptors: targets.filter((target) => target !== '').length,
    sockets: targets.filter((target) => target.startsWith('socket:')).length,
    threads: field('Threads'),
    residentBytes: field('VmRSS') * 1024,
  };
};

export class NbdServerProcess {
  readonly directory: string;
  readonly socketPath: string;
  /** 0 without TCP. */
  readonly tcpPort: number;
  readonly events: ServerEvent[] = [];
  readonly #child: ReturnType<typeof fork>;
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #tls: boolean;
  #call = 0;
  #hasExited = false;

  constructor(child: ReturnType<typeof fork>, directory: string, uris: readonly string[], tls: boolean) {
    this.#child = child;
    this.#tls = tls;
    this.directory = directory;
    this.socketPath = join(directory, 'nbd.sock');
    const tcp = uris.find((uri) => !uri.includes('+unix:'));
    this.tcpPort = tcp === undefined ? 0 : Number(new URL(tcp).port);
    child.on('message', (message: ServerAnswer) => this.#onMessage(message));
    child.once('exit', (status, signal) => {
      this.#hasExited = true;
      for (const { reject } of this.#waiting.values()) reject(new Error(`the test server ended: ${signal ?? status}`));
      this.#waiting.clear();
    });
  }

  #onMessage(message: ServerAnswer): void {
    if (message.type === 'event') this.events.push({ name: message.name, detail: message.detail as Record<string, unknown> });
    if (message.type !== 'answer') return;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(new Error(message.error));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get hasExited(): boolean {
    return this.#hasExited;
  }

  /** The volume over the unix socket, as an NBD URI. */
  uri(volume: string): string {
    return `nbd+unix:///${encodeURIComponent(volume)}?socket=${this.socketPath}`;
  }

  /** The volume over TCP: `nbds://` where the server has a certificate. */
  tcpUri(volume: string): string {
    return `${this.#tls ? 'nbds' : 'nbd'}://127.0.0.1:${this.tcpPort}/${encodeURIComponent(volume)}`;
  }

  /** Calls a method of the server's `DataPlane`. Arguments and result go as JSON. */
  call<R = unknown>(method: keyof DataPlane | 'collectGarbage', ...args: readonly unknown[]): Promise<R>;
  call(method: string, ...args: readonly unknown[]): Promise<unknown> {
    if (this.#hasExited) return Promise.reject(new Error('the test server has ended'));
    this.#call += 1;
    const id = this.#call;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.send({ id, method, args });
    });
  }

  figures(): Promise<ProcessFigures> {
    return figuresOf(this.pid);
  }

  /** Resolves when `holds` says so of the figures; rejects with the last ones after the deadline. */
  async settled(holds: (figures: ProcessFigures) => boolean, deadlineMs: number): Promise<ProcessFigures> {
    const until = Date.now() + deadlineMs;
    for (;;) {
      const figures = await this.figures();
      if (holds(figures)) return figures;
      if (Date.now() > until) throw new Error(`the server did not come to rest: ${JSON.stringify(figures)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasExited) {
      const gone = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX);
      if (this.#child.connected) this.#child.disconnect();
      await gone;
      clearTimeout(timer);
    }
    await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

export const startNbdServer = async (options: NbdServerOptions): Promise<NbdServerProcess> => {
  const { native = true, env = {}, ...config } = options;
  const directory = await mkdtemp(join(tmpdir(), 'tv-'));
  const child = fork(fileURLToPath(new URL('nbd-server-main.ts', import.meta.url)), [], {
    execArgv: ['--expose-gc', '--import', 'tsx'],
    env: { ...process.env, ...(native ? {} : { TWINVOL_NATIVE: 'off' }), ...env },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  child.send({ ...config, directory } satisfies ServerConfig);
  try {
    return new NbdServerProcess(child, directory, await readyWith(child), config.tls !== undefined);
  } catch (error) {
    child.kill('SIGKILL');
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
};
