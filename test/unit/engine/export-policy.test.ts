/** Who gets what over NBD: by pair state, by setting, by grant. */
import { describe, expect, it } from 'vitest';
import type { DeviceSettings, PairRow, PairedState, TableOp } from '../../../src/core/rows.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { Tables } from '../../../src/core/tables.ts';
import { MiB } from '../../../src/core/units.ts';
import type { PeerIdentity } from '../../../src/data/plane-api.ts';
import { DeviceExportPolicy } from '../../../src/engine/export-policy.ts';
import { PairBook } from '../../../src/engine/pair-book.ts';

const unix: PeerIdentity = { transport: 'unix', address: 'unix', certificateName: null, certificateSha256: null };
const tcp: PeerIdentity = { ...unix, transport: 'tcp', address: '10.0.0.1:1' };
const WEB_SHA256 = 'a'.repeat(64);
const web: PeerIdentity = { transport: 'tls', address: '10.0.0.1:1', certificateName: 'web', certificateSha256: WEB_SHA256 };
const formerWeb: PeerIdentity = { ...web, certificateSha256: 'b'.repeat(64) };

const volume = (number: number, attribute: 'normal' | 'secondary'): TableOp => ({
  op: 'volume-put',
  row: {
    number,
    name: `v${number}`,
    capacityBytes: MiB,
    attribute,
    runs: [{ pv: 1, start: number, count: 1 }],
    isProtected: false,
    uuid: `u${number}`,
    createdAtMs: 0,
  },
});
const pair = (id: number, secondary: number, state: PairedState, stateSinceMs = 0): PairRow => ({
  id,
  primary: 1,
  secondary,
  state,
  ...(state === 'duplex-pending' ? { copy: 'initial' as const } : {}),
  dirtyRegionBytes: 65_536,
  fence: 'never',
  pace: 8,
  createdAtMs: 0,
  stateSinceMs,
});
const policyOf = (pairs: readonly PairRow[], settings: Partial<DeviceSettings> = {}) => {
  const tables = new Tables({ regionBytes: MiB });
  tables.apply([
    { op: 'pv-put', row: { number: 1, regions: 64 } },
    volume(1, 'normal'),
    volume(2, 'secondary'),
    volume(3, 'secondary'),
    ...pairs.map((row) => ({ op: 'pair-put', row }) as const),
    {
      op: 'host-put',
      row: { name: 'web', tokenSha256: '0'.repeat(64), grants: { 1: 'ro', 2: 'rw' }, certificates: [WEB_SHA256], createdAtMs: 0 },
    },
    { op: 'settings-put', settings: { ...SETTINGS_DEFAULT, ...settings } },
  ]);
  const book = new PairBook(tables);
  return { policy: new DeviceExportPolicy(tables, book), book };
};

describe('a secondary', () => {
  for (const state of ['duplex-pending', 'duplex', 'suspended'] as const) {
    it(`of a pair that is ${state} refuses hosts, or is read-only by the setting`, () => {
      expect(policyOf([pair(1, 2, state)]).policy.find('v2', unix)).toMatchObject({
        refused: 'policy',
        message: expect.stringContaining(state),
      });
      expect(policyOf([pair(1, 2, state)], { secondaryAccess: 'read-only' }).policy.find('v2', unix)).toMatchObject({
        volume: 2,
        readOnly: true,
      });
    });
  }
  it('of a split pair is an ordinary volume, and so is one of the pool', () => {
    const { policy } = policyOf([pair(1, 2, 'split')]);
    expect(policy.find('v2', unix)).toMatchObject({ volume: 2, readOnly: false, dirty: { pair: 1, side: 'secondary' } });
    expect(policy.find('3', unix)).toMatchObject({ volume: 3, readOnly: false, dirty: null });
  });
  it('whose pair was suspended a moment ago refuses hosts before that is journalled', () => {
    const { policy, book } = policyOf([pair(1, 2, 'split')]);
    book.runAhead(pair(1, 2, 'suspended'));
    expect(policy.find('v2', unix)).toMatchObject({ refused: 'policy' });
  });
});

it('a primary offers the bitmap of the pair that was split or suspended first', () => {
  expect(policyOf([pair(1, 2, 'duplex'), pair(2, 3, 'split', 5)]).policy.find('v1', unix)).toMatchObject({
    dirty: { pair: 2, side: 'primary' },
  });
  expect(policyOf([pair(1, 2, 'split', 9), pair(2, 3, 'suspended', 5)]).policy.find('1', unix)).toMatchObject({ dirty: { pair: 2 } });
  expect(policyOf([pair(1, 2, 'duplex')]).policy.find('v1', unix)).toMatchObject({ readOnly: false, dirty: { pair: 1 } });
});

describe('with exports that follow grants', () => {
  const { policy } = policyOf([], { exportsFollowGrants: true });
  it('a volume that was not granted does not exist, in the list and by name', () => {
    expect(policy.list(web).map((entry) => entry.name)).toEqual(['v1', 'v2']);
    expect(policy.find('v3', web)).toEqual({ ...(policy.find('nobody', web) as object), message: 'there is no export "v3"' });
    expect(policy.list(tcp)).toEqual([]);
    expect(policy.find('v1', tcp)).toMatchObject({ refused: 'unknown' });
  });
  it('a certificate of the right name that is not bound to the host proves nothing', () => {
    expect(policy.list(formerWeb)).toEqual([]);
    expect(policy.find('v1', formerWeb)).toEqual(policy.find('v1', tcp));
    expect(policyOf([]).policy.find('v1', formerWeb)).toMatchObject({ volume: 1, host: null });
  });
  it("the device's own user, who comes by the unix socket, has every volume", () => {
    expect(policy.list(unix).map((entry) => entry.name)).toEqual(['v1', 'v2', 'v3']);
    expect(policy.find('v3', unix)).toMatchObject({ volume: 3, readOnly: false, host: null });
  });
  it('a grant says how', () => {
    expect(policy.find('v1', web)).toMatchObject({ readOnly: true, host: 'web' });
    expect(policy.find('v2', web)).toMatchObject({ readOnly: false, host: 'web' });
  });
});

it('a stopping device lets nobody in', () => {
  const { policy } = policyOf([]);
  policy.stop();
  expect(policy.find('v1', unix)).toMatchObject({ refused: 'shutdown' });
  expect(policy.list(unix)).toEqual([]);
});
