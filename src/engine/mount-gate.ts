/**
 * The mount inquiry of one device (specification 6, steps 2 to 4): asks every host that can reach the volumes, adds the
 * evidence that the device has itself (live NBD connections), and decides with the operator's consent.
 *
 * The verdict, the token that binds a consent to what was shown, and the overrides are pure code (`core/inquiry.ts`,
 * `core/consent.ts`). Without somebody who asks, a known host is one that was not asked, and that is a finding like
 * silence. Order: ask, look at the connections last, verdict, decision, audit record; the caller holds the volumes before
 * and ends the connections after. Every refusal is a warning event.
 *
 * A token is good once: what it is bound to includes this run of the engine and how often one was used on the volumes.
 */
import { randomBytes } from 'node:crypto';
import { decideConsent } from '../core/consent.ts';
import type { ConsentScope, Decision } from '../core/consent.ts';
import type { EventLog } from '../core/event-log.ts';
import { TwinvolError } from '../core/faults.ts';
import { hostsReaching } from '../core/host-access.ts';
import type { AnswerView, InquiryView } from '../core/host-views.ts';
import type { Asked } from '../core/inquiry-round.ts';
import { factText, previewText, printable } from '../core/inquiry-text.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import { verdictOf } from '../core/inquiry.ts';
import type { Finding, LiveConnection, Verdict } from '../core/inquiry.ts';
import type { HostAnswer, InquiryTarget } from '../core/mount-facts.ts';
import type { VolumeRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import type { ClientView } from '../core/views.ts';
import type { HostAsker } from './agent-desk.ts';
import type { AuditTrail, Inquired } from './audit-trail.ts';
import type { InquiryGate, InquiryRequest, Permit } from './inquiry-gate.ts';

export type MountGateOptions = {
  readonly tables: Tables;
  readonly clients: () => Promise<readonly ClientView[]>;
  /** A volume as hosts are asked about it. */
  readonly targetOf: (volume: Pick<VolumeRow, 'number' | 'name'>) => InquiryTarget;
  readonly events: EventLog;
  readonly audit: AuditTrail;
  /** Absent: nobody is asked, and every known host is one that did not answer. */
  readonly asker?: HostAsker;
};

const TOLD_FINDINGS_MAX = 20;
const TOLD_CHARS_MAX = 1000;

type Found = {
  readonly inquiry: number;
  readonly verdict: Verdict;
  readonly hosts: readonly string[];
  readonly answers: readonly AnswerView[];
};

const liveConnection = (client: ClientView): LiveConnection => ({
  id: client.id,
  volume: client.volume?.number ?? null,
  host: client.host,
  peer: client.peer,
  refs: client.ref === null ? [] : [client.ref],
});

/** Findings as an event has them: many events are kept, so each has the first ones only, and how many there are. */
const toldFindings = (findings: readonly Finding[]): object[] => {
  const shown = findings.slice(0, TOLD_FINDINGS_MAX).map(({ key, kind, volume, host, text, mountPoint, fileSystem, device, clients }) => {
    return {
      key,
      kind,
      volume,
      host,
      text: text.slice(0, TOLD_CHARS_MAX),
      mountPoint,
      fileSystem,
      device,
      clients: clients.slice(0, TOLD_FINDINGS_MAX),
    };
  });
  return findings.length > shown.length ? [...shown, { text: `and ${findings.length - shown.length} more` }] : shown;
};

/** What a host said about a volume, in lines for people. */
const answerView = (answer: HostAnswer, target: InquiryTarget): AnswerView => {
  const { host } = answer;
  const volume = { number: target.volume, name: target.name };
  if (answer.outcome === 'no-answer') {
    return { host, volume, outcome: 'no-answer', unused: false, texts: [printable(answer.text)], reason: answer.reason, afterMs: null };
  }
  const texts = answer.facts.map((fact) => factText(host, target.name, fact));
  const unused = answer.facts.every((fact) => fact.kind === 'not-mounted');
  return { host, volume, outcome: 'answered', unused, texts, reason: null, afterMs: Math.round(answer.afterMs) };
};

export class MountGate implements InquiryGate {
  readonly #options: MountGateOptions;
  /** Tokens of an earlier run are void. */
  readonly #run = randomBytes(8).toString('hex');
  /** How often a token was used on a volume. */
  readonly #uses = new Map<number, number>();

  constructor(options: MountGateOptions) {
    this.#options = options;
  }

  async check(request: InquiryRequest): Promise<Permit> {
    const { audit } = this.#options;
    const { command, targets, consent = {} } = request;
    const { inquiry, verdict } = await this.#ask(command, targets);
    const inquired: Inquired = { inquiry, command, destroys: targets.map((target) => target.destroys), by: consent.by ?? null };
    let decision: Decision;
    try {
      decision = decideConsent(this.#scope(request), verdict, consent);
    } catch (error) {
      await audit.refused(inquired, error, verdict.findings, consent.reason ?? null);
      throw this.#refused(request, error);
    }
    await audit.decided(inquired, decision);
    this.#tell(request, decision, inquiry);
    return { findings: decision.findings, ended: (error) => audit.ended(inquiry, error) };
  }

  async look(volume: VolumeRow, destroysNow: () => readonly Destruction[]): Promise<InquiryView> {
    const { number, name } = volume;
    const startedMs = performance.now();
    const command = `inquiry ${name}`;
    const { inquiry, verdict, hosts, answers } = await this.#ask(command, [volume]);
    const tookMs = Math.round(performance.now() - startedMs);
    await this.#options.audit.looked({ inquiry, command, destroys: [], by: null }, verdict.findings);
    const { findings, clear } = verdict;
    const destroys = destroysNow();
    const warnings = clear ? [] : [...findings.map(({ text }) => text), ...destroys.map(previewText)];
    return { inquiry, volume: { number, name }, clear, hosts, answers, findings, destroys, warnings, tookMs };
  }

  hostsFor(volumes: readonly number[]): readonly string[] {
    return this.#askedAbout(volumes).map(({ host }) => host);
  }

  async #ask(command: string, volumes: ReadonlyArray<Pick<VolumeRow, 'number' | 'name'>>): Promise<Found> {
    const { asker, audit, clients, tables, targetOf } = this.#options;
    const targets = volumes.map(targetOf);
    const asked = this.#askedAbout(targets.map((target) => target.volume));
    const hosts = asked.map(({ host }) => host);
    const names = targets.map(({ volume, name }) => ({ number: volume, name }));
    const inquiry = audit.asked(command, names, hosts);
    const deadlineMs = tables.settings.inquiryDeadlineMs;
    const said = asker === undefined || asked.length === 0 ? [] : await asker.ask({ targets, asked, deadlineMs });
    // Looked at last: a connection that came while the hosts were asked is evidence too.
    const connections = (await clients()).filter((client) => client.phase !== 'closing').map(liveConnection);
    const targetOfNumber = new Map(targets.map((target) => [target.volume, target]));
    const answers = said.flatMap((answer) => {
      const target = targetOfNumber.get(answer.volume);
      return target === undefined ? [] : [answerView(answer, target)];
    });
    audit.answered(inquiry, answers);
    return { inquiry, verdict: verdictOf({ targets, asked, answers: said, connections }), hosts, answers };
  }

  #scope({ command, targets, generation }: InquiryRequest): ConsentScope {
    const volumes = targets.map((target) => target.number);
    const uses = volumes.map((volume) => this.#uses.get(volume) ?? 0).join(',');
    return { command, volumes, generation: `${generation} ${this.#run} ${uses}`, destructions: targets.map((target) => target.destroys) };
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

  #tell({ command, targets }: InquiryRequest, decision: Decision, inquiry: number): void {
    const { kind, token, findings, overrides, reason } = decision;
    if (kind === 'clear') return;
    for (const { number } of targets) this.#uses.set(number, (this.#uses.get(number) ?? 0) + 1);
    const told = { command, decision: kind, findings: toldFindings(findings), overrides, reason, inquiry };
    this.#options.events.append('notice', 'inquiry', token, told);
  }

  /** The error with the command beside what was found and what would be destroyed, which is what the operator decides about. */
  #refused(request: InquiryRequest, error: unknown): unknown {
    if (!(error instanceof TwinvolError) || error.code === 'USAGE') return error;
    const details = { ...error.details, command: request.command };
    const { findings, token, destroys } = details as {
      readonly findings?: readonly Finding[];
      readonly token?: string;
      readonly destroys?: unknown;
    };
    const told = { findings: toldFindings(findings ?? []), token: token ?? null, destroys: destroys ?? [], command: request.command };
    this.#options.events.append('warning', 'inquiry', request.command, { code: error.code, message: error.message, ...told });
    return new TwinvolError(error.code, error.message, { remedy: error.remedy, details, cause: error });
  }
}
