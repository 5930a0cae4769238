/** The declaration on the page is one: it fits the schema, and an empty device can be made what it says. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { declarationSchema } from '../../../src/control/methods/apply.ts';
import { planDeclaration } from '../../../src/core/declaration-plan.ts';
import type { Declaration } from '../../../src/core/declaration.ts';
import { Tables } from '../../../src/core/tables.ts';
import { MiB } from '../../../src/core/units.ts';

it('the example of the page can be applied', () => {
  const page = readFileSync(new URL('../../../src/cli/PROVISIONING.md', import.meta.url), 'utf8');
  const declaration = parse(/```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? '') as Declaration;
  expect(declarationSchema.safeParse(declaration).error).toBeUndefined();
  const { changes, unmet } = planDeclaration(declaration, new Tables({ regionBytes: MiB }), { regionsPerPv: 65_536 });
  expect(unmet).toEqual([]);
  expect(changes.map(({ text }) => text)).toContain('pair db -> spare-1 (chosen by the device: same capacity)');
});
