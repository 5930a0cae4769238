/**
 * What no sequence of events may bring about: that the mount inquiry lets a command go on although a host did not say
 * that it does not use the volume.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { consentToken, decideConsent } from '../../src/core/consent.ts';
import type { LiveConnection } from '../../src/core/inquiry.ts';
import { verdictOf } from '../../src/core/inquiry.ts';
import type { RoundEvent } from '../../src/core/inquiry-round.ts';
import { advanceRound, openRound, roundAnswers } from '../../src/core/inquiry-round.ts';
import type { HostFact, InquiryTarget, NoAnswerReason } from '../../src/core/mount-facts.ts';
import { parseFromAgent } from '../../src/wire/agent-messages.ts';
import { LineDecoder } from '../../src/wire/line-decoder.ts';

const HOSTS = ['a', 'b', 'c'];
const VOLUMES = [1, 2];
const TARGETS: readonly InquiryTarget[] = VOLUMES.map((volume) => ({ volume, name: `v${volume}`, uris: [] }));

const ref = fc.constantFrom('unix:1', 'unix:2', 'tcp:10.0.0.1:5');
const refs = fc.array(ref, { maxLength: 2 });
const fact: fc.Arbitrary<HostFact> = fc.oneof(
  fc.constant<HostFact>({ kind: 'not-mounted' }),
  fc.record({ kind: fc.constant('unknown' as const), what: fc.constantFrom('x', 'y'), why: fc.constant('z'), connections: refs }),
  fc.record({
    kind: fc.constant('open' as const),
    device: fc.constantFrom('/dev/nbd0', '/dev/nbd1'),
    layers: fc.constant([]),
    processes: fc.constant([{ name: 'p', pid: 1 }]),
    connections: refs,
  }),
);
const findings = fc.array(fc.record({ volume: fc.constantFrom(1, 2, 3), facts: fc.array(fact, { maxLength: 3 }) }), { maxLength: 3 });
const reason = fc.constantFrom<NoAnswerReason>('no-agent', 'disconnected', 'garbage', 'error');
const event: fc.Arbitrary<RoundEvent> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('answer' as const),
      host: fc.constantFrom(...HOSTS, 'd'),
      id: fc.constantFrom('i', 'j'),
      findings,
      afterMs: fc.nat(9),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('lost' as const), host: fc.constantFrom(...HOSTS), reason, text: fc.constant('gone') }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('deadline' as const), afterMs: fc.constant(3000) }) },
);
const denials: readonly RoundEvent[] = HOSTS.map((host) => {
  return { kind: 'answer', host, id: 'i', findings: VOLUMES.map((volume) => ({ volume, facts: [{ kind: 'not-mounted' }] })), afterMs: 1 };
});
/** Anything at all, or denials of all hosts with a few other events between them: the first alone is hardly ever clear. */
const events = fc.oneof(
  fc.array(event, { maxLength: 12 }),
  fc.array(event, { maxLength: 3 }).chain((more) => fc.shuffledSubarray([...denials, ...more], { minLength: HOSTS.length })),
);
const connection: fc.Arbitrary<LiveConnection> = fc.record({
  id: fc.nat(5),
  volume: fc.constantFrom(null, 1, 2, 3),
  host: fc.constantFrom(null, ...HOSTS),
  peer: fc.constant('unix'),
  refs,
});

const asked = HOSTS.map((host) => ({ host, volumes: VOLUMES }));
const judge = (happened: readonly RoundEvent[], connections: readonly LiveConnection[]) => {
  const answers = roundAnswers(happened.reduce(advanceRound, openRound('i', asked)));
  return verdictOf({ targets: TARGETS, asked, answers, connections });
};

/** The slow and obvious rule: what each host said about each volume before the end, all of it. */
const statements = (happened: readonly RoundEvent[], host: string, volume: number): readonly HostFact[] => {
  const said: HostFact[] = [];
  for (const one of happened) {
    if (one.kind === 'deadline' || (one.kind === 'lost' && one.host === host && said.length === 0)) break;
    if (one.kind === 'answer' && one.id === 'i' && one.host === host)
      said.push(...one.findings.filter((finding) => finding.volume === volume).flatMap((finding) => finding.facts));
  }
  return said;
};

