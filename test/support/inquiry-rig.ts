/** The device's side of the inquiry on a unix socket, and agents for it: real ones on captured hosts, and one that says what a test wants. */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import type { AgentControl } from '../../src/agent/agent.ts';
import { runAgent } from '../../src/agent/agent.ts';
import { SILENT_LOG } from '../../src/control/control-log.ts';
import { InquiryService } from '../../src/control/inquiry-service.ts';
import type { HostAnswer, InquiryTarget } from '../../src/core/mount-facts.ts';
import type { HostRow } from '../../src/core/rows.ts';
import { connectUnix } from '../../src/platform/unix-socket.ts';
import { capturedHost } from './captured-host.ts';
import { temporaryDirectory } from './temporary.ts';

export const TARGET: InquiryTarget = { volume: 1, name: 'vol1', uris: ['nbd+unix:///vol1?socket=/run/twinvol/nbd.sock'] };

export const rowOf = (name: string): HostRow => ({
  name,
  tokenSha256: createHash('sha256').update(`token-${name}`).digest('hex'),
  grants: { '1': 'rw' },
  createdAtMs: 0,
});

export const eventually = async (isSo: () => boolean, ms = 5000): Promise<void> => {
  const end = performance.now() + ms;
  while (!isSo()) {
    if (performance.now() > end) throw new Error('it did not come about in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

export type Device = AsyncDisposable & {
  readonly service: InquiryService;
  readonly socket: string;
  hosts: HostRow[];
  watch: readonly InquiryTarget[];
  readonly root: string;
};

export const startDevice = async (names: readonly string[], pingMs = 10_000): Promise<Device> => {
  const temporary = await temporaryDirectory();
  const device = { hosts: names.map(rowOf), watch: [TARGET] as readonly InquiryTarget[] };
  const service = new InquiryService({ hosts: () => device.hosts, watchOf: () => device.watch, log: SILENT_LOG, pingMs });
  const socket = temporary.path('agents.sock');
  await service.listenUnix(socket);
  const dispose = async (): Promise<void> => {
    await service.close();
    await temporary[Symbol.asyncDispose]();
  };
  return Object.assign(device, { service, socket, root: temporary.root, [Symbol.asyncDispose]: dispose });
};

type RunningAgent = AsyncDisposable & { stop(): Promise<void> };

export const startAgent = async (
  host: string,
  control: AgentControl,
  captures: readonly string[],
  token: string | null = `token-${host}`,
): Promise<RunningAgent> => {
  const captured = await capturedHost(captures);
  const end = new AbortController();
  const run = runAgent(
    {
      control,
      host,
      ...(token === null ? {} : { token }),
      log: SILENT_LOG,
      probe: captured.probe,
      times: { compareMs: 20, lookMs: 60_000 },
      retry: { firstMs: 10, lastMs: 50 },
    },
    end.signal,
  );
  const stop = async (): Promise<void> => {
    end.abort();
    await run;
    captured[Symbol.dispose]();
  };
  return { stop, [Symbol.asyncDispose]: stop };
};

export const unix = (device: Device): AgentControl => ({ kind: 'unix', path: device.socket });
export const asked = (...hosts: string[]) => ({ targets: [TARGET], asked: hosts.map((host) => ({ host, volumes: [1] })) });
export const shortly = (answer: HostAnswer | undefined): string => {
  if (answer === undefined) return 'none';
  return answer.outcome === 'answered'
    ? `${answer.host} ${answer.facts.map((fact) => fact.kind).join('+')}`
    : `${answer.host} ${answer.reason}`;
};

/** An agent that says what the test wants. */
export class FakeAgent {
  readonly #socket: Socket;
  readonly lines: string[] = [];
  isClosed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    let held = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      const parts = `${held}${text}`.split('\n');
      held = parts.pop() ?? '';
      this.lines.push(...parts);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
    socket.on('end', () => {
      this.isClosed = true;
    });
  }

  static async connect(device: Device, host: string | null): Promise<FakeAgent> {
    const agent = new FakeAgent(await connectUnix(device.socket));
    if (host === null) return agent;
    agent.say({ type: 'hello', version: 1, host, token: `token-${host}`, pid: 1, isPrivileged: true });
    await eventually(() => device.service.agents().some((view) => view.host === host) && agent.lines.length > 0);
    return agent;
  }

  say(message: object | string): void {
    this.#socket.write(typeof message === 'string' ? message : `${JSON.stringify(message)}\n`);
  }

  async inquiryId(): Promise<string> {
    await eventually(() => this.lines.some((line) => line.includes('"inquiry"')));
    const line = this.lines.findLast((text) => text.includes('"inquiry"')) ?? '{}';
    return (JSON.parse(line) as { id: string }).id;
  }

  end(): void {
    this.#socket.destroy();
  }
}

export const facts = (...kinds: object[]) => [{ volume: 1, facts: kinds }];
export const NOT_MOUNTED = { kind: 'not-mounted' };
