import { expect, test } from 'vitest';
import { isValidName, requireName } from '../../../src/core/names.ts';

test.each(['a', 'db-1', '2024.backup', 'A_b', '1a', 'x'.repeat(128), '...'])('%s is a name', (name) => {
  expect(isValidName(name)).toBe(true);
  expect(() => requireName('volume', name)).not.toThrow();
});

test.each(['', '12', '.', '..', '-a', 'a b', 'ä', 'a/b', 'a\n', 'x'.repeat(129)])('%j is no name', (name) => {
  expect(isValidName(name)).toBe(false);
  expect(() => requireName('host', name)).toThrow(
    expect.objectContaining({ code: 'NAME_INVALID', message: expect.stringContaining('a host') }),
  );
});
