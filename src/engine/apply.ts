/**
 * `apply`: makes the device what a declaration says.
 *
 * First everything is found out: what differs, and whether all of it can be met; if anything cannot, all of that is named
 * and nothing is changed. Then the hosts of every volume whose content would be overwritten or given up are asked, in one
 * inquiry, still before anything is changed. Only then the differences are carried out, one command after the other, each
 * whole or not at all, with the volumes that the comparison chose. So what the plan shows is what happens, or the rest
 * does not happen and the error says so: what was done before it stays, and applying again goes on from there.
 *
 * Two declarations are applied one after the other.
 */
import { planDeclaration } from '../core/declaration-plan.ts';
import type { Declaration, DeclarationPlan, DeclaredChange, DeclaredStep, Unmet } from '../core/declaration.ts';
import { TwinvolError } from '../core/faults.ts';
import type { Finding } from '../core/inquiry.ts';
import type { ApplyView } from '../core/views.ts';
import type { ApplyInput, Consent, Engine } from './api.ts';
import type { DeviceContext } from './context.ts';
import { wholeVolume } from './pair-destruction.ts';

/** The commands that a declaration takes. */
export type ApplyCommands = Pick<
  Engine,
  | 'settingsSet'
  | 'volumeCreate'
  | 'volumeGrow'
  | 'volumeSet'
  | 'poolRestoreSize'
  | 'pairCreate'
  | 'pairSet'
  | 'groupCreate'
  | 'groupAdd'
  | 'groupRemove'
>;

/** New volumes that are made at a time: they share flushes of the journal. */
const BATCH = 64;
/** Requirements named in the message; all of them are in the details. */
const UNMET_SHOWN_MAX = 8;

export class Apply {
  readonly #context: DeviceContext;
  readonly #commands: ApplyCommands;
  /** Ends when the application before this one has ended. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(context: DeviceContext, commands: ApplyCommands) {
    this.#context = context;
    this.#commands = commands;
  }

  run(input: ApplyInput): Promise<ApplyView> {
    if (input.plan === true) return Promise.resolve().then(() => this.#view(this.#compare(input.declaration), true));
    const running = this.#turn.then(() => this.#apply(input));
    this.#turn = running.catch(() => undefined);
    return running;
  }

  /** @throws TwinvolError `UNMET` */
  #compare(declaration: Declaration): DeclarationPlan {
    const { store } = this.#context;
    const plan = planDeclaration(declaration, store.tables, { regionsPerPv: store.regionsPerPv });
    if (plan.unmet.length > 0) throw unmetError(plan);
    return plan;
  }

  async #apply({ declaration, consent }: ApplyInput): Promise<ApplyView> {
    const plan = this.#compare(declaration);
    if (plan.changes.length === 0) return this.#view(plan, false);
    const findings = await this.#ask(plan, consent);
    const { events, log } = this.#context;
    await this.#carryOut(plan.changes, (volume) => stepConsent(findings, volume, consent));
    log.info({ changes: plan.changes.length, met: plan.met }, 'a declaration was applied');
    events.append('notice', 'device', 'apply', {
      text: 'a declaration was applied',
      changes: plan.changes.map(({ text }) => text).slice(0, 100),
      count: plan.changes.length,
    });
    return this.#view(plan, false);
  }

  /** Asks about everything that would be overwritten at once. @throws TwinvolError `MOUNTED`, `NO_ANSWER`, `CONSENT_VOID` */
  async #ask(plan: DeclarationPlan, consent: Consent | undefined): Promise<readonly Finding[]> {
    const { store, gate } = this.#context;
    const targets = overwritten(plan).map((number) => store.tables.volume(number));
    if (targets.length === 0) return [];
    const permit = await gate.check({
      command: 'apply',
      targets: targets.map((row) => ({ number: row.number, name: row.name, destroys: wholeVolume(row) })),
      generation: targets.map((row) => `${row.uuid}:${row.attribute}:${row.capacityBytes}`).join(' '),
      ...(consent === undefined ? {} : { consent }),
    });
    await permit.ended(null);
    return permit.findings;
  }

  async #carryOut(changes: readonly DeclaredChange[], consentFor: (volume: number | null) => Consent | undefined): Promise<void> {
    for (let done = 0; done < changes.length; ) {
      const batch = batchAt(changes, done);
      const outcomes = await Promise.allSettled(batch.map(({ step, overwrites }) => this.#step(step, consentFor(overwrites))));
      const failed = outcomes.findIndex(({ status }) => status === 'rejected');
      const outcome = outcomes[failed];
      if (outcome?.status === 'rejected') {
        const made = changes.slice(0, done).concat(batch.filter((_, index) => outcomes[index]?.status === 'fulfilled'));
        throw stoppedError(batch[failed] as DeclaredChange, made, changes, outcome.reason);
      }
      done += batch.length;
    }
  }

  #step(step: DeclaredStep, consent: Consent | undefined): Promise<unknown> {
    const commands = this.#commands;
    const agreed = consent === undefined ? {} : { consent };
    switch (step.do) {
      case 'settings':
        return commands.settingsSet(step.changes);
      case 'volume-create':
        return commands.volumeCreate({
          name: step.name,
          sizeBytes: step.sizeBytes,
          attribute: step.attribute,
          protected: step.isProtected,
        });
      case 'volume-grow':
        return commands.volumeGrow({ volume: step.volume, sizeBytes: step.sizeBytes });
      case 'restore-size':
        return commands.poolRestoreSize({ volume: step.volume, ...agreed });
      case 'volume-set': {
        const { volume, attribute, isProtected } = step;
        return commands.volumeSet({
          volume,
          ...(attribute === undefined ? {} : { attribute }),
          ...(isProtected === undefined ? {} : { protected: isProtected }),
          ...agreed,
        });
      }
      case 'pair-create': {
        const { do: _, ...input } = step;
        return commands.pairCreate({ ...input, ...agreed });
      }
      case 'pair-set': {
        const { do: _, ...input } = step;
        return commands.pairSet(input);
      }
      case 'group-create':
        return commands.groupCreate({ name: step.name });
      case 'group-add':
        return commands.groupAdd({ name: step.name, primary: step.primary, secondary: step.secondary });
      case 'group-remove':
        return commands.groupRemove({ name: step.name, primary: step.primary, secondary: step.secondary });
    }
  }

  #view(plan: DeclarationPlan, isPlan: boolean): ApplyView {
    const { gate, store } = this.#context;
    const targets = overwritten(plan);
    const sum = (of: (change: DeclaredChange) => number): number => plan.changes.reduce((total, change) => total + of(change), 0);
    return {
      plan: isPlan,
      changes: plan.changes.map(({ at, kind, text }) => ({ at, kind, text })),
      met: plan.met,
      hosts: gate.hostsFor(targets),
      regions: sum(({ regions }) => regions),
      bytes: sum(({ bytes }) => bytes),
      destroysBytes: isPlan ? targets.reduce((total, number) => total + (store.tables.findVolume(number)?.capacityBytes ?? 0), 0) : 0,
    };
  }
}

