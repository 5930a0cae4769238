/**
 * `device.apply` on the control socket, and the schema of a declaration. The schema that is published for editors
 * (`declaration.schema.json`, beside the method table) is made from this one and tested to be up to date.
 */
import { z } from 'zod';
import { VOLUME_COUNT_MAX, VOLUME_NAME_CHARS_MAX } from '../../core/units.ts';
import { attribute, consent, defineMethod, fence, pace, planned } from '../method.ts';
import { settingsShape } from './device.ts';

/** Of a schema that editors and other tools know by this name, wherever they find it. */
const SCHEMA_ID = 'https://json-schema.org/draft/2020-12/schema';

const name = z
  .string()
  .regex(/^(?!\d+$|\.{1,2}$|-)[A-Za-z0-9._-]+$/, 'expected a name: letters, digits, ".", "_" or "-", not only digits, no "-" at the start')
  .max(VOLUME_NAME_CHARS_MAX);

const size = z
  .union(
    [
      z.int().min(0),
      z.string().regex(/^\d+(?:\.\d+)?\s*(?:[KMGTkmgt](?:[iI]?[bB])?|[SBsb])?$/, 'expected a size such as 10G, or a number of bytes'),
    ],
    { error: 'expected a size such as 10G, or a number of bytes' },
  )
  .describe('bytes, or a number with K, M, G or T (powers of 1024), such as 10G');

const volume = z
  .strictObject({
    name,
    size: size.exactOptional().describe('a larger one grows the volume; may be left out for a volume that is there'),
    attribute: attribute.exactOptional().describe('`secondary`: a volume of the pool; left out: as it is, or `normal`'),
    protected: z.boolean().exactOptional().describe('kept out of every automatic choice; left out: as it is, or false'),
  })
  .describe('a volume that has to be there');

const pool = z
  .strictObject({
    size,
    count: z.int().min(0).max(VOLUME_COUNT_MAX),
    name: name.exactOptional().describe('new ones are called NAME-1, NAME-2, ...; left out: pool'),
  })
  .describe('at least `count` volumes of the pool with that size, in use or not; protected ones do not count');

const pair = z
  .strictObject({
    primary: name,
    secondary: name.exactOptional().describe('left out: any pair of the primary that no other entry means, or one that the device chooses'),
    condition: z.enum(['same', 'any']).exactOptional().describe('for a pair that has to be formed; left out: as the setting says'),
    fit: z.enum(['off', 'regions']).exactOptional().describe('for a pair that has to be formed; left out: as the setting says'),
    dirtyRegionSize: size.exactOptional().describe('unit of the dirty bitmap; cannot be changed once the pair is formed'),
    pace: pace.exactOptional(),
    fence: fence.exactOptional(),
  })
  .describe('a pair that has to be there, in whatever state');

const group = z
  .strictObject({
    name,
    pairs: z
      .array(
        z.union([name, z.strictObject({ primary: name, secondary: name.exactOptional() })], {
          error: 'expected a primary, or { primary, secondary }',
        }),
      )
      .readonly()
      .describe('exactly its pairs: others leave the group; a primary alone means its only pair'),
  })
  .describe('a consistency group');

export const declarationSchema = z
  .strictObject({
    $schema: z.string().exactOptional().describe('the schema, for editors'),
    settings: z.strictObject(settingsShape).exactOptional().describe('settings of the device; others stay as they are'),
    volumes: z.array(volume).readonly().exactOptional(),
    pool: z.array(pool).readonly().exactOptional(),
    pairs: z.array(pair).readonly().exactOptional(),
    groups: z.array(group).readonly().exactOptional(),
  })
  .describe('What a device should be like. What is not mentioned is left alone; nothing is deleted, released or made smaller.');

/** The published JSON Schema of a declaration, as text. */
export const declarationSchemaText = (): string => {
  const { $schema: _, ...schema } = z.toJSONSchema(declarationSchema, { io: 'input' }) as Record<string, unknown>;
  return `${JSON.stringify({ $schema: SCHEMA_ID, title: 'twinvol declaration', ...schema }, null, 2)}\n`;
};

export const applyMethods = {
  'device.apply': defineMethod({
    summary: 'Makes the device what a declaration says: changes only what differs, or, with `UNMET`, nothing.',
    params: z.strictObject({ declaration: declarationSchema, consent, plan: planned }),
    result: '`ApplyView`',
    changes: true,
    destroysData: true,
    handler: (engine, params) => engine.apply(params),
  }),
};
