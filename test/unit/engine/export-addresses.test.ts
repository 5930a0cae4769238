/** Under which addresses hosts reach an export: what an inquiry names so that a host recognises its uses. */
import { describe, expect, it } from 'vitest';
import { EventLog } from '../../../src/core/event-log.ts';
import type { HostRow, TableOp } from '../../../src/core/rows.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { Tables } from '../../../src/core/tables.ts';
import { MiB } from '../../../src/core/units.ts';
import { ExportAddresses } from '../../../src/engine/export-addresses.ts';
import { TableDirectory } from '../../../src/engine/host-directory.ts';
import { ownAddresses } from '../../../src/platform/own-addresses.ts';
import { parseNbdUri } from '../../../src/wire/nbd-uri.ts';

const LOCAL = ['127.0.0.1', '::1', '192.0.2.7', '2001:db8::7'];
const addressesOf = (uris: readonly string[], advertised: ReadonlyArray<{ host: string; port: number }> = []): ExportAddresses => {
  const addresses = new ExportAddresses(() => LOCAL);
  addresses.set(
    uris.map((uri) => parseNbdUri(uri)),
    advertised,
  );
  return addresses;
};

describe('the addresses of an export', () => {
  it('are the sockets as they are, where they are bound to one place', () => {
    const addresses = addressesOf(['nbd+unix:///?socket=/run/nbd.sock', 'nbd://192.0.2.7:10810/']);
    expect(addresses.urisOf('db')).toEqual(['nbd+unix:///db?socket=/run/nbd.sock', 'nbd://192.0.2.7:10810/db']);
    expect(addresses.uriOf('db')).toBe('nbd+unix:///db?socket=/run/nbd.sock');
    expect(addresses.bases()).toEqual(['nbd+unix:///?socket=/run/nbd.sock', 'nbd://192.0.2.7:10810/']);
  });

  it('are all of this machine for a socket that listens everywhere: IPv4 alone, or both', () => {
    expect(addressesOf(['nbd://0.0.0.0:10809/']).urisOf('db')).toEqual(['nbd://127.0.0.1/db', 'nbd://192.0.2.7/db']);
    expect(addressesOf(['nbds://[::]:10810/']).urisOf('db')).toEqual([
      'nbds://127.0.0.1:10810/db',
      'nbds://[::1]:10810/db',
      'nbds://192.0.2.7:10810/db',
      'nbds://[2001:db8::7]:10810/db',
    ]);
  });

  it('have in front what the operator says that hosts use, which is also what people are told', () => {
    const addresses = addressesOf(['nbd://0.0.0.0:10809/'], [{ host: 'storage.example', port: 20_809 }]);
    expect(addresses.urisOf('db')[0]).toBe('nbd://storage.example:20809/db');
    expect(addresses.uriOf('db')).toBe('nbd://storage.example:20809/db');
    expect(addresses.bases()).toEqual(['nbd://0.0.0.0/']);
  });

  it('are numbers that every host understands', () => {
    const own = ownAddresses();
    expect(own).toContain('127.0.0.1');
    expect(own.some((address) => address.startsWith('fe80'))).toBe(false);
  });
});

describe('what a host is asked about', () => {
  const volume = (number: number): TableOp => ({
    op: 'volume-put',
    row: {
      number,
      name: `v${number}`,
      capacityBytes: MiB,
      attribute: 'normal',
      runs: [{ pv: 1, start: number, count: 1 }],
      isProtected: false,
      uuid: `u${number}`,
      createdAtMs: 0,
    },
  });
  const host = (grants: HostRow['grants']): TableOp => ({
    op: 'host-put',
    row: { name: 'web1', tokenSha256: '0'.repeat(64), grants, createdAtMs: 0 },
  });
  const setUp = (follows: boolean) => {
    const tables = new Tables({ regionBytes: MiB });
    tables.apply([
      { op: 'pv-put', row: { number: 1, regions: 64 } },
      volume(1),
      volume(2),
      host({ 2: 'ro' }),
      { op: 'settings-put', settings: { ...SETTINGS_DEFAULT, exportsFollowGrants: follows } },
    ]);
    return { tables, directory: new TableDirectory(tables, addressesOf(['nbd+unix:///?socket=/n']), new EventLog(() => 1)) };
  };

  it('is every volume by its name and its number, or those that it was granted', () => {
    expect(
      setUp(false)
        .directory.watchOf('web1')
        .map(({ name }) => name),
    ).toEqual(['v1', 'v2']);
    const { directory } = setUp(true);
    expect(directory.watchOf('web1')).toEqual([{ volume: 2, name: 'v2', uris: ['nbd+unix:///v2?socket=/n', 'nbd+unix:///2?socket=/n'] }]);
    expect(directory.watchOf('nobody')).toEqual([]);
    expect(directory.nameOf(2)).toBe('v2');
    expect(directory.nameOf(9)).toBeNull();
  });

  it('is the same list as long as nothing has changed, and another one when something has', () => {
    const { tables, directory } = setUp(true);
    const first = directory.watchOf('web1');
    tables.apply([{ op: 'group-put', row: { name: 'nightly', pairs: [] } }]);
    expect(directory.watchOf('web1')).toBe(first);
    tables.apply([host({ 1: 'rw', 2: 'ro' })]);
    expect(directory.watchOf('web1').map(({ name }) => name)).toEqual(['v1', 'v2']);
    const both = directory.watchOf('web1');
    tables.apply([volume(3)]);
    expect(directory.watchOf('web1')).not.toBe(both);
    tables.apply([{ op: 'settings-put', settings: { ...SETTINGS_DEFAULT, exportsFollowGrants: false } }]);
    expect(directory.watchOf('web1').map(({ name }) => name)).toEqual(['v1', 'v2', 'v3']);
  });
});
