/**
 * twinvol's engine as a user runs it: `twinvol init`, `twinvol serve` in a process of its own, everything at its default,
 * driven over its control socket.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlClient } from '../../src/control/client.ts';
import type { PairState } from '../../src/core/rows.ts';
import type { PairView, VolumeView } from '../../src/core/views.ts';
import { type Cpus, OwnedProcess, runProgram } from './owned-process.ts';

const START_MS_MAX = 30_000;
const COPY_MS_MAX = 300_000;
const LINES_SHOWN = 5;

export const ENGINE_MAIN: string = join(import.meta.dirname, '../../dist/src/cli/main.js');

export type EngineOptions = {
  readonly cpus: Cpus;
  /** The built command line; another build can be measured by naming its own. */
  readonly main: string;
  readonly env?: Readonly<Record<string, string>>;
};

export class EngineProcess implements AsyncDisposable {
  readonly store: string;
  readonly client: ControlClient;
  readonly #process: OwnedProcess;

  private constructor(store: string, client: ControlClient, owned: OwnedProcess) {
    this.store = store;
    this.client = client;
    this.#process = owned;
  }

  static async start(store: string, { cpus, main, env = {} }: EngineOptions): Promise<EngineProcess> {
    await runProgram(process.execPath, [main, 'init', store, '--pv-size', '256G'], START_MS_MAX);
    const owned = new OwnedProcess(process.execPath, [main, 'serve', '--store', store], { cpus, env });
    try {
      await owned.until((output) => /^ready /m.test(output), 'become ready', START_MS_MAX);
      return new EngineProcess(store, await ControlClient.connect(join(store, 'control.sock')), owned);
    } catch (error) {
      await owned.end();
      throw error;
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  uri(volume: string): string {
    return `nbd+unix:///${volume}?socket=${join(this.store, 'nbd.sock')}`;
  }

  async volume(name: string, sizeBytes: number, attribute: 'normal' | 'secondary' = 'normal'): Promise<string> {
    await this.client.call('volume.create', { name, sizeBytes, attribute });
    return this.uri(name);
  }

  async remove(name: string): Promise<void> {
    await this.client.call('volume.delete', { volume: name });
  }

  /** Fills a volume from a file, through NBD. */
  async fill(name: string, file: string, limitMs: number = COPY_MS_MAX): Promise<void> {
    await runProgram('nbdcopy', [file, this.uri(name)], limitMs);
  }

  async pair(primary: string, secondary: string, pace?: number): Promise<void> {
    await this.client.call('pair.create', { primary, secondary, ...(pace === undefined ? {} : { pace }) });
  }

  async until(primary: string, secondary: string, state: PairState, timeoutMs: number = COPY_MS_MAX): Promise<void> {
    await this.client.call('pair.wait', { primary, secondary, state, timeoutMs });
  }

  async split(primary: string, secondary: string): Promise<void> {
    await this.client.call('pair.split', { primary, secondary });
  }

  async resync(primary: string, secondary: string): Promise<void> {
    await this.client.call('pair.resync', { primary, secondary });
  }

  async release(primary: string, secondary: string): Promise<void> {
    await this.client.call('pair.release', { primary, secondary });
  }

  async pairView(primary: string): Promise<PairView | undefined> {
    return (await this.client.call('pair.status', { primary }))[0];
  }

  /** @throws Error when the volumes of the pair differ */
  async checkEqual(primary: string, secondary: string): Promise<void> {
    const { differingBytes, checkedBytes } = await this.client.call('pair.verify', { primary, secondary });
    if (differingBytes !== 0) throw new Error(`${primary} and ${secondary} differ in ${differingBytes} of ${checkedBytes} bytes`);
  }

  async volumes(): Promise<readonly VolumeView[]> {
    return this.client.call('volume.list', {});
  }

  /** As the kernel counts them. */
  async figures(): Promise<{ readonly residentBytes: number; readonly threads: number }> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
    return { residentBytes: field('VmRSS') * 1024, threads: field('Threads') };
  }

  /** Time that its threads had a processor, in seconds: what it did, whatever else the machine had to do. */
  async cpuSeconds(): Promise<number> {
    const stat = await readFile(`/proc/${this.pid}/stat`, 'utf8');
    // Behind the name, which may hold spaces: fields 14 and 15, in clock ticks, of which Linux always shows 100 a second.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  /** Waits until the space of deleted volumes is given back, so that it does not disturb what comes next. */
  async settle(): Promise<void> {
    const giveUpMs = performance.now() + COPY_MS_MAX;
    while ((await this.client.call('device.status', {})).store.regions.scrubbing > 0) {
      if (performance.now() > giveUpMs) throw new Error('the engine does not get its deleted regions cleared');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
    await this.#process.end();
    // The engine logs warnings and errors only: they belong beside the figures.
    const said = this.#process.output.split('\n').filter((line) => line.startsWith('{'));
    if (said.length > 0) console.log(['the engine said:', ...said.slice(-LINES_SHOWN)].join('\n'));
  }
}
