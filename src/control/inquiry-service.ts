/**
 * The device's end of the mount inquiry: takes the connections of the hosts' agents, asks them, and keeps the mount table
 * (specification 6, step 2).
 *
 * It only asks and listens; what the answers mean is decided by the pure verdict. One connection for each host: a newer
 * one takes the older one's place, because an agent that came back is the one that can answer. Connections that have not
 * proved who they are count against a small limit of their own, so strangers cannot keep hosts out.
 */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { AgentView, MountTableRow } from '../core/host-views.ts';
import type { Asked, Round, RoundEvent } from '../core/inquiry-round.ts';
import { advanceRound, isRoundDone, openRound, roundAnswers } from '../core/inquiry-round.ts';
import type { HostAnswer, InquiryTarget, NoAnswerReason } from '../core/mount-facts.ts';
import type { HostRow } from '../core/rows.ts';
import type { Clock } from '../platform/clock.ts';
import { SystemClock } from '../platform/clock.ts';
import type { PeerCertificate, TlsIdentity } from '../platform/mutual-tls.ts';
import { listenMutualTls } from '../platform/mutual-tls.ts';
import { listenPrivately } from '../platform/unix-socket.ts';
import type { FromAgent } from '../wire/agent-messages.ts';
import { targetsForMessage } from '../wire/agent-messages.ts';
import type { AgentConnectionOwner, AgentIdentity } from './agent-connection.ts';
import { AgentConnection } from './agent-connection.ts';
import { AgentRivals } from './agent-rivals.ts';
import type { ControlLog } from './control-log.ts';
import type { MountChange } from './mount-table.ts';
import { MountTable } from './mount-table.ts';

export const INQUIRY_DEADLINE_MS_DEFAULT: number = 3000;
const PING_MS_DEFAULT = 10_000;
const STRANGERS_MAX = 128;
const CONNECTIONS_MAX = 8192;
const LOOPBACK_URI = /^nbds?:\/\/(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])[:/]/i;

export type InquiryServiceOptions = {
  /** The hosts as the tables have them now. */
  readonly hosts: () => readonly HostRow[];
  /** The volumes of which a host reports mounts as they happen: those that it can reach. */
  readonly watchOf: (host: string) => readonly InquiryTarget[];
  readonly log: ControlLog;
  readonly clock?: Clock;
  readonly pingMs?: number;
};

export type AskInput = {
  readonly targets: readonly InquiryTarget[];
  /** Which hosts about which of the targets. */
  readonly asked: readonly Asked[];
  readonly deadlineMs?: number;
};

export type InquiryServiceEvents = {
  connected: [AgentView];
  disconnected: [host: string, reason: string];
  refused: [peer: string, host: string | null, reason: string];
  /** Two agents of the host, with these process ids, take each other's place. */
  contested: [host: string, pids: readonly number[]];
  mounts: [MountChange];
};

type OpenInquiry = { round: Round; readonly startedMs: number; readonly done: () => void };

export class InquiryService extends EventEmitter<InquiryServiceEvents> {
  readonly #options: InquiryServiceOptions;
  readonly #clock: Clock;
  readonly #owner: AgentConnectionOwner;
  readonly #listeners: { close(): Promise<void> }[] = [];
  readonly #connections = new Set<AgentConnection>();
  readonly #agents = new Map<
    string,
    { readonly connection: AgentConnection; readonly view: AgentView; watched: readonly InquiryTarget[] }
  >();
  readonly #inquiries = new Map<string, OpenInquiry>();
  readonly #table = new MountTable();
  readonly #rivals = new AgentRivals();
  /** As which enrolment a host said what the table has of it. */
  readonly #saidBy = new Map<string, string>();
  /** What `#fromAfar` made of a list. */
  readonly #afar = new WeakMap<readonly InquiryTarget[], readonly InquiryTarget[]>();
  /** What of a list is watched. */
  readonly #watched = new WeakMap<readonly InquiryTarget[], readonly InquiryTarget[]>();
  #isClosed = false;

