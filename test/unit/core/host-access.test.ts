import { describe, expect, it } from 'vitest';
import { accessOf, hostsReaching, visibleVolumes, withGrant, withoutGrant } from '../../../src/core/host-access.ts';
import type { HostRow } from '../../../src/core/rows.ts';

const host = (name: string, grants: HostRow['grants']): HostRow => ({ name, tokenSha256: '', grants, createdAtMs: 0 });
const [ON, OFF] = [{ exportsFollowGrants: true }, { exportsFollowGrants: false }];
const web = host('web', { '1': 'rw', '2': 'ro' });

describe('which volumes a host may reach', () => {
  it('with grants: those that it was given, in the way it was given them', () => {
    expect([1, 2, 3].map((volume) => accessOf(web, volume, ON))).toEqual(['rw', 'ro', null]);
    expect(visibleVolumes(web, [3, 2, 1], ON)).toEqual([
      { volume: 2, access: 'ro' },
      { volume: 1, access: 'rw' },
    ]);
  });

  it('with grants: none for a caller that proved no name', () => {
    expect(visibleVolumes(null, [1, 2], ON)).toEqual([]);
  });

  it('without grants: everybody all, so every host is asked', () => {
    expect(accessOf(null, 3, OFF)).toBe('rw');
    expect(accessOf(web, 3, OFF)).toBe('rw');
    expect(hostsReaching([host('z', {}), web], 1, OFF)).toEqual(['web', 'z']);
    expect(hostsReaching([host('z', {}), web], 1, ON)).toEqual(['web']);
  });

  it('does not take what every object has for a grant', () => {
    expect(accessOf(web, 'constructor' as unknown as number, ON)).toBeNull();
  });
});

describe('grants', () => {
  it('are given, changed and taken back in a new row', () => {
    const more = withGrant(web, 3, 'ro');
    expect(accessOf(more, 3, ON)).toBe('ro');
    expect(accessOf(withGrant(more, 3, 'rw'), 3, ON)).toBe('rw');
    expect(accessOf(withoutGrant(more, 3), 3, ON)).toBeNull();
    expect(withoutGrant(web, 9)).toBe(web);
    expect(accessOf(web, 3, ON)).toBeNull();
  });
});
