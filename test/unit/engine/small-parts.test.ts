/** The engine's small pure parts: addresses, waits, the version. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { PairRow } from '../../../src/core/rows.ts';
import { parseHostPort } from '../../../src/engine/host-port.ts';
import { waitVerdict } from '../../../src/engine/pair-wait.ts';
import { VERSION } from '../../../src/engine/version.ts';

describe('a TCP address', () => {
  it.each([
    ['127.0.0.1:10809', { host: '127.0.0.1', port: 10_809 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['[::1]:7', { host: '::1', port: 7 }],
    [':10809', { host: '0.0.0.0', port: 10_809 }],
    ['10809', { host: '127.0.0.1', port: 10_809 }],
  ])('%s', (text, parsed) => {
    expect(parseHostPort(text)).toEqual(parsed);
  });
  it.each(['host', 'host:', 'host:70000', 'a:b:1', '[::1]', ''])('"%s" is refused', (text) => {
    expect(() => parseHostPort(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('waiting for a state', () => {
  const row: PairRow = {
    id: 1,
    primary: 1,
    secondary: 2,
    state: 'suspended',
    reason: 'secondary-error: EIO',
    dirtyRegionBytes: 65_536,
    fence: 'never',
    pace: 8,
    createdAtMs: 0,
    stateSinceMs: 0,
  };
  it('ends when the state is there, or cannot come by itself', () => {
    expect(waitVerdict(row, 'suspended')).toEqual({ kind: 'reached' });
    expect(waitVerdict(null, 'simplex')).toEqual({ kind: 'reached' });
    expect(waitVerdict(row, 'duplex')).toMatchObject({ kind: 'impossible', why: expect.stringContaining('secondary-error: EIO') });
    expect(waitVerdict(null, 'duplex')).toMatchObject({ kind: 'impossible', why: expect.stringContaining('released') });
    expect(waitVerdict({ ...row, state: 'duplex' }, 'split')).toEqual({ kind: 'waiting' });
  });
});

it('the version is that of the package', () => {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string };
  expect(VERSION).toBe(version);
});