  constructor(options: InquiryServiceOptions) {
    super();
    this.#options = options;
    this.#clock = options.clock ?? new SystemClock();
    this.#owner = {
      clock: this.#clock,
      pingMs: options.pingMs ?? PING_MS_DEFAULT,
      hostRow: (name) => options.hosts().find((row) => row.name === name) ?? null,
      watchOf: (host, isLocal) => this.#watchOf(host, isLocal),
      welcomed: (connection, identity) => this.#welcomed(connection, identity),
      message: (connection, message) => this.#message(connection, message),
      refused: (peer, host, reason) => this.#refused(peer, host, reason),
      closed: (connection, reason) => this.#closed(connection, reason),
    };
  }

  /**
   * Takes agents on a unix socket of mode 0600.
   * @throws TwinvolError `STORE_IO`, `NOT_SUPPORTED`
   */
  async listenUnix(path: string): Promise<void> {
    const server = await listenPrivately(path, (socket) => this.#accept(socket, 'unix', null));
    this.#listeners.push({ close: () => new Promise((resolve) => server.close(() => resolve())) });
  }

  /**
   * Takes agents over mutual TLS; returns the address in use.
   * @throws TwinvolError `USAGE`, `NOT_SUPPORTED`
   */
  async listenTls(
    place: { readonly host: string; readonly port: number },
    identity: TlsIdentity,
  ): Promise<{ readonly host: string; readonly port: number }> {
    const listener = await listenMutualTls(place, identity, CONNECTIONS_MAX, {
      connection: (socket, certificate) => this.#accept(socket, `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`, certificate),
      refused: (peer, reason) => this.#refused(peer, null, reason),
    });
    this.#listeners.push(listener);
    return listener.address;
  }

  /** Connected agents, by host. */
  agents(): readonly AgentView[] {
    return [...this.#agents.values()].map((agent) => agent.view).sort((a, b) => (a.host < b.host ? -1 : 1));
  }

  /** What a host of the same name said that is gone by now does not count for the new one. */
  mountTable(): readonly MountTableRow[] {
    const enrolments = new Map(this.#options.hosts().map(({ name, tokenSha256 }) => [name, tokenSha256]));
    return this.#table.rows((host) => this.#agents.has(host)).filter(({ host }) => this.#saidBy.get(host) === enrolments.get(host));
  }

  /**
   * Asks all hosts at once. Exactly one answer for each host and volume asked comes back, silence included, at the
   * deadline at the latest; never rejects.
   */
  ask(input: AskInput): Promise<readonly HostAnswer[]> {
    const { targets, asked, deadlineMs = INQUIRY_DEADLINE_MS_DEFAULT } = input;
    const id = randomBytes(12).toString('hex');
    return new Promise((resolve) => {
      const timer = this.#clock.after(deadlineMs, () => this.#advance(id, { kind: 'deadline', afterMs: deadlineMs }));
      const inquiry: OpenInquiry = {
        round: openRound(id, asked),
        startedMs: this.#clock.elapsedMs(),
        done: () => {
          timer.cancel();
          this.#inquiries.delete(id);
          resolve(roundAnswers(inquiry.round));
        },
      };
      this.#inquiries.set(id, inquiry);
      for (const { host, volumes } of inquiry.round.asked) this.#send(id, host, volumes, targets, deadlineMs);
      // With nobody to ask there is nothing to wait for.
      if (this.#inquiries.has(id) && isRoundDone(inquiry.round)) inquiry.done();
    });
  }

  /** To be called when hosts, grants or volumes have changed: agents that may not speak any more go, watches are renewed. */
  refresh(): void {
    for (const [host, agent] of this.#agents) {
      if (!agent.connection.isEnrolled) agent.connection.end('the host was removed or enrolled anew');
      else this.#renewWatch(host);
    }
    const reachable = new Map(
      this.#options.hosts().map(({ name }) => [name, new Set(this.#options.watchOf(name).map(({ volume }) => volume))]),
    );
    this.#table.keepOnly((host, volume) => reachable.get(host)?.has(volume) ?? false);
    for (const host of this.#saidBy.keys()) if (!reachable.has(host)) this.#saidBy.delete(host);
  }

  /** Ends all connections; open inquiries get their answers as far as there are any. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const id of [...this.#inquiries.keys()]) this.#advance(id, { kind: 'deadline', afterMs: 0 });
    for (const connection of [...this.#connections]) connection.end('the device stops');
    await Promise.all(this.#listeners.splice(0).map((listener) => listener.close()));
  }

  #watchOf(host: string, isLocal: boolean): readonly InquiryTarget[] {
    const all = this.#options.watchOf(host);
    const targets = isLocal ? all : this.#fromAfar(all);
    const known = this.#watched.get(targets);
    if (known !== undefined) return known;
    const watched = targetsForMessage(targets);
    this.#watched.set(targets, watched);
    const unwatched = targets.length - watched.length;
    if (unwatched > 0)
      this.#options.log.warn({ host, unwatched }, 'more volumes than a host can watch: of these it says nothing before it is asked');
    return watched;
  }

  /** On another machine the loopback addresses lead to that machine, not here. */
  #fromAfar(targets: readonly InquiryTarget[]): readonly InquiryTarget[] {
    const known = this.#afar.get(targets);
    if (known !== undefined) return known;
    const made = targets.map((target) => ({ ...target, uris: target.uris.filter((uri) => !LOOPBACK_URI.test(uri)) }));
    this.#afar.set(targets, made);
    return made;
  }

  #renewWatch(host: string): void {
    const agent = this.#agents.get(host);
    if (agent === undefined) return;
    const targets = this.#watchOf(host, agent.connection.isLocal);
    if (sameTargets(agent.watched, targets)) return;
    agent.watched = targets;
    agent.connection.send({ type: 'watch', targets });
  }

  #accept(socket: Socket, peer: string, certified: PeerCertificate | null): void {
    const strangers = this.#connections.size - this.#agents.size;
    if (this.#isClosed || strangers >= STRANGERS_MAX || this.#connections.size >= CONNECTIONS_MAX) {
      this.#options.log.warn({ peer, strangers }, 'an agent connection was turned away: too many at one time');
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    this.#connections.add(new AgentConnection(socket, peer, certified, this.#owner));
  }

  #welcomed(connection: AgentConnection, identity: AgentIdentity): void {
    const { host } = identity;
    const former = this.#agents.get(host);
    const view = { ...identity, connectedAtMs: this.#clock.nowMs() };
    this.#agents.set(host, { connection, view, watched: this.#watchOf(host, connection.isLocal) });
    if (former !== undefined) this.#replace(former, identity);
    this.#options.log.info({ ...identity }, 'agent connected');
    this.emit('connected', view);
  }

  /** The one that goes is told why: it may be another machine's, and must not come back at once and throw this one out. */
  #replace(former: { readonly connection: AgentConnection; readonly view: AgentView }, { host, pid }: AgentIdentity): void {
    const text = `another agent of host ${host} has connected (its pid is ${pid}): each host needs a name and a token of its own`;
    former.connection.send({ type: 'refused', code: 'ACCESS_DENIED', text });
    former.connection.end('a newer connection of the same host took its place');
    if (!this.#rivals.replaced(host, this.#clock.elapsedMs())) return;
    this.#options.log.warn({ host, pids: [former.view.pid, pid] }, 'two agents of one host throw each other out');
    this.emit('contested', host, [former.view.pid, pid]);
  }

  #refused(peer: string, host: string | null, reason: string): void {
    this.#options.log.warn({ peer, host, reason }, 'agent refused');
    this.emit('refused', peer, host, reason);
  }

  #closed(connection: AgentConnection, reason: string): void {
    this.#connections.delete(connection);
    const host = connection.identity?.host;
    if (host === undefined) return;
    this.#options.log.info({ host, reason }, 'agent disconnected');
    // Inquiries that are open went out on this connection: a newer one of the same host is made before this one ends.
    this.#lose(host, 'disconnected', `its agent's connection ended: ${reason}`);
    if (this.#agents.get(host)?.connection !== connection) return;
    this.#agents.delete(host);
    this.emit('disconnected', host, reason);
  }

  #message(connection: AgentConnection, message: FromAgent): void {
    const host = connection.identity?.host;
    if (host === undefined || this.#agents.get(host)?.connection !== connection || !connection.isEnrolled) return;
    if (message.type === 'report') return this.#record(host, message.findings);
    if (message.type === 'failed')
      return this.#advance(message.id, { kind: 'lost', host, reason: 'error', text: `its agent failed: ${message.text}` });
    if (message.type !== 'answer') return;
    const inquiry = this.#inquiries.get(message.id);
    if (inquiry === undefined)
      return this.#options.log.info({ host, inquiry: message.id }, 'an answer came too late, or to no inquiry; ignored');
    const nowMs = this.#clock.elapsedMs();
    const findings = this.#rivals.doubted(host, message.findings, nowMs);
    this.#record(host, message.findings);
    this.#advance(message.id, { kind: 'answer', host, id: message.id, findings, afterMs: nowMs - inquiry.startedMs });
  }

  #record(host: string, findings: Parameters<MountTable['record']>[1]): void {
    const watched = new Set(this.#options.watchOf(host).map((target) => target.volume));
    const enrolment = this.#options.hosts().find(({ name }) => name === host)?.tokenSha256 ?? '';
    if (this.#saidBy.get(host) !== enrolment) this.#table.keepOnly((one) => one !== host);
    this.#saidBy.set(host, enrolment);
    const changes = this.#table.record(
      host,
      findings.filter(({ volume }) => watched.has(volume)),
      this.#clock.nowMs(),
    );
    for (const change of changes) this.emit('mounts', change);
  }

  #send(id: string, host: string, volumes: readonly number[], targets: readonly InquiryTarget[], deadlineMs: number): void {
    const agent = this.#agents.get(host);
    if (agent === undefined) return this.#advance(id, { kind: 'lost', host, reason: 'no-agent', text: 'no agent of it is connected' });
    const about = new Set(volumes);
    const own = targets.filter((target) => about.has(target.volume));
    const seen = agent.connection.isLocal ? own : this.#fromAfar(own);
    if (targetsForMessage(seen).length === seen.length && agent.connection.send({ type: 'inquiry', id, targets: seen, deadlineMs })) return;
    const text = `it could not be asked about ${own.length} volumes at once`;
    this.#advance(id, { kind: 'lost', host, reason: 'error', text });
  }

  #advance(id: string, event: RoundEvent): void {
    const inquiry = this.#inquiries.get(id);
    if (inquiry === undefined) return;
    inquiry.round = advanceRound(inquiry.round, event);
    if (isRoundDone(inquiry.round)) inquiry.done();
  }

  /** The host cannot answer what it was asked any more. */
  #lose(host: string, reason: NoAnswerReason, text: string): void {
    for (const id of [...this.#inquiries.keys()]) this.#advance(id, { kind: 'lost', host, reason, text });
  }
}

/** A directory gives the same list again as long as nothing has changed; that is the usual case, and costs nothing. */
const sameTargets = (one: readonly InquiryTarget[], other: readonly InquiryTarget[]): boolean => {
  return one === other || JSON.stringify(one) === JSON.stringify(other);
};
