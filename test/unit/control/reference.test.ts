/** Documentation against code, in both directions: methods, faults, exit statuses, the engine's interface. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { METHODS, methodViews } from '../../../src/control/method-table.ts';
import { EXIT, FAULTS } from '../../../src/core/faults.ts';
import { controlReference, faultReference } from './reference-page.ts';

const ROOT = new URL('../../../', import.meta.url);
const textOf = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');
const REFERENCE = 'src/control/REFERENCE.md';
const FAULT_PAGE = 'src/core/FAULTS.md';

describe('reference of the control socket', () => {
  it('is what the method table says', async () => {
    await expect(controlReference()).toMatchFileSnapshot(`../../../${REFERENCE}`);
  });

  it('names methods that exist, and every method', () => {
    const named = [...controlReference().matchAll(/^### (\S+)$/gm)].map(([, name]) => name);
    expect(named).toEqual(methodViews().map(({ name }) => name));
  });

  it('says of every method what it is, and asks for consent wherever data may be destroyed', () => {
    for (const [name, method] of Object.entries(METHODS)) {
      expect(method.summary, name).toMatch(/^[A-Z].*\.$/);
      const keys = Object.keys(method.params.shape);
      expect(keys.includes('consent'), name).toBe(method.destroysData);
      if (method.destroysData) expect(method.changes && keys.includes('plan'), name).toBe(true);
    }
  });

  it("reaches every method of the engine's interface but close", () => {
    const api = textOf('src/engine/api.ts');
    const body = api.slice(api.indexOf('export interface Engine {'));
    const declared = [...body.matchAll(/^ {2}(\w+)\(/gm)].map(([, name]) => name ?? '');
    expect(declared.length).toBeGreaterThan(30);
    const handlers = readdirSync(new URL('src/control/methods', ROOT)).map((file) => textOf(`src/control/methods/${file}`));
    const called = new Set([...handlers.join('\n').matchAll(/engine\.(\w+)\(/g)].map(([, name]) => name ?? ''));
    expect(declared.filter((name) => !called.has(name))).toEqual(['close']);
  });
});

describe('fault catalogue', () => {
  it('has its page, with every code and exit status', async () => {
    await expect(faultReference()).toMatchFileSnapshot(`../../../${FAULT_PAGE}`);
    const page = faultReference();
    const documented = [...page.matchAll(/^\| `([A-Z_]+)` \| (\d+) /gm)].map(([, code, exit]) => [code, Number(exit)]);
    expect(documented).toEqual(Object.entries(FAULTS).map(([code, fault]) => [code, fault.exit]));
    for (const status of Object.values(EXIT)) expect(page).toMatch(new RegExp(`^\\| ${status} \\| `, 'm'));
  });

  it('holds no code that nothing raises', () => {
    const files = readdirSync(new URL('src', ROOT), { recursive: true, encoding: 'utf8' });
    const sources = files.filter((file) => file.endsWith('.ts') && file !== 'core/faults.ts').map((file) => textOf(`src/${file}`));
    const mentioned = new Set([...sources.join('\n').matchAll(/'([A-Z][A-Z_]+)'/g)].map(([, code]) => code ?? ''));
    const silent = Object.keys(FAULTS).filter((code) => !mentioned.has(code));
    expect(silent).toEqual([]);
  });
});
