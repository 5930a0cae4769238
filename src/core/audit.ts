/**
 * The audit record: what was asked before content was overwritten, what came back, and who decided what (specification
 * 6, step 4). Numbered from 1 without a gap, kept for good; codec: wire/audit-line.ts, file: store/audit-file.ts.
 *
 * One inquiry is a chain of records that name its number: `inquiry`, an `answer` for each host and volume (one for all
 * volumes that a host says the same of: that it does not use them, or nothing), a `decision`
 * with an `override` for each finding that was overridden, and an `outcome` when the command has been carried out or has
 * failed. A decision to go on without an outcome is what a crash in between leaves. `host` records what changes who is asked.
 *
 * Texts come from other machines: they are made printable and cut before they get here, so a record has a bounded size.
 */
import type { FaultCode } from './faults.ts';
import type { VolumeName } from './host-views.ts';
import type { Destruction } from './inquiry-text.ts';
import type { NoAnswerReason } from './mount-facts.ts';
import type { HostAccess } from './rows.ts';

export type AuditInquiry = {
  readonly kind: 'inquiry';
  readonly command: string;
  /** Of a long list the first ones, and `volumeCount` says how many there are. */
  readonly volumes: readonly VolumeName[];
  readonly volumeCount: number;
  /** Who was asked. */
  readonly hosts: readonly string[];
};

export type AuditAnswer = {
  readonly kind: 'answer';
  readonly inquiry: number;
  readonly host: string;
  /** What the answer is about; of a long list the first ones, and `volumeCount` says how many there are. */
  readonly volumes: readonly VolumeName[];
  readonly volumeCount: number;
  readonly outcome: 'answered' | 'no-answer';
  /** Null when the host answered. */
  readonly reason: NoAnswerReason | null;
  /** What it said, a line for each fact; or why there is no answer. */
  readonly texts: readonly string[];
  readonly afterMs: number | null;
};

/** `looked`: nothing was to be decided, the operator only asked. */
export type AuditDecisionKind = 'clear' | 'consented' | 'overridden' | 'refused' | 'looked';

export type AuditDecision = {
  readonly kind: 'decision';
  readonly inquiry: number;
  readonly command: string;
  readonly decision: AuditDecisionKind;
  /** Of the refusal. */
  readonly code: FaultCode | null;
  /** Of the warning: consent is bound to it. */
  readonly token: string | null;
  readonly findings: ReadonlyArray<{ readonly key: string; readonly text: string }>;
  readonly destroys: readonly Destruction[];
  readonly reason: string | null;
  /** Who decided, as far as the caller says so. */
  readonly by: string | null;
};

export type AuditOverride = {
  readonly kind: 'override';
  readonly inquiry: number;
  readonly key: string;
  readonly findings: readonly string[];
  readonly reason: string | null;
  readonly by: string | null;
};

export type AuditOutcome = {
  readonly kind: 'outcome';
  readonly inquiry: number;
  readonly done: boolean;
  /** Of the failure. */
  readonly code: string | null;
};

export type AuditHost = {
  readonly kind: 'host';
  readonly change: 'added' | 'removed' | 'granted' | 'revoked' | 'certificate' | 'setting';
  /** null for a change that concerns all hosts. */
  readonly host: string | null;
  readonly volume: VolumeName | null;
  readonly access: HostAccess | null;
  readonly text: string | null;
};

export type AuditEntry = AuditInquiry | AuditAnswer | AuditDecision | AuditOverride | AuditOutcome | AuditHost;
export type AuditKind = AuditEntry['kind'];
export const AUDIT_KINDS: readonly AuditKind[] = ['inquiry', 'answer', 'decision', 'override', 'outcome', 'host'];

/** Number and time (milliseconds since 1970) of a record. */
export type AuditStamp = {
  readonly seq: number;
  readonly atMs: number;
};
/** What `audit` gives: one of the entries with its stamp. */
export type AuditRecord = AuditStamp & AuditEntry;

/** Lines of one list in a record; what is more is counted in a last line. */
export const AUDIT_LINES_MAX: number = 200;
export const AUDIT_LINE_CHARS_MAX: number = 1000;

/** Cuts a list of texts so that a record stays small; says how many were left out. */
export const boundedLines = (lines: readonly string[]): readonly string[] => {
  const cut = (text: string): string => (text.length <= AUDIT_LINE_CHARS_MAX ? text : `${text.slice(0, AUDIT_LINE_CHARS_MAX)}...`);
  if (lines.length <= AUDIT_LINES_MAX) return lines.map(cut);
  const kept = lines.slice(0, AUDIT_LINES_MAX - 1).map(cut);
  return [...kept, `and ${lines.length - kept.length} more`];
};
