/**
 * The operator's decision on what the mount inquiry found (specification 6, steps 3 and 4), for any command that may
 * destroy data. The engine refuses with `MOUNTED` or `NO_ANSWER`, and its details carry the warnings and a token for
 * exactly these findings. On a terminal they are shown and the operator is asked; "no" is the default, and so is silence.
 * On yes the call is repeated with the token. If the facts have changed by then, the engine says so with the new
 * findings, and they are shown and asked about anew. Without a terminal the refusal stands.
 */
import { TwinvolError } from '../core/faults.ts';
import { type Destruction, printable, warningLines } from '../core/inquiry-text.ts';
import { formatSize } from '../core/units.ts';
import type { Consent } from '../engine/api.ts';
import type { CommandContext } from './command-context.ts';
import { given } from './given.ts';

/** What `--override` (repeatable) and `--reason` say. */
export type ConsentOptions = { readonly override?: readonly string[]; readonly reason?: string };

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null;

const recordsIn = (value: unknown): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  Array.isArray(value) ? value.filter(isRecord) : [];

/** What an error of the inquiry found and what would be destroyed, a line each, safe for a terminal; none for other errors. */
export const warningsOf = (error: TwinvolError): readonly string[] => {
  const findings = recordsIn(error.details['findings']).map((finding) => ({ text: printable(String(finding['text'] ?? finding['key'])) }));
  return warningLines(findings, destructionsOf(error)).map(printable);
};

const destructionsOf = (error: TwinvolError): readonly Destruction[] => {
  const isOne = ({ bytes, volumeName }: Readonly<Record<string, unknown>>): boolean =>
    typeof bytes === 'number' && typeof volumeName === 'string';
  return recordsIn(error.details['destroys']).filter(isOne) as unknown as readonly Destruction[];
};

/** Where nothing would be lost that a host wrote: what is there is in use all the same. */
const overwriting = (question: string, { volumeName }: Destruction): string =>
  question.replace(/\?$/, `, overwriting ${printable(volumeName)}?`);

/** `resync db -> db-copy anyway?` with what that destroys: `resync db -> db-copy anyway, destroying 2 MiB on db-copy?` */
const withConsequence = (question: string, error: TwinvolError): string => {
  const lost = destructionsOf(error).filter(({ bytes }) => bytes > 0);
  const [only, ...others] = destructionsOf(error);
  if (lost.length === 0) return only === undefined || others.length > 0 ? question : overwriting(question, only);
  const amount = formatSize(lost.reduce((sum, { bytes }) => sum + bytes, 0));
  const bound = lost.some(({ isAtMost }) => isAtMost === true) ? 'up to ' : '';
  return question.replace(/\?$/, `, destroying ${bound}${amount} on ${lost.map(({ volumeName }) => printable(volumeName)).join(', ')}?`);
};

const tokenOf = (error: TwinvolError): string | null => {
  const isAsking = error.code === 'MOUNTED' || error.code === 'NO_ANSWER' || error.code === 'CONSENT_VOID';
  const token = error.details['token'];
  return isAsking && typeof token === 'string' ? token : null;
};

/**
 * Calls, and asks the operator where the engine asks for consent.
 * @param question what would be done, such as `resync db -> db-copy anyway?`
 * @param notDone what did not happen after a "no", such as `pair db -> db-copy was not resynced`
 * @throws TwinvolError the engine's refusal, when nobody consented
 */
export const withConsent = async <Result>(
  context: CommandContext,
  options: ConsentOptions,
  words: { readonly question: string; readonly notDone: string },
  call: (consent: { consent?: Consent }) => Promise<Result>,
): Promise<Result> => {
  const overrides = options.override ?? [];
  if (overrides.length > 0 && (options.reason ?? '').trim() === '') {
    throw new TwinvolError('USAGE', '--override needs a reason', { remedy: 'give it with --reason TEXT; it goes to the audit record' });
  }
  const by = context.userName;
  const first: Consent = { ...(overrides.length > 0 ? { overrides } : {}), ...given({ reason: options.reason }) };
  // Who asks is told from the start: a refusal is on record with it as well.
  let consent: { consent?: Consent } = { consent: { ...first, by } };
  while (true) {
    try {
      return await call(consent);
    } catch (error) {
      const token = error instanceof TwinvolError && context.isInteractive ? tokenOf(error) : null;
      if (!(error instanceof TwinvolError) || token === null) throw error;
      if (!(await isConfirmed(context, error, words.question))) {
        throw notConsented(error, words.notDone);
      }
      consent = { consent: { token, by, ...given({ reason: options.reason }) } };
    }
  }
};

/** After a "no" it is no matter how often the facts had changed: what stands in the way is what was shown last. */
const notConsented = (shown: TwinvolError, notDone: string): TwinvolError => {
  if (shown.code !== 'CONSENT_VOID') return new TwinvolError(shown.code, notDone, { remedy: shown.remedy });
  const kinds = recordsIn(shown.details['findings']).map(({ kind }) => kind);
  if (kinds.length === 0) return new TwinvolError('NOT_CONFIRMED', notDone);
  return new TwinvolError(kinds.every((kind) => kind === 'no-answer' || kind === 'unknown') ? 'NO_ANSWER' : 'MOUNTED', notDone);
};

const isConfirmed = async (context: CommandContext, error: TwinvolError, question: string): Promise<boolean> => {
  const paint = context.paintError;
  const intro = error.code === 'CONSENT_VOID' ? ['the facts have changed since the warning; they are now:'] : [];
  const lines = warningsOf(error);
  for (const line of [...intro, ...(lines.length > 0 ? lines : [printable(error.message)])])
    context.note(`${paint('yellow', 'WARNING:')} ${line}`);
  return isYes(await context.io.ask(`${withConsequence(question, error)} [y/N] `));
};

export const isYes = (answer: string | null): boolean => /^y(es)?$/i.test(answer?.trim() ?? '');

/**
 * For what destroys data by its nature (a volume's deletion): asks. Only where a person can be asked.
 * It is no consent to what an inquiry finds.
 * @throws TwinvolError `NOT_CONFIRMED`
 */
export const confirmDestruction = async (context: CommandContext, question: string, notDone: string): Promise<void> => {
  if (!isYes(await context.io.ask(`${question} [y/N] `))) throw new TwinvolError('NOT_CONFIRMED', notDone);
};
