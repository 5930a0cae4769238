/** Consent: what the operator sees, that "no" is the default, and that a consent goes with what was shown. */
import { describe, expect, it } from 'vitest';
import { TwinvolError } from '../../../src/core/faults.ts';
import type { Consent, PairCommandInput } from '../../../src/engine/api.ts';
import { pairView } from '../control/scripted-engine.ts';
import { type Device, device } from './command-line.ts';

const DESTROYS = { volumeName: 'db-copy', regions: 48, bytes: 3 * 1024 * 1024, firstAtMs: null, lastAtMs: null, since: 'since the split' };
const LOSS = 'going on destroys what was written on db-copy since the split: 3 MiB in 48 regions';

const refusal = (code: 'MOUNTED' | 'NO_ANSWER' | 'CONSENT_VOID', token: string, text: string): TwinvolError => {
  return new TwinvolError(code, `pair resync was not done: ${text}`, {
    details: {
      token,
      findings: [{ key: 'mounted:web1', text }],
      destroys: [DESTROYS],
    },
  });
};

/** What goes with a command of which nothing was decided yet: who asks, for the audit record. */
const ASKING: Consent = { by: 'op' };

/** An engine that refuses until the consent is for the present facts; the facts go on with each call. */
const guarded = async (facts: readonly string[]): Promise<{ line: Device['line']; consents: Array<Consent | undefined> }> => {
  const consents: Array<Consent | undefined> = [];
  const { line } = await device({
    pairResync: async ({ consent }: PairCommandInput) => {
      const now = Math.min(consents.length, facts.length - 1);
      consents.push(consent);
      const token = `token-${now}`;
      if (consent?.overrides?.includes('mounted:web1') === true || consent?.token === token)
        return pairView({ state: 'duplex-pending', copy: 'resync' });
      throw refusal(consent?.token === undefined ? 'MOUNTED' : 'CONSENT_VOID', token, facts[now] ?? '');
    },
  });
  return { line, consents };
};

describe('consent', () => {
  it('is asked for on a terminal with the warnings, and sent as the token of what was shown', async () => {
    const { line, consents } = await guarded(['web1 has db-copy mounted at /mnt']);
    const { exit, out, err, asked } = await line('pair resync db', { answers: ['yes'] });
    expect({ exit, out, asked }).toEqual({
      exit: 0,
      out: 'pair db -> db-copy resyncs, now duplex-pending\n',
      asked: ['resync the pair of db anyway, destroying 3 MiB on db-copy? [y/N] '],
    });
    expect(err).toBe(`WARNING: web1 has db-copy mounted at /mnt\nWARNING: ${LOSS}\n`);
    expect(consents).toEqual([ASKING, { token: 'token-0', by: 'op' }]);
  });

  it.each([[''], ['n'], ['maybe'], [null]])('is not given by %j: exit 11, and what did not happen', async (answer) => {
    const { line, consents } = await guarded(['web1 has db-copy mounted at /mnt']);
    const { exit, out, err } = await line('pair resync db', { answers: [answer] });
    expect({ exit, out }).toEqual({ exit: 11, out: '' });
    expect(err).toContain('twinvol: the pair of db was not resynced [MOUNTED]');
    expect(err.match(/mounted at \/mnt/g)).toHaveLength(1);
    expect(consents).toEqual([ASKING]);
  });

  it('is asked for by what is overwritten, where no host has written anything', async () => {
    const { line } = await device({
      pairResync: async () => {
        throw new TwinvolError('MOUNTED', 'in use', {
          details: { token: 't', findings: [{ key: 'mounted:web1', text: 'x' }], destroys: [{ ...DESTROYS, regions: 0, bytes: 0 }] },
        });
      },
    });
    expect((await line('pair resync db', { answers: ['n'] })).asked).toEqual(['resync the pair of db anyway, overwriting db-copy? [y/N] ']);
  });

  it('is asked for anew when the facts have changed', async () => {
    const { line, consents } = await guarded(['web1 has it mounted', 'web1 and web2 have it mounted']);
    const { exit, err, asked } = await line('pair resync db', { answers: ['y', 'y'] });
    expect(exit).toBe(0);
    expect(asked).toHaveLength(2);
    expect(err).toContain('the facts have changed since the warning');
    expect(consents).toEqual([ASKING, { token: 'token-0', by: 'op' }, { token: 'token-1', by: 'op' }]);
  });

  it('is refused as what was shown last, when the facts have changed and the answer is no', async () => {
    const { line } = await guarded(['web1 has it mounted', 'web1 and web2 have it mounted']);
    const { exit, err } = await line('pair resync db', { answers: ['y', 'n'] });
    expect(exit).toBe(11);
    expect(err).toContain('twinvol: the pair of db was not resynced [MOUNTED]');
  });

  it('is refused in scripts with the facts: text, and JSON', async () => {
    const { line } = await guarded(['web1 has db-copy mounted at /mnt']);
    const text = await line('pair resync db');
    expect(text).toMatchObject({ exit: 11, asked: [], out: '' });
    expect(text.err).toContain(`  warning: ${LOSS}\n`);
    const json = await line('pair resync db --json', { answers: ['y'] });
    expect(json).toMatchObject({ exit: 11, asked: [] });
    expect(JSON.parse(json.err).error).toMatchObject({
      code: 'MOUNTED',
      exit: 11,
      details: { token: 'token-0', findings: [{ key: 'mounted:web1' }] },
    });
  });

  it('is given by an override with a reason, without a question', async () => {
    const { line, consents } = await guarded(['web1 has db-copy mounted at /mnt']);
    expect(await line("pair resync db --override mounted:web1 --override client:4 --reason 'test data'", { answers: [] })).toMatchObject({
      exit: 0,
      asked: [],
    });
    expect(consents).toEqual([{ overrides: ['mounted:web1', 'client:4'], reason: 'test data', by: 'op' }]);
  });

  it('exits 12 when a host did not answer, and shows findings that have no warnings', async () => {
    const { line } = await device({
      pairResync: async () => {
        throw new TwinvolError('NO_ANSWER', 'web2 did not answer', {
          details: { token: 't', findings: [{ key: 'no-answer:web2', text: 'web2 \u001b[31mdid not answer' }] },
        });
      },
    });
    const { exit, err } = await line('pair resync db');
    expect(exit).toBe(12);
    expect(err).toContain('warning: web2 \\u{1b}[31mdid not answer');
  });
});
