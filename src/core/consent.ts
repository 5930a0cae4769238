/**
 * The operator's consent to what an inquiry found (specification 6, step 4).
 *
 * Pure. A consent is bound to exactly what was shown: the token of a warning is a hash over the findings, the amounts that
 * would be destroyed, the volumes and the generation of the pair's state. Whatever changes in between, the token of the facts is another one and the
 * consent is void; the operator then sees the new warning. A script consents by overrides instead: each names a present
 * finding by its key, all findings have to be named, and a reason has to be given.
 *
 * Invariants: nothing found and nothing claimed goes on; everything else goes on only with a matching token or a full,
 * reasoned set of overrides; no decision depends on the order of findings or overrides.
 */
import { createHash } from 'node:crypto';
import { TwinvolError } from './faults.ts';
import type { Finding, Verdict } from './inquiry.ts';
import type { Destruction } from './inquiry-text.ts';
import { printable, warningLines } from './inquiry-text.ts';

/** What a warning is about, besides its findings. */
export type ConsentScope = {
  /** The command, `pair resync` say: a consent to one is none to another. */
  readonly command: string;
  readonly volumes: readonly number[];
  /** Changes whenever the state of the pairs concerned does: their `stateSinceMs`, say, as text. */
  readonly generation: string;
  /** What going on would destroy: shown with every warning, and a part of the token; see `shownLosses`. */
  readonly destructions?: readonly Destruction[];
};

export type ConsentInput = {
  readonly token?: string;
  readonly overrides?: readonly string[];
  readonly reason?: string;
};

export type Decision = {
  /** `clear`: nothing was found. `consented`: the operator saw the warning. `overridden`: each finding was named. */
  readonly kind: 'clear' | 'consented' | 'overridden';
  readonly token: string;
  readonly findings: readonly Finding[];
  /** Keys that were overridden, sorted, without repetition. */
  readonly overrides: readonly string[];
  readonly reason: string | null;
};

const TOKEN_HEX_CHARS = 32;
const OVERRIDES_MAX = 4096;
export const REASON_CHARS_MAX: number = 1000;
const OVERRIDE_KEY = /^(?:(?:mounted|open|unknown|no-answer):.+|client:\d+)$/su;

/**
 * The amounts that a consent is bound to: between the warning and the answer nothing is held, so a host may write more.
 * The times too: a region that counts already may have held one new block when it was shown, and be full of them now.
 */
const shownLosses = ({ destructions = [] }: ConsentScope): readonly string[] =>
  destructions
    .map(({ volumeName, regions, bytes, firstAtMs, lastAtMs }) => JSON.stringify([volumeName, regions, bytes, firstAtMs, lastAtMs]))
    .sort();

/** The token of these facts. The same facts give the same token, in whatever order they were found. */
export const consentToken = (scope: ConsentScope, findings: readonly Finding[]): string => {
  const facts = findings.map((finding) => JSON.stringify([finding.volume, finding.key, finding.identity])).sort();
  const volumes = [...scope.volumes].sort((a, b) => a - b);
  const bound = JSON.stringify([scope.command, volumes, scope.generation, facts, shownLosses(scope)]);
  return createHash('sha256').update(bound).digest('hex').slice(0, TOKEN_HEX_CHARS);
};

/** What the errors of this file carry, so that a program shows the same warning as the terminal does. */
const factsFor = (scope: ConsentScope, findings: readonly Finding[], token: string): Readonly<Record<string, unknown>> => {
  const destroys = scope.destructions ?? [];
  return { findings, token, destroys, warnings: warningLines(findings, destroys) };
};

const checkedOverrides = (consent: ConsentInput): readonly string[] => {
  const overrides = [...new Set(consent.overrides ?? [])].sort();
  if (overrides.length > OVERRIDES_MAX)
    throw new TwinvolError('USAGE', `${overrides.length} overrides are more than the ${OVERRIDES_MAX} allowed`);
  for (const key of overrides) {
    if (OVERRIDE_KEY.test(key)) continue;
    throw new TwinvolError('USAGE', `"${printable(key)}" names no finding`, {
      remedy: 'name it as the warning does: mounted:HOST, open:HOST, unknown:HOST, no-answer:HOST or client:ID',
    });
  }
  return overrides;
};

