/**
 * One round of asking: which hosts were asked about which volumes, and what came back (specification 6, step 2).
 *
 * Pure: `advanceRound(state, event) -> state`. A host goes from `waiting` to `answered` or `no-answer`, once:
 *
 *   waiting --answer with the round's id--> answered     (more answers only ever ADD facts)
 *   waiting --lost, refused, deadline-----> no-answer    (final: a later answer changes nothing)
 *   answered --lost-----------------------> answered     (volumes that it said nothing about stay silent)
 *
 * Invariants: an event for another round, for a host that was not asked, or after the end changes nothing; facts are
 * never taken back, so a second answer cannot turn "mounted" into "not mounted"; two answers that contradict each other
 * leave a doubt (`unknown`) beside what they found; whoever says nothing ends as `no-answer`.
 */
import type { HostAnswer, HostFact, NoAnswerReason } from './mount-facts.ts';
import { areFactsSound, FACTS_PER_VOLUME_MAX, factIdentity } from './mount-facts.ts';

/** One host and the volumes that it is asked about. */
export type Asked = { readonly host: string; readonly volumes: readonly number[] };
/** What an answer says about one volume. */
export type VolumeFacts = { readonly volume: number; readonly facts: readonly HostFact[] };

export type RoundEvent =
  | {
      readonly kind: 'answer';
      readonly host: string;
      readonly id: string;
      readonly findings: readonly VolumeFacts[];
      readonly afterMs: number;
    }
  /** The host cannot answer any more: no agent, its connection ended, it said that it failed, or it sent nonsense. */
  | { readonly kind: 'lost'; readonly host: string; readonly reason: NoAnswerReason; readonly text: string }
  | { readonly kind: 'deadline'; readonly afterMs: number };

type Outcome =
  | { readonly kind: 'waiting' }
  | {
      readonly kind: 'answered';
      readonly facts: ReadonlyMap<number, readonly HostFact[]>;
      readonly afterMs: number;
      /** It was lost after its answer: of the volumes that it had said nothing about it can say nothing any more. */
      readonly isLost: boolean;
    }
  | { readonly kind: 'no-answer'; readonly reason: NoAnswerReason; readonly text: string };

export type Round = {
  readonly id: string;
  readonly asked: readonly Asked[];
  readonly outcomes: ReadonlyMap<string, Outcome>;
  /** The deadline has passed: nothing that comes now counts. */
  readonly isOver: boolean;
};

/** A host that is named twice is asked once, about the volumes of both. */
export const openRound = (id: string, asked: readonly Asked[]): Round => {
  const volumesOf = new Map<string, Set<number>>();
  for (const { host, volumes } of asked) volumesOf.set(host, new Set([...(volumesOf.get(host) ?? []), ...volumes]));
  const merged = [...volumesOf].map(([host, volumes]) => ({ host, volumes: [...volumes] }));
  return { id, asked: merged, outcomes: new Map(merged.map(({ host }) => [host, { kind: 'waiting' }])), isOver: false };
};

export const isRoundDone = (round: Round): boolean => {
  return round.isOver || ![...round.outcomes.values()].some((outcome) => outcome.kind === 'waiting');
};

/** The facts of both, without repetition. Where one side says "not mounted" and the other does not, a doubt is added. */
export const mergeFacts = (first: readonly HostFact[], second: readonly HostFact[]): readonly HostFact[] => {
  const byIdentity = new Map([...first, ...second].map((fact) => [factIdentity(fact), fact]));
  const facts = [...byIdentity.values()];
  if (areFactsSound(facts)) return facts;
  const doubt: HostFact = { kind: 'unknown', what: 'which of two answers is true', why: 'the host contradicted itself', connections: [] };
  const uses = facts.filter((fact) => fact.kind !== 'not-mounted' && factIdentity(fact) !== factIdentity(doubt));
  return [doubt, ...uses.slice(0, FACTS_PER_VOLUME_MAX - 1)];
};

const collectFacts = (findings: readonly VolumeFacts[], volumes: readonly number[]): ReadonlyMap<number, readonly HostFact[]> => {
  const collected = new Map<number, readonly HostFact[]>();
  const asked = new Set(volumes);
  for (const { volume, facts } of findings) {
    if (facts.length > 0 && asked.has(volume)) collected.set(volume, mergeFacts(collected.get(volume) ?? [], facts));
  }
  return collected;
};

const mergeAll = (
  former: ReadonlyMap<number, readonly HostFact[]>,
  later: ReadonlyMap<number, readonly HostFact[]>,
): ReadonlyMap<number, readonly HostFact[]> => {
  const merged = new Map(former);
  for (const [volume, facts] of later) merged.set(volume, mergeFacts(merged.get(volume) ?? [], facts));
  return merged;
};

const outcomeAfter = (round: Round, asked: Asked, outcome: Outcome, event: RoundEvent): Outcome => {
  switch (event.kind) {
    case 'answer': {
      if (event.host !== asked.host || event.id !== round.id || outcome.kind === 'no-answer') return outcome;
      const facts = collectFacts(event.findings, asked.volumes);
      if (outcome.kind === 'waiting') return { kind: 'answered', facts, afterMs: event.afterMs, isLost: false };
      const known = outcome.isLost ? new Map([...facts].filter(([volume]) => outcome.facts.has(volume))) : facts;
      return { ...outcome, facts: mergeAll(outcome.facts, known) };
    }
    case 'lost':
      if (event.host !== asked.host || outcome.kind === 'no-answer') return outcome;
      if (outcome.kind === 'answered') return { ...outcome, isLost: true };
      return { kind: 'no-answer', reason: event.reason, text: event.text };
    case 'deadline':
      if (outcome.kind !== 'waiting') return outcome;
      return { kind: 'no-answer', reason: 'deadline', text: `no answer within ${event.afterMs} ms` };
  }
};

export const advanceRound = (round: Round, event: RoundEvent): Round => {
  if (round.isOver) return round;
  const outcomes = new Map(round.outcomes);
  for (const asked of round.asked) {
    const outcome = outcomes.get(asked.host);
    if (outcome !== undefined) outcomes.set(asked.host, outcomeAfter(round, asked, outcome, event));
  }
  return { ...round, outcomes, isOver: event.kind === 'deadline' };
};

const answerFor = (host: string, volume: number, outcome: Outcome | undefined): HostAnswer => {
  const silent = (reason: NoAnswerReason, text: string): HostAnswer => ({ host, volume, outcome: 'no-answer', reason, text });
  if (outcome === undefined || outcome.kind === 'waiting') return silent('deadline', 'no answer yet');
  if (outcome.kind === 'no-answer') return silent(outcome.reason, outcome.text);
  const facts = outcome.facts.get(volume);
  if (facts === undefined) return silent('garbage', 'the answer says nothing about this volume');
  return { host, volume, outcome: 'answered', facts, afterMs: outcome.afterMs };
};

/** Exactly one answer for each host and volume asked, in the order asked; those still waiting count as silent. */
export const roundAnswers = (round: Round): readonly HostAnswer[] => {
  return round.asked.flatMap(({ host, volumes }) => volumes.map((volume) => answerFor(host, volume, round.outcomes.get(host))));
};
