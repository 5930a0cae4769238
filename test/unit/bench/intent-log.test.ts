/** The build that the intent log is compared with: it differs in one function, or there is no comparison. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { buildWithoutIntents } from '../../../bench/side-by-side/intent-log.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const build = (temporary: TemporaryDirectory, name: string, intents: string): string => {
  mkdirSync(temporary.path(name, 'dist/src/cli'), { recursive: true });
  mkdirSync(temporary.path(name, 'dist/src/data'), { recursive: true });
  mkdirSync(temporary.path(name, 'node_modules'), { recursive: true });
  writeFileSync(temporary.path(name, 'dist/src/cli/main.js'), '');
  writeFileSync(temporary.path(name, 'dist/src/data/intents.js'), intents);
  return temporary.path(name, 'dist/src/cli/main.js');
};

it('the copy of a build marks nothing, and the build itself stays as it is', async () => {
  await using temporary = await temporaryDirectory();
  const text = 'export class Intents {\n    mark(offset, length) {\n        return this.find(offset, length);\n    }\n}\n';
  const main = build(temporary, 'real', text);
  mkdirSync(temporary.path('copy'));
  const copied = buildWithoutIntents(main, temporary.path('copy'));
  expect(copied).toBe(temporary.path('copy', 'dist/src/cli/main.js'));
  const module = (await import(temporary.path('copy', 'dist/src/data/intents.js'))) as {
    Intents: new () => { mark(offset: number, length: number): boolean };
  };
  expect(new module.Intents().mark(0, 1)).toBe(true);
  expect(readFileSync(temporary.path('real', 'dist/src/data/intents.js'), 'utf8')).toBe(text);
});

it('a build in which the function is not found is not compared with itself', async () => {
  await using temporary = await temporaryDirectory();
  const main = build(temporary, 'other', 'export class Intents {}\n');
  mkdirSync(temporary.path('copy'));
  expect(() => buildWithoutIntents(main, temporary.path('copy'))).toThrow('cannot be compared');
});