const overwritten = ({ changes }: DeclarationPlan): number[] => [
  ...new Set(changes.map(({ overwrites }) => overwrites).filter((number) => number !== null)),
];

/** Volumes that are made side by side, or one change. */
const batchAt = (changes: readonly DeclaredChange[], first: number): readonly DeclaredChange[] => {
  let end = first;
  while (end < changes.length && end - first < BATCH && changes[end]?.step.do === 'volume-create') end += 1;
  return changes.slice(first, Math.max(first + 1, end));
};

/** What the operator decided about the findings on this volume, for the command that overwrites it. */
const stepConsent = (findings: readonly Finding[], volume: number | null, consent: Consent | undefined): Consent | undefined => {
  const overrides = [...new Set(findings.filter((finding) => finding.volume === volume).map(({ key }) => key))];
  if (overrides.length === 0 || consent === undefined) return undefined;
  const { token: _token, ...rest } = consent;
  return { ...rest, overrides, reason: consent.reason ?? 'the warning was shown and accepted when the declaration was applied' };
};

const unmetError = ({ unmet, changes }: DeclarationPlan): TwinvolError => {
  const lineOf = ({ at, requirement, reason }: Unmet): string => `${at}: ${requirement}: ${reason}`;
  const shown = unmet.slice(0, UNMET_SHOWN_MAX).map(lineOf);
  const more = unmet.length > shown.length ? [`and ${unmet.length - shown.length} more`] : [];
  const [only] = unmet;
  return new TwinvolError(
    'UNMET',
    `${unmet.length} requirements cannot be met, and nothing was changed: ${[...shown, ...more].join('; ')}`,
    {
      ...(unmet.length === 1 && only !== undefined ? { remedy: only.remedy } : {}),
      details: { unmet, changes: changes.map(({ at, kind, text }) => ({ at, kind, text })) },
    },
  );
};

const stoppedError = (
  failed: DeclaredChange,
  made: readonly DeclaredChange[],
  all: readonly DeclaredChange[],
  cause: unknown,
): TwinvolError => {
  const { code, message, details } = cause instanceof TwinvolError ? cause : new TwinvolError('INTERNAL', String(cause));
  // The token was for that command alone, and is none for the declaration.
  const { token: _token, ...facts } = details;
  return new TwinvolError(code, `apply stopped at ${failed.text}: ${message}; ${made.length} of ${all.length} changes were made and stay`, {
    remedy: 'mend that, then apply the declaration again: it goes on from there',
    details: { ...facts, failed: { at: failed.at, text: failed.text }, made: made.map(({ text }) => text) },
    cause,
  });
};
