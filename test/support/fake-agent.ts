/**
 * A host's agent that says what a test wants it to say, over the real socket of a real device: the truth, nothing, too
 * late, twice, nonsense, or lies. It speaks the protocol by itself and shares no code with the real agent.
 */
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import type { HostFact } from '../../src/core/mount-facts.ts';
import type { Device } from '../../src/index.ts';

export const NOT_MOUNTED: HostFact = { kind: 'not-mounted' };
export const mountedAt = (mountPoint: string, connections: readonly string[] = []): HostFact => ({
  kind: 'mounted',
  device: '/dev/nbd0',
  mountPoint,
  fileSystem: 'ext4',
  access: 'rw',
  layers: [{ kind: 'nbd', name: '/dev/nbd0' }],
  namespace: null,
  connections,
});
export const openBy = (name: string): HostFact => ({
  kind: 'open',
  device: '/dev/nbd0',
  layers: [{ kind: 'nbd', name: '/dev/nbd0' }],
  processes: [{ name, pid: 42 }],
  connections: [],
});

export type Inquiry = { readonly id: string; readonly volumes: readonly number[] };
/** What it does with an inquiry: the facts that it gives for every volume asked about, or something else altogether. */
export type Behaviour = readonly HostFact[] | ((inquiry: Inquiry, agent: FakeAgent) => void | Promise<void>);

export const eventually = async (isSo: () => boolean | Promise<boolean>, what: string, ms = 10_000): Promise<void> => {
  const end = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

export class FakeAgent implements AsyncDisposable {
  readonly host: string;
  /** Inquiries that came, in order. */
  readonly inquiries: Inquiry[] = [];
  behaviour: Behaviour;
  isClosed = false;
  readonly #socket: Socket;
  #held = '';

  private constructor(host: string, socket: Socket, behaviour: Behaviour) {
    this.host = host;
    this.#socket = socket;
    this.behaviour = behaviour;
    socket.setEncoding('utf8').on('data', (text: string) => this.#take(text));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
  }

  /** Enrols the host, connects, and is welcome when this returns. */
  static async enrol(device: Device, host: string, behaviour: Behaviour = [NOT_MOUNTED]): Promise<FakeAgent> {
    const added = await device.engine.hostAdd({ name: host });
    if ('plan' in added) throw new Error('a plan was not asked for');
    return FakeAgent.connect(device, host, added.token, behaviour);
  }

  static async connect(device: Device, host: string, token: string, behaviour: Behaviour): Promise<FakeAgent> {
    const socket = connect({ path: device.agents?.unix ?? '' });
    const agent = new FakeAgent(host, socket, behaviour);
    agent.say({ type: 'hello', version: 1, host, token, pid: process.pid, isPrivileged: true });
    await eventually(async () => (await device.engine.hostShow(host)).agent !== null, `${host} is welcome`);
    return agent;
  }

  say(message: object | string): void {
    this.#socket.write(typeof message === 'string' ? message : `${JSON.stringify(message)}\n`);
  }

  answer({ id, volumes }: Inquiry, facts: readonly HostFact[]): void {
    this.say({ type: 'answer', id, findings: volumes.map((volume) => ({ volume, facts })) });
  }

  /** What a real one says by itself when something is mounted or unmounted. */
  report(volume: number, facts: readonly HostFact[]): void {
    this.say({ type: 'report', findings: [{ volume, facts }] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await eventually(() => this.isClosed, 'the agent is gone');
  }

  #take(text: string): void {
    const lines = `${this.#held}${text}`.split('\n');
    this.#held = lines.pop() ?? '';
    for (const line of lines) {
      const message = JSON.parse(line) as { type: string; id?: string; targets?: ReadonlyArray<{ volume: number }> };
      if (message.type === 'ping') this.say({ type: 'pong' });
      if (message.type !== 'inquiry') continue;
      const inquiry = { id: message.id ?? '', volumes: (message.targets ?? []).map(({ volume }) => volume) };
      this.inquiries.push(inquiry);
      const { behaviour } = this;
      if (typeof behaviour === 'function') void behaviour(inquiry, this);
      else this.answer(inquiry, behaviour);
    }
  }
}
