/**
 * One agent's connection, on the device's side: proves who it is, then carries inquiries out and answers in.
 *
 *   connected --hello with the right credential--> welcome --any end--> closed
 *             --anything else, or too slow-------> refused, closed
 *
 * On the unix socket the enrolment token proves the host; over TLS a certificate with its name does that was bound to it,
 * or its name in any certificate of the authority together with the token. A token that is sent has to be right. Nothing is taken from a connection that is not welcome, and little is read from it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';
import { isCertificateOf } from '../core/host-access.ts';
import type { AgentView } from '../core/host-views.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';
import type { HostRow } from '../core/rows.ts';
import { MiB } from '../core/units.ts';
import type { Clock, Timer } from '../platform/clock.ts';
import { LineChannel } from '../platform/line-channel.ts';
import type { PeerCertificate } from '../platform/mutual-tls.ts';
import { isLoopback, ownAddresses } from '../platform/own-addresses.ts';
import type { AgentHello, FromAgent, ToAgent } from '../wire/agent-messages.ts';
import {
  AGENT_LINE_BYTES_MAX,
  AGENT_PROTOCOL_VERSION,
  encodeAgentMessage,
  HELLO_LINE_BYTES_MAX,
  parseFromAgent,
} from '../wire/agent-messages.ts';
import { LineDecoder } from '../wire/line-decoder.ts';

const UNSENT_BYTES_MAX = 16 * MiB;
const HELLO_MS_MAX = 5000;
const PONGS_MISSED_MAX = 3;

export type AgentIdentity = Omit<AgentView, 'connectedAtMs'>;

export type AgentConnectionOwner = {
  readonly clock: Clock;
  readonly pingMs: number;
  hostRow(name: string): HostRow | null;
  watchOf(host: string, isLocal: boolean): readonly InquiryTarget[];
  welcomed(connection: AgentConnection, identity: AgentIdentity): void;
  message(connection: AgentConnection, message: FromAgent): void;
  refused(peer: string, host: string | null, reason: string): void;
  closed(connection: AgentConnection, reason: string): void;
};

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Compares in a time that does not depend on where the two differ. */
export const isTokenOf = (row: HostRow, token: string): boolean => {
  const kept = Buffer.from(row.tokenSha256, 'hex');
  const given = sha256(token);
  return kept.length === given.length && timingSafeEqual(kept, given);
};

export class AgentConnection {
  readonly #owner: AgentConnectionOwner;
  readonly #channel: LineChannel;
  readonly #decoder = new LineDecoder(HELLO_LINE_BYTES_MAX);
  readonly #peer: string;
  /** null on the unix socket. */
  readonly #certified: PeerCertificate | null;
  #timer: Timer;
  #identity: AgentIdentity | null = null;
  /** Hash of the token with which the host was enrolled when this connection was welcomed. */
  #enrolment = '';
  /** The certificate that proves the host; null where the token did. */
  #provedBy: PeerCertificate | null = null;
  #unansweredPings = 0;
  readonly #isLocal: boolean;

  constructor(socket: Socket, peer: string, certified: PeerCertificate | null, owner: AgentConnectionOwner) {
    this.#owner = owner;
    this.#peer = peer;
    this.#certified = certified;
    const address = socket.remoteAddress?.replace(/^::ffff:/, '') ?? '';
    this.#isLocal = certified === null || isLoopback(address) || ownAddresses().includes(address);
    this.#channel = new LineChannel(socket, this.#decoder, UNSENT_BYTES_MAX, {
      line: (line) => this.#take(line),
      closed: (reason) => this.#close(reason),
    });
    this.#timer = owner.clock.after(HELLO_MS_MAX, () => this.#refuse(null, 'it did not say who it is in time'));
  }

  get identity(): AgentIdentity | null {
    return this.#identity;
  }

  /** Whether the agent runs on this very machine, so that its loopback addresses are ours. */
  get isLocal(): boolean {
    return this.#isLocal;
  }

  /** Whether the host may still speak: it is enrolled, and with the credential of then. */
  get isEnrolled(): boolean {
    const row = this.#identity === null ? null : this.#owner.hostRow(this.#identity.host);
    if (row === null || row.tokenSha256 !== this.#enrolment) return false;
    return this.#provedBy === null || isCertificateOf(row, this.#provedBy.sha256);
  }

  /** False: it did not go out. */
  send(message: ToAgent): boolean {
    const line = encodeAgentMessage(message);
    return line !== null && this.#channel.send(line);
  }

  end(reason: string): void {
    this.#channel.close(reason);
  }

  #close(reason: string): void {
    this.#timer.cancel();
    this.#owner.closed(this, reason);
  }

  #refuse(host: string | null, reason: string): void {
    // The same words for a host that does not exist and a token that is wrong: a stranger learns neither.
    this.send({ type: 'refused', code: 'ACCESS_DENIED', text: 'no such host, or not its credential' });
    this.#owner.refused(this.#peer, host, reason);
    this.end(reason);
  }

  #take(line: string): void {
    const message = parseFromAgent(line);
    if (this.#identity === null) {
      if (message.type !== 'hello') return this.#refuse(null, 'its first message was no hello');
      return this.#greet(message);
    }
    switch (message.type) {
      case 'malformed':
        return this.end(`host ${this.#identity.host} sent what is no message: ${message.text}`);
      case 'pong':
        this.#unansweredPings = 0;
        return;
      case 'skipped':
      case 'hello':
        return;
      case 'answer':
      case 'failed':
      case 'report':
        return this.#owner.message(this, message);
    }
  }

  #greet(hello: AgentHello): void {
    const row = this.#owner.hostRow(hello.host);
    if (hello.version !== AGENT_PROTOCOL_VERSION)
      return this.#refuse(hello.host, `its protocol version ${hello.version} is not ${AGENT_PROTOCOL_VERSION}`);
    if (row === null) return this.#refuse(hello.host, 'no host of that name is enrolled');
    const certified = this.#certified;
    if (certified !== null && certified.name !== hello.host) return this.#refuse(hello.host, `its certificate is for ${certified.name}`);
    if (certified === null && hello.token === undefined) return this.#refuse(hello.host, 'it gave no enrolment token');
    if (hello.token !== undefined && !isTokenOf(row, hello.token)) return this.#refuse(hello.host, 'its enrolment token is wrong');
    if (certified !== null && hello.token === undefined && !isCertificateOf(row, certified.sha256)) {
      return this.#refuse(hello.host, 'its certificate is not bound to the host, and it gave no enrolment token');
    }
    this.#provedBy = hello.token === undefined ? certified : null;
    const { host, pid, isPrivileged } = hello;
    this.#identity = { host, pid, isPrivileged, transport: certified === null ? 'unix' : 'tls' };
    this.#enrolment = row.tokenSha256;
    this.#decoder.allow(AGENT_LINE_BYTES_MAX);
    this.#timer.cancel();
    this.#timer = this.#owner.clock.after(this.#owner.pingMs, () => this.#ping());
    this.send({
      type: 'welcome',
      version: AGENT_PROTOCOL_VERSION,
      host,
      watch: this.#owner.watchOf(host, this.isLocal),
      pingMs: this.#owner.pingMs,
    });
    this.#owner.welcomed(this, this.#identity);
  }

  #ping(): void {
    if (this.#unansweredPings >= PONGS_MISSED_MAX) return this.end('the agent does not answer pings');
    this.#unansweredPings += 1;
    this.#timer = this.#owner.clock.after(this.#owner.pingMs, () => this.#ping());
    this.send({ type: 'ping' });
  }
}
