/**
 * What the engine writes into the audit record, and when it has to be durable (specification 6, step 4).
 *
 * A decision to go on is on the medium before anything is destroyed; if it cannot be written, the command is refused. A
 * refusal and an outcome are written as well, but nobody waits for what cannot be written: it is logged, and what is true
 * stays true.
 */
import type { Logger } from 'pino';
import type { AuditEntry, AuditHost, AuditRecord } from '../core/audit.ts';
import { AUDIT_LINES_MAX, boundedLines } from '../core/audit.ts';
import type { Decision } from '../core/consent.ts';
import { TwinvolError } from '../core/faults.ts';
import type { AnswerView, VolumeName } from '../core/host-views.ts';
import type { Finding } from '../core/inquiry.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import { printable } from '../core/inquiry-text.ts';
import type { AuditFile } from '../store/audit-file.ts';

/** What is being decided about. */
export type Inquired = {
  /** Number of the inquiry's own record. */
  readonly inquiry: number;
  readonly command: string;
  readonly destroys: readonly Destruction[];
  /** Who asks for it, as far as the caller says so. */
  readonly by: string | null;
};

const findingsOf = (findings: readonly Finding[]): ReadonlyArray<{ readonly key: string; readonly text: string }> => {
  const texts = boundedLines(findings.map(({ text }) => text));
  return texts.map((text, index) => ({ key: printable(findings[index]?.key ?? ''), text }));
};

/** A host that says the same of a thousand volumes has one record for it; what it uses has one each. */
const sameAnswerKey = ({ host, outcome, reason, unused, texts, volume }: AnswerView): string => {
  if (outcome === 'no-answer') return JSON.stringify([host, reason, texts]);
  return JSON.stringify(unused ? [host] : [host, volume.number]);
};

const answerEntry = (inquiry: number, group: readonly AnswerView[]): AuditEntry => {
  const first = group[0];
  if (first === undefined) throw new Error('a group of answers without one');
  const { host, outcome, reason, texts, afterMs, unused } = first;
  const said = unused && group.length > 1 ? [`host ${printable(host)} uses none of these ${group.length} volumes`] : texts;
  const volumes = group.slice(0, AUDIT_LINES_MAX).map(({ volume }) => volume);
  return { kind: 'answer', inquiry, host, volumes, volumeCount: group.length, outcome, reason, texts: boundedLines(said), afterMs };
};

export class AuditTrail {
  readonly #file: AuditFile;
  readonly #log: Logger;

  constructor(file: AuditFile, log: Logger) {
    this.#file = file;
    this.#log = log;
  }

  /** An inquiry begins. @returns its number */
  asked(command: string, volumes: readonly VolumeName[], hosts: readonly string[]): number {
    const { seqs } = this.#file.append([
      { kind: 'inquiry', command, volumes: volumes.slice(0, AUDIT_LINES_MAX), volumeCount: volumes.length, hosts },
    ]);
    return seqs[0] ?? 0;
  }

  answered(inquiry: number, answers: readonly AnswerView[]): void {
    if (answers.length === 0) return;
    const groups = new Map<string, AnswerView[]>();
    for (const answer of answers) {
      const key = sameAnswerKey(answer);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [answer]);
      else group.push(answer);
    }
    this.#file.append([...groups.values()].map((group) => answerEntry(inquiry, group)));
  }

  /**
   * The command goes on.
   * @throws TwinvolError `STORE_FULL`, `STORE_IO`: it was not recorded, so the command must not go on
   */
  async decided(inquired: Inquired, decision: Decision): Promise<void> {
    const { inquiry, by } = inquired;
    const { kind, token, findings, overrides, reason } = decision;
    const textsOf = (key: string): readonly string[] => boundedLines(findings.filter((one) => one.key === key).map(({ text }) => text));
    const entries: AuditEntry[] = [
      this.#decision(inquired, { decision: kind, code: null, token: kind === 'clear' ? null : token, findings, reason }),
      ...overrides.map((key): AuditEntry => ({ kind: 'override', inquiry, key: printable(key), findings: textsOf(key), reason, by })),
    ];
    await this.#file.append(entries).durable;
  }

  /** The command does not go on. Waits until that is recorded, or cannot be. */
  async refused(inquired: Inquired, error: unknown, findings: readonly Finding[], reason: string | null): Promise<void> {
    const { code, token } =
      error instanceof TwinvolError ? { code: error.code, token: error.details['token'] } : { code: 'INTERNAL' as const, token: null };
    const shown = typeof token === 'string' ? token : null;
    await this.#unlessFailing([this.#decision(inquired, { decision: 'refused', code, token: shown, findings, reason })]);
  }

  /** Somebody only wanted to know. */
  async looked(inquired: Inquired, findings: readonly Finding[]): Promise<void> {
    await this.#unlessFailing([this.#decision(inquired, { decision: 'looked', code: null, token: null, findings, reason: null })]);
  }

  /** A command that had gone on has ended. */
  async ended(inquiry: number, error: unknown): Promise<void> {
    const code = error === null ? null : error instanceof TwinvolError ? error.code : 'INTERNAL';
    await this.#unlessFailing([{ kind: 'outcome', inquiry, done: error === null, code }]);
  }

  /** What changes who is asked. @throws TwinvolError `STORE_FULL`, `STORE_IO` */
  async host(entry: Omit<AuditHost, 'kind'>): Promise<void> {
    await this.#file.append([{ kind: 'host', ...entry }]).durable;
  }

  read(since: number, limit: number): Promise<readonly AuditRecord[]> {
    return this.#file.read(since, limit);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #decision(
    { inquiry, command, destroys, by }: Inquired,
    {
      findings,
      ...rest
    }: Pick<Extract<AuditEntry, { kind: 'decision' }>, 'decision' | 'code' | 'token' | 'reason'> & {
      readonly findings: readonly Finding[];
    },
  ): AuditEntry {
    return { kind: 'decision', inquiry, command, ...rest, findings: findingsOf(findings), destroys, by };
  }

  async #unlessFailing(entries: readonly AuditEntry[]): Promise<void> {
    try {
      await this.#file.append(entries).durable;
    } catch (error) {
      this.#log.error({ err: error, entries }, 'what happened could not be written into the audit record');
    }
  }
}
