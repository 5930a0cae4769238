import { describe, expect, it } from 'vitest';
import type { RoundEvent } from '../../../src/core/inquiry-round.ts';
import { advanceRound, isRoundDone, mergeFacts, openRound, roundAnswers } from '../../../src/core/inquiry-round.ts';
import type { HostAnswer, HostFact, OpenFact } from '../../../src/core/mount-facts.ts';

const CLEAN: HostFact = { kind: 'not-mounted' };
const OPEN: OpenFact = { kind: 'open', device: '/dev/nbd0', layers: [], processes: [{ name: 'dd', pid: 7 }], connections: [] };
const ASKED = [
  { host: 'a', volumes: [1, 2] },
  { host: 'b', volumes: [1] },
];

const answer = (host: string, facts: readonly HostFact[], id = 'i', volumes: readonly number[] = [1, 2]): RoundEvent => {
  return { kind: 'answer', host, id, findings: volumes.map((volume) => ({ volume, facts })), afterMs: 5 };
};
const after = (...events: readonly RoundEvent[]) => events.reduce(advanceRound, openRound('i', ASKED));
const said = (answers: readonly HostAnswer[]): string[] =>
  answers.map(
    (one) => `${one.host}${one.volume} ${one.outcome === 'answered' ? one.facts.map((fact) => fact.kind).join('+') : one.reason}`,
  );

describe('a round of asking', () => {
  it('is done when every host has answered', () => {
    const half = after(answer('a', [CLEAN]));
    expect(isRoundDone(half)).toBe(false);
    expect(said(roundAnswers(half))).toEqual(['a1 not-mounted', 'a2 not-mounted', 'b1 deadline']);
    const full = advanceRound(half, answer('b', [OPEN]));
    expect(isRoundDone(full)).toBe(true);
    expect(said(roundAnswers(full))).toEqual(['a1 not-mounted', 'a2 not-mounted', 'b1 open']);
  });

  it('ends at the deadline, and takes nothing after it', () => {
    const over = after(answer('a', [CLEAN]), { kind: 'deadline', afterMs: 3000 }, answer('b', [CLEAN]));
    expect(isRoundDone(over)).toBe(true);
    expect(roundAnswers(over)[2]).toEqual({
      host: 'b',
      volume: 1,
      outcome: 'no-answer',
      reason: 'deadline',
      text: 'no answer within 3000 ms',
    });
  });

  it('ignores answers to other inquiries, from hosts that were not asked, and about other volumes', () => {
    const round = after(answer('a', [CLEAN], 'other'), answer('c', [CLEAN]), answer('b', [CLEAN], 'i', [7]));
    expect(said(roundAnswers(round))).toEqual(['a1 deadline', 'a2 deadline', 'b1 garbage']);
  });

  it('does not take from a host that was lost what it had not said before', () => {
    const lost: RoundEvent = { kind: 'lost', host: 'a', reason: 'disconnected', text: 'cut' };
    const round = after(answer('a', [CLEAN], 'i', [1]), lost, answer('a', [CLEAN]), answer('a', [OPEN], 'i', [1]));
    expect(said(roundAnswers(round))).toEqual(['a1 unknown+open', 'a2 garbage', 'b1 deadline']);
  });

  it('does not take an answer of a host that was lost', () => {
    const round = after({ kind: 'lost', host: 'a', reason: 'disconnected', text: 'cut' }, answer('a', [CLEAN]));
    expect(said(roundAnswers(round)).slice(0, 2)).toEqual(['a1 disconnected', 'a2 disconnected']);
  });

  it('keeps what was found when the same host then says that there is nothing, in either order', () => {
    for (const events of [
      [answer('b', [OPEN]), answer('b', [CLEAN])],
      [answer('b', [CLEAN]), answer('b', [OPEN])],
    ]) {
      const kinds = said(roundAnswers(after(...events)))[2];
      expect(kinds).toBe('b1 unknown+open');
    }
  });

  it('takes the same answer twice as one, and an answer that comes in two parts as a whole', () => {
    expect(said(roundAnswers(after(answer('b', [CLEAN]), answer('b', [CLEAN]))))[2]).toBe('b1 not-mounted');
    expect(said(roundAnswers(after(answer('a', [CLEAN], 'i', [1]), answer('a', [OPEN], 'i', [2])))).slice(0, 2)).toEqual([
      'a1 not-mounted',
      'a2 open',
    ]);
  });

  it('asks a host once that is named twice', () => {
    const round = openRound('i', [
      { host: 'a', volumes: [1] },
      { host: 'a', volumes: [2, 1] },
    ]);
    expect(round.asked).toEqual([{ host: 'a', volumes: [1, 2] }]);
  });

  it('takes an empty list of facts for no answer', () => {
    expect(said(roundAnswers(after(answer('b', []))))[2]).toBe('b1 garbage');
  });

  it('keeps the limit of facts when answers add up', () => {
    const many = (from: number): HostFact[] => Array.from({ length: 200 }, (_, index) => ({ ...OPEN, device: `/dev/${from + index}` }));
    const merged = mergeFacts(many(0), many(200));
    expect(merged).toHaveLength(256);
    expect(merged[0]?.kind).toBe('unknown');
  });
});