const checkedReason = (consent: ConsentInput, overrides: readonly string[]): string | null => {
  const reason = consent.reason?.trim() ?? '';
  if (reason.length > REASON_CHARS_MAX) throw new TwinvolError('USAGE', `the reason is longer than ${REASON_CHARS_MAX} characters`);
  if (overrides.length > 0 && reason === '') {
    throw new TwinvolError('USAGE', 'an override needs a reason', { remedy: 'give it with --reason TEXT; it is kept in the audit record' });
  }
  return reason === '' ? null : reason;
};

/** The refusal for findings that nobody consented to. Silence and doubt alone are `NO_ANSWER`; any use is `MOUNTED`. */
export const refusalOf = (command: string, findings: readonly Finding[], details: Readonly<Record<string, unknown>>): TwinvolError => {
  const uses = findings.filter((finding) => finding.kind !== 'no-answer' && finding.kind !== 'unknown');
  const shown = uses.length > 0 ? uses : findings;
  const first = shown[0];
  if (first === undefined) throw new Error('a refusal needs a finding');
  const more = findings.length > 1 ? `, and ${findings.length - 1} more` : '';
  const keys = overridesFor(findings);
  const cure = uses.length > 0 ? 'end the use on that host' : "start that host's agent, with the rights to see everything";
  return new TwinvolError(uses.length > 0 ? 'MOUNTED' : 'NO_ANSWER', `${command} was not done: ${first.text}${more}`, {
    remedy: `${cure}, or override: ${keys} --reason TEXT`,
    details,
  });
};

const overridesFor = (findings: readonly Finding[]): string =>
  [...new Set(findings.map((finding) => finding.key))].map((key) => `--override ${printable(key)}`).join(' ');

const voidError = (
  scope: ConsentScope,
  why: string,
  findings: readonly Finding[],
  details: Readonly<Record<string, unknown>>,
): TwinvolError => {
  const remedy =
    findings.length === 0
      ? 'nothing uses the volume now: repeat the command without a consent'
      : `read the new warning and decide again; where a host keeps writing: ${overridesFor(findings)} --reason TEXT`;
  return new TwinvolError('CONSENT_VOID', `${scope.command} was not done: ${why}`, { remedy, details });
};

/**
 * Whether the command goes on.
 * @throws TwinvolError `MOUNTED` or `NO_ANSWER` for findings without consent, `CONSENT_VOID` if the facts are not those
 * that the consent speaks of, `USAGE` for overrides that are malformed or without a reason. The details of the first
 * three carry `findings`, their `token`, `warnings` (lines for people) and `destroys`.
 */
export const decideConsent = (scope: ConsentScope, verdict: Verdict, consent: ConsentInput = {}): Decision => {
  const overrides = checkedOverrides(consent);
  const reason = checkedReason(consent, overrides);
  const { findings } = verdict;
  const token = consentToken(scope, findings);
  const details = factsFor(scope, findings, token);
  if (consent.token !== undefined && consent.token !== token) {
    throw voidError(scope, 'the facts are not those of the warning that was consented to', findings, details);
  }
  const keys = new Set(findings.map((finding) => finding.key));
  const absent = overrides.find((key) => !keys.has(key));
  if (absent !== undefined) throw voidError(scope, `there is no finding "${printable(absent)}" (any more)`, findings, details);
  if (findings.length === 0) return { kind: 'clear', token, findings, overrides, reason };
  const named = new Set(overrides);
  if (named.size > 0 || consent.token === undefined) {
    const open = findings.filter((finding) => !named.has(finding.key));
    if (open.length > 0) throw refusalOf(scope.command, open, details);
    return { kind: 'overridden', token, findings, overrides, reason };
  }
  return { kind: 'consented', token, findings, overrides, reason };
};
