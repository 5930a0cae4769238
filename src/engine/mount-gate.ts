/**
 * The mount inquiry of one device (specification 6, steps 2 to 4): asks every host that can reach the volumes, adds the
 * evidence that the device has itself (live NBD connections), and decides with the operator's consent.
 *
 * The verdict, the token that binds a consent to what was shown, and the overrides are pure code (`core/inquiry.ts`,
 * `core/consent.ts`). Without somebody who asks, a known host is one that was not asked, and that is a finding like
 * silence. Every refusal is a warning event, and every decision against a finding is recorded.
 */
import { decideConsent } from '../core/consent.ts';
import type { Decision } from '../core/consent.ts';
import type { EventLog } from '../core/event-log.ts';
import { TwinvolError } from '../core/faults.ts';
import { hostsReaching } from '../core/host-access.ts';
import type { Asked } from '../core/inquiry-round.ts';
import { verdictOf } from '../core/inquiry.ts';
import type { LiveConnection } from '../core/inquiry.ts';
import type { HostAnswer, InquiryTarget } from '../core/mount-facts.ts';
import type { Tables } from '../core/tables.ts';
import type { ClientView } from '../core/views.ts';
import type { InquiryGate, InquiryRequest } from './inquiry-gate.ts';

/** Whoever can ask the hosts' agents. One answer for each host and volume asked; never rejects. */
export interface HostAsker {
  ask(input: { readonly targets: readonly InquiryTarget[]; readonly asked: readonly Asked[] }): Promise<readonly HostAnswer[]>;
}

export type MountGateOptions = {
  readonly tables: Tables;
  readonly clients: () => Promise<readonly ClientView[]>;
  /** URIs under which hosts reach an export. */
  readonly urisOf: (exportName: string) => readonly string[];
  readonly events: EventLog;
  /** Absent: nobody is asked, and every known host is one that did not answer. */
  readonly asker?: HostAsker;
};

const liveConnection = (client: ClientView): LiveConnection => ({
  id: client.id,
  volume: client.volume?.number ?? null,
  host: client.host,
  peer: client.peer,
  refs: client.transport === 'unix' ? [] : [`tcp:${client.peer}`],
});

export class MountGate implements InquiryGate {
  readonly #options: MountGateOptions;

  constructor(options: MountGateOptions) {
    this.#options = options;
  }

  async check(request: InquiryRequest): Promise<void> {
    const { asker, clients, urisOf } = this.#options;
    const targets = request.targets.map(({ number, name }) => ({
      volume: number,
      name,
      uris: [...urisOf(name), ...urisOf(String(number))],
    }));
    const asked = this.#askedAbout(targets.map((target) => target.volume));
    const answers = asker === undefined || asked.length === 0 ? [] : await asker.ask({ targets, asked });
    // Looked at last: a connection that came while the hosts were asked is evidence too.
    const connections = (await clients()).filter((client) => client.phase !== 'closing').map(liveConnection);
    const verdict = verdictOf({ targets, asked, answers, connections });
    const scope = { command: request.command, volumes: targets.map((target) => target.volume), generation: request.generation };
    try {
      this.#record(request, decideConsent(scope, verdict, request.consent ?? {}));
    } catch (error) {
      throw this.#refused(request, error);
    }
  }

  hostsFor(volumes: readonly number[]): readonly string[] {
    return this.#askedAbout(volumes).map(({ host }) => host);
  }

  #askedAbout(volumes: readonly number[]): readonly Asked[] {
    const { tables } = this.#options;
    const volumesOf = new Map<string, number[]>();
    for (const volume of volumes) {
      for (const host of hostsReaching(tables.hosts(), volume, tables.settings))
        volumesOf.set(host, [...(volumesOf.get(host) ?? []), volume]);
    }
    return [...volumesOf].map(([host, reached]) => ({ host, volumes: reached }));
  }

  #record(request: InquiryRequest, decision: Decision): void {
    if (decision.kind === 'clear') return;
    this.#options.events.append('notice', 'inquiry', decision.token, {
      command: request.command,
      decision: decision.kind,
      findings: decision.findings,
      overrides: decision.overrides,
      reason: decision.reason,
    });
  }

  /** The error with what would be destroyed beside what was found, which is what the operator decides about. */
  #refused(request: InquiryRequest, error: unknown): unknown {
    if (!(error instanceof TwinvolError) || error.code === 'USAGE') return error;
    const destroys = request.targets.map((target) => target.destroys);
    const details = { ...error.details, command: request.command, destroys };
    this.#options.events.append('warning', 'inquiry', request.command, { code: error.code, message: error.message, ...details });
    return new TwinvolError(error.code, error.message, { remedy: error.remedy, details, cause: error });
  }
}
