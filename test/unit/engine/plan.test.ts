/** The words of plans that depend on a number. */
import { expect, it } from 'vitest';
import { endedClients } from '../../../src/engine/plan.ts';

it.each([
  [0, null, []],
  [1, null, ['1 NBD connection is ended']],
  [2, null, ['2 NBD connections are ended']],
  [1, 'db', ['1 NBD connection to db is ended']],
  [3, 'db', ['3 NBD connections to db are ended']],
] as const)('a plan that ends %i clients of %s says so', (clients, volume, steps) => {
  expect(endedClients(clients, volume)).toEqual(steps);
});
