/**
 * One control connection of the agent, from hello to its end: answers inquiries, reports mounts, answers pings.
 */
import type { Socket } from 'node:net';
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';
import { MiB } from '../core/units.ts';
import type { Clock, Timer } from '../platform/clock.ts';
import type { HostTree } from '../platform/host-tree.ts';
import { LineChannel } from '../platform/line-channel.ts';
import type { AgentInquiry, AgentWelcome, FromAgent } from '../wire/agent-messages.ts';
import { AGENT_LINE_BYTES_MAX, AGENT_PROTOCOL_VERSION, encodeAgentMessage, parseToAgent } from '../wire/agent-messages.ts';
import { LineDecoder } from '../wire/line-decoder.ts';
import type { AgentLog } from './agent-log.ts';
import type { WatchTimes } from './mount-watch.ts';
import { MountWatch } from './mount-watch.ts';

const UNSENT_BYTES_MAX = 16 * MiB;
const WELCOME_MS_MAX = 5000;
/** The device is taken for dead after so many pings that did not come. */
const PINGS_MISSED_MAX = 3;

export type SessionEnd = {
  readonly reason: string;
  /** The device had taken the agent in. */
  readonly wasWelcome: boolean;
  /** The device refused it: another try soon will hardly go better. */
  readonly wasRefused: boolean;
};

export type SessionContext = {
  readonly host: string;
  readonly token: string | null;
  readonly isPrivileged: boolean;
  readonly pid: number;
  readonly tree: HostTree;
  readonly clock: Clock;
  readonly times: WatchTimes;
  readonly log: AgentLog;
  look(targets: readonly InquiryTarget[], deviceAddresses: readonly string[]): Promise<readonly VolumeFacts[]>;
};

export class AgentSession {
  readonly #context: SessionContext;
  readonly #channel: LineChannel;
  readonly #watch: MountWatch;
  readonly #deviceAddresses: readonly string[];
  readonly #ended: (end: SessionEnd) => void;
  #timer: Timer;
  #welcome: AgentWelcome | null = null;
  #wasRefused = false;

  /** The socket is connected and belongs to the session from here on. `ended` is called once. */
  constructor(socket: Socket, context: SessionContext, ended: (end: SessionEnd) => void) {
    this.#context = context;
    this.#ended = ended;
    this.#deviceAddresses = socket.remoteAddress === undefined ? [] : [socket.remoteAddress.replace(/^::ffff:/, '')];
    this.#watch = new MountWatch(context.tree, context.clock, context.times, {
      look: (targets) => context.look(targets, this.#deviceAddresses),
      changed: (findings) => this.#report(findings),
      failed: (error) => context.log.warn({ err: error }, 'could not look at the mounts of this host'),
    });
    this.#channel = new LineChannel(socket, new LineDecoder(AGENT_LINE_BYTES_MAX), UNSENT_BYTES_MAX, {
      line: (line) => this.#take(line),
      closed: (reason) => this.#close(reason),
    });
    this.#timer = context.clock.after(WELCOME_MS_MAX, () => this.end('the device did not welcome the agent in time'));
    const { host, token, pid, isPrivileged } = context;
    this.#send({ type: 'hello', version: AGENT_PROTOCOL_VERSION, host, pid, isPrivileged, ...(token === null ? {} : { token }) });
  }

  end(reason: string): void {
    this.#channel.close(reason);
  }

  /** False for what is too long to be said. */
  #send(message: FromAgent): boolean {
    const line = encodeAgentMessage(message);
    if (line !== null) this.#channel.send(line);
    return line !== null;
  }

  #report(findings: readonly VolumeFacts[]): void {
    if (this.#send({ type: 'report', findings })) return;
    this.#context.log.warn({ volumes: findings.length }, 'what there is to report of the mounts of this host is too long for a message');
  }

  #close(reason: string): void {
    this.#timer.cancel();
    this.#watch.stop();
    this.#ended({ reason, wasWelcome: this.#welcome !== null, wasRefused: this.#wasRefused });
  }

  #expectPings(): void {
    this.#timer.cancel();
    const silenceMs = (this.#welcome?.pingMs ?? WELCOME_MS_MAX) * PINGS_MISSED_MAX;
    this.#timer = this.#context.clock.after(silenceMs, () => this.end('nothing was heard of the device'));
  }

  #take(line: string): void {
    const message = parseToAgent(line);
    if (message.type === 'malformed') return this.end(`the device sent what is no message: ${message.text}`);
    if (this.#welcome !== null) this.#expectPings();
    switch (message.type) {
      case 'welcome':
        this.#welcome = message;
        this.#expectPings();
        this.#context.log.info({ host: message.host, watched: message.watch.length }, 'connected to the device');
        return this.#watch.watch(message.watch);
      case 'refused':
        this.#wasRefused = true;
        return this.end(`the device refused the agent: ${message.text}`);
      case 'inquiry':
        return void this.#answer(message);
      case 'watch':
        return this.#watch.watch(message.targets);
      case 'ping':
        this.#send({ type: 'pong' });
        return;
      case 'skipped':
        return;
    }
  }

  async #answer(inquiry: AgentInquiry): Promise<void> {
    const { id, targets } = inquiry;
    try {
      const findings = await this.#context.look(targets, this.#deviceAddresses);
      if (!this.#send({ type: 'answer', id, findings })) throw new Error('what it has to say is too long for a message');
      this.#context.log.info({ inquiry: id, volumes: targets.map((target) => target.name) }, 'answered an inquiry');
    } catch (error) {
      this.#context.log.warn({ err: error, inquiry: id }, 'could not answer an inquiry');
      this.#send({ type: 'failed', id, text: error instanceof Error ? error.message.slice(0, 1000) : 'it failed' });
    }
  }
}
