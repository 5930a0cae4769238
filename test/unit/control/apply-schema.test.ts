/** The published schema of declarations is the one that the control socket checks with. */
import { describe, expect, it } from 'vitest';
import { declarationSchema, declarationSchemaText } from '../../../src/control/methods/apply.ts';

describe('the schema of a declaration', () => {
  it('is published as the method has it', async () => {
    await expect(declarationSchemaText()).toMatchFileSnapshot('../../../src/control/declaration.schema.json');
  });

  it('takes a whole declaration, and an empty one', () => {
    expect(declarationSchema.safeParse({}).success).toBe(true);
    const whole = {
      $schema: './declaration.schema.json',
      settings: { condition: 'same', fit: 'regions' },
      volumes: [{ name: 'db', size: '10G', protected: true }, { name: 'web', size: 1_048_576, attribute: 'secondary' }, { name: 'old' }],
      pool: [{ size: '1.5GiB', count: 3, name: 'spare' }],
      pairs: [
        { primary: 'db', secondary: 'web', pace: 3, fence: 'data', dirtyRegionSize: '4K' },
        { primary: 'db', condition: 'any', fit: 'off' },
      ],
      groups: [{ name: 'nightly', pairs: ['db', { primary: 'db', secondary: 'web' }] }],
    };
    expect(declarationSchema.safeParse(whole).error).toBeUndefined();
  });

  it.each<readonly [object, string]>([
    [{ volume: [] }, ''],
    [{ volumes: [{ size: '1G' }] }, 'volumes.0.name'],
    [{ volumes: [{ name: '12', size: '1G' }] }, 'volumes.0.name'],
    [{ volumes: [{ name: 'a', size: 'big' }] }, 'volumes.0.size'],
    [{ volumes: [{ name: 'a', size: 5.5 }] }, 'volumes.0.size'],
    [{ volumes: [{ name: 'a', protected: 'yes' }] }, 'volumes.0.protected'],
    [{ pool: [{ size: '1G', count: -1 }] }, 'pool.0.count'],
    [{ pairs: [{ primary: 'a', pace: 16 }] }, 'pairs.0.pace'],
    [{ groups: [{ name: 'g', pairs: [1] }] }, 'groups.0.pairs.0'],
    [{ settings: { colour: 'red' } }, 'settings'],
  ])('refuses %j, and says where', (declaration, place) => {
    const { error } = declarationSchema.safeParse(declaration);
    expect(error?.issues.map(({ path }) => path.join('.'))).toEqual([place]);
  });
});
