import { describe, expect, it } from 'vitest';
import type { ConsentInput, ConsentScope } from '../../../src/core/consent.ts';
import { consentToken, decideConsent } from '../../../src/core/consent.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import type { Finding, Verdict } from '../../../src/core/inquiry.ts';

const SCOPE: ConsentScope = { command: 'pair resync', volumes: [2], generation: '17' };
const finding = (key: string, more: Partial<Finding> = {}): Finding => ({
  key,
  kind: key.slice(0, key.indexOf(':')) as Finding['kind'],
  volume: 2,
  host: 'a',
  text: `text of ${key}`,
  device: null,
  mountPoint: null,
  fileSystem: null,
  access: null,
  layers: [],
  processes: [],
  clients: [],
  identity: key,
  ...more,
});
const verdict = (...findings: Finding[]): Verdict => ({ findings, clear: findings.length === 0 });
const decide = (found: Verdict, consent?: ConsentInput, scope = SCOPE) => decideConsent(scope, found, consent);
const errorOf = (action: () => unknown): TwinvolError => {
  try {
    action();
  } catch (error) {
    if (error instanceof TwinvolError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
};

describe('consent', () => {
  it('is not needed where nothing was found', () => {
    expect(decide(verdict()).kind).toBe('clear');
  });

  it('is missing: any use is MOUNTED, silence and doubt alone are NO_ANSWER', () => {
    const use = errorOf(() => decide(verdict(finding('no-answer:a'), finding('open:b'))));
    expect(use).toMatchObject({ code: 'MOUNTED', exitStatus: 11, message: 'pair resync was not done: text of open:b, and 1 more' });
    expect(use.remedy).toBe('end the use on that host, or override: --override no-answer:a --override open:b --reason TEXT');
    expect(errorOf(() => decide(verdict(finding('no-answer:a'))))).toMatchObject({ code: 'NO_ANSWER', exitStatus: 12 });
    expect(errorOf(() => decide(verdict(finding('unknown:a'))))).toMatchObject({ code: 'NO_ANSWER', exitStatus: 12 });
    expect(errorOf(() => decide(verdict(finding('client:7'))))).toMatchObject({ code: 'MOUNTED' });
  });

  it('is asked for with the facts: findings, their token, the lines of the warning, what would be lost', () => {
    const destructions = [{ volumeName: 'r1', regions: 1, bytes: 65536, firstAtMs: null, lastAtMs: null, since: 'since the split' }];
    const error = errorOf(() => decide(verdict(finding('open:b')), {}, { ...SCOPE, destructions }));
    expect(error.details).toMatchObject({
      findings: [{ key: 'open:b' }],
      warnings: ['text of open:b', 'going on destroys what was written on r1 since the split: 64 KiB in 1 region'],
      destroys: destructions,
    });
    const { token } = error.details as { token: string };
    expect(decide(verdict(finding('open:b')), { token }, { ...SCOPE, destructions }).kind).toBe('consented');
  });

  it('is void when more would be lost than was shown, or something was written since, be it in the same regions', () => {
    const loss = { volumeName: 'r1', regions: 1, bytes: 65536, firstAtMs: 1000, lastAtMs: 1000, since: 'since the split' };
    const shown = verdict(finding('open:b'));
    const token = consentToken({ ...SCOPE, destructions: [loss] }, shown.findings);
    const again = { ...SCOPE, destructions: [{ ...loss, lastAtMs: 2000 }] };
    expect(errorOf(() => decide(shown, { token }, again))).toMatchObject({ code: 'CONSENT_VOID' });
    expect(decide(shown, { token }, { ...SCOPE, destructions: [{ ...loss }] }).kind).toBe('consented');
    const grown = { ...SCOPE, destructions: [{ ...loss, regions: 2, bytes: 131072 }] };
    const error = errorOf(() => decide(shown, { token }, grown));
    expect(error).toMatchObject({ code: 'CONSENT_VOID', details: { destroys: [{ regions: 2 }] } });
    expect(error.remedy).toContain('--override open:b --reason TEXT');
  });

  it('is void when anything of what was shown has changed', () => {
    const shown = [finding('mounted:a'), finding('no-answer:b')];
    const token = consentToken(SCOPE, shown);
    const changes: [Verdict, ConsentScope][] = [
      [verdict(...shown, finding('open:c')), SCOPE],
      [verdict(finding('mounted:a')), SCOPE],
      [verdict(), SCOPE],
      [verdict(finding('mounted:a', { identity: 'another mount point' }), finding('no-answer:b')), SCOPE],
      [verdict(...shown.map((one) => ({ ...one, volume: 3 }))), SCOPE],
      [verdict(...shown), { ...SCOPE, generation: '18' }],
      [verdict(...shown), { ...SCOPE, volumes: [2, 3] }],
      [verdict(...shown), { ...SCOPE, command: 'pair restore' }],
    ];
    for (const [found, scope] of changes) {
      const error = errorOf(() => decide(found, { token }, scope));
      expect(error).toMatchObject({ code: 'CONSENT_VOID', exitStatus: 3 });
      expect(error.details['token']).not.toBe(token);
    }
  });

  it('does not depend on the order of findings, nor on their words', () => {
    const [a, b] = [finding('mounted:a'), finding('open:b')];
    expect(consentToken(SCOPE, [a, b])).toBe(consentToken(SCOPE, [{ ...b, text: 'other words' }, a]));
  });
});

describe('an override', () => {
  const found = verdict(finding('mounted:a'), finding('mounted:a', { identity: 'second' }), finding('no-answer:b'));

  it('has to name every finding, and to give a reason', () => {
    const decision = decide(found, { overrides: ['no-answer:b', 'mounted:a', 'mounted:a'], reason: ' b is scrapped ' });
    expect(decision).toMatchObject({ kind: 'overridden', overrides: ['mounted:a', 'no-answer:b'], reason: 'b is scrapped' });
    expect(errorOf(() => decide(found, { overrides: ['mounted:a'], reason: 'x' }))).toMatchObject({ code: 'NO_ANSWER' });
    expect(errorOf(() => decide(found, { overrides: ['no-answer:b'], reason: 'x' }))).toMatchObject({ code: 'MOUNTED' });
    expect(errorOf(() => decide(found, { overrides: ['mounted:a', 'no-answer:b'] }))).toMatchObject({ code: 'USAGE', exitStatus: 64 });
    expect(errorOf(() => decide(found, { overrides: ['mounted:a', 'no-answer:b'], reason: '  ' }))).toMatchObject({ code: 'USAGE' });
  });

  it('of what is not there is void, and of what is no finding is a mistake', () => {
    expect(errorOf(() => decide(found, { overrides: ['open:a'], reason: 'x' }))).toMatchObject({ code: 'CONSENT_VOID' });
    expect(errorOf(() => decide(verdict(), { overrides: ['mounted:a'], reason: 'x' }))).toMatchObject({
      code: 'CONSENT_VOID',
      remedy: 'nothing uses the volume now: repeat the command without a consent',
    });
    for (const key of ['', 'mounted', 'mounted:', 'client:x', 'all', 'force:a']) {
      expect(errorOf(() => decide(found, { overrides: [key], reason: 'x' }))).toMatchObject({ code: 'USAGE' });
    }
  });

  it('together with a token needs both to fit', () => {
    const token = consentToken(SCOPE, found.findings);
    const overrides = ['mounted:a', 'no-answer:b'];
    expect(decide(found, { token, overrides, reason: 'x' }).kind).toBe('overridden');
    expect(errorOf(() => decide(found, { token: 'old', overrides, reason: 'x' }))).toMatchObject({ code: 'CONSENT_VOID' });
    expect(errorOf(() => decide(found, { token, overrides: ['mounted:a'], reason: 'x' }))).toMatchObject({ code: 'NO_ANSWER' });
  });

  it('has limits', () => {
    expect(errorOf(() => decide(found, { overrides: ['mounted:a'], reason: 'x'.repeat(1001) }))).toMatchObject({ code: 'USAGE' });
    const many = Array.from({ length: 5000 }, (_, index) => `client:${index}`);
    expect(errorOf(() => decide(found, { overrides: many, reason: 'x' }))).toMatchObject({ code: 'USAGE' });
  });
});