describe('whatever the agents say, in whatever order', () => {
  it('the verdict is clear only if every host said "not mounted", or doubted only connections that are known to be of other volumes', () => {
    let cleared = 0;
    fc.assert(
      fc.property(events, fc.array(connection, { maxLength: 2 }), (happened, connections) => {
        if (!judge(happened, connections).clear) return;
        cleared += 1;
        expect(connections.filter((live) => VOLUMES.includes(live.volume ?? 0))).toEqual([]);
        for (const host of HOSTS) {
          for (const volume of VOLUMES) {
            const said = statements(happened, host, volume);
            expect(said.length).toBeGreaterThan(0);
            for (const one of said) {
              expect(['not-mounted', 'unknown']).toContain(one.kind);
              if (one.kind === 'unknown') expect(one.connections.length).toBeGreaterThan(0);
            }
          }
        }
      }),
      { numRuns: 3000 },
    );
    // The rule above says nothing unless some of the sequences were clear.
    expect(cleared).toBeGreaterThan(50);
  });

  it('silence never counts: a host without an answer to this inquiry before its end is a finding', () => {
    fc.assert(
      fc.property(events, fc.constantFrom(...HOSTS), (happened, silentHost) => {
        const others = happened.filter((one) => one.kind !== 'answer' || one.host !== silentHost || one.id !== 'i');
        const keys = judge(others, []).findings.map((finding) => finding.key);
        expect(keys.filter((key) => key === `no-answer:${silentHost}`)).toHaveLength(VOLUMES.length);
      }),
    );
  });

  it('more answers never take a use back', () => {
    fc.assert(
      fc.property(events, event, (happened, one) => {
        const uses = (list: readonly RoundEvent[]): string[] =>
          judge(list, [])
            .findings.filter((finding) => finding.kind === 'open')
            .map((finding) => `${finding.volume} ${finding.host ?? ''} ${finding.identity}`);
        expect(uses([...happened, one])).toEqual(expect.arrayContaining(uses(happened)));
      }),
    );
  });

  it('a volume with a live connection is never clear', () => {
    fc.assert(
      fc.property(events, fc.array(connection, { maxLength: 4 }), connection, (happened, connections, live) => {
        expect(judge(happened, [...connections, { ...live, volume: 1 }]).clear).toBe(false);
      }),
    );
  });

  it('the same answers give the same verdict and token in every order', () => {
    fc.assert(
      fc.property(
        events.map((happened) => roundAnswers(happened.reduce(advanceRound, openRound('i', asked)))),
        fc.array(connection, { maxLength: 4 }),
        fc.infiniteStream(fc.nat()),
        (answers, connections, keys) => {
          const shuffled = <T>(list: readonly T[]): T[] =>
            list
              .map((value) => [keys.next().value as number, value] as const)
              .sort((a, b) => a[0] - b[0])
              .map(([, value]) => value);
          const one = verdictOf({ targets: TARGETS, asked, answers, connections });
          const other = verdictOf({
            targets: TARGETS,
            asked: shuffled(asked),
            answers: shuffled(answers),
            connections: shuffled(connections),
          });
          const scope = { command: 'pair resync', volumes: VOLUMES, generation: '1' };
          expect(other.findings.map((finding) => finding.key)).toEqual(one.findings.map((finding) => finding.key));
          expect(consentToken(scope, other.findings)).toBe(consentToken(scope, one.findings));
        },
      ),
    );
  });
});

describe('whatever an operator or a script claims', () => {
  it('a command with findings goes on only with the token of exactly these, or with all of them named and a reason', () => {
    const scope = { command: 'pair resync', volumes: VOLUMES, generation: '1' };
    const key = fc.constantFrom<string>('open:a', 'open:b', 'no-answer:a', 'no-answer:b', 'no-answer:c', 'unknown:a', 'client:1');
    fc.assert(
      fc.property(
        events,
        events,
        fc.array(key, { maxLength: 6 }),
        fc.constantFrom(undefined, '', 'a reason'),
        fc.boolean(),
        (shownEvents, happened, overrides, why, withToken) => {
          const shown = judge(shownEvents, []);
          const found = judge(happened, []);
          const token = consentToken(scope, shown.findings);
          const consent = { overrides, ...(why === undefined ? {} : { reason: why }), ...(withToken ? { token } : {}) };
          let isGoing = true;
          try {
            decideConsent(scope, found, consent);
          } catch {
            isGoing = false;
          }
          const isSame = token === consentToken(scope, found.findings);
          const isNamed =
            found.findings.every((finding) => overrides.includes(finding.key)) && (overrides.length === 0 || why === 'a reason');
          const isConsented = withToken && isSame && overrides.length === 0;
          if (isGoing && !found.clear) expect(isConsented || isNamed).toBe(true);
          if (isGoing && withToken) expect(isSame).toBe(true);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('whatever bytes an agent sends', () => {
  it('they become messages, malformed ones included, and never an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const line of new LineDecoder(100).push(bytes)) expect(parseFromAgent(line)).toHaveProperty('type');
      }),
    );
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(parseFromAgent(text)).toHaveProperty('type');
      }),
    );
  });
});
