/**
 * The method table: everything that the control socket can do. What is not here does not exist; what is here is
 * validated, listed by `device.methods` and on the reference page (REFERENCE.md, tested to be up to date).
 */
import { z } from 'zod';
import { defineMethod, type Method } from './method.ts';
import { applyMethods } from './methods/apply.ts';
import { clientMethods } from './methods/client.ts';
import { connectionMethods } from './methods/connection.ts';
import { deviceMethods } from './methods/device.ts';
import { faultMethods } from './methods/fault.ts';
import { groupMethods } from './methods/group.ts';
import { hostMethods } from './methods/host.ts';
import { inquiryMethods } from './methods/inquiry.ts';
import { pairMethods } from './methods/pair.ts';
import { poolMethods } from './methods/pool.ts';
import { volumeMethods } from './methods/volume.ts';

/** A method as `device.methods` reports it; `params` is a JSON Schema. */
export type MethodView = {
  readonly name: string;
  readonly summary: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly result: string;
  readonly changes: boolean;
  readonly destroysData: boolean;
};

const selfDescription = {
  'device.methods': defineMethod({
    summary: 'This table: every method with the JSON Schema of its parameters.',
    params: z.strictObject({}),
    result: '`MethodView[]`',
    changes: false,
    destroysData: false,
    handler: (): MethodView[] => methodViews(),
  }),
};

export const METHODS = {
  ...deviceMethods,
  ...selfDescription,
  ...volumeMethods,
  ...poolMethods,
  ...pairMethods,
  ...groupMethods,
  ...applyMethods,
  ...hostMethods,
  ...inquiryMethods,
  ...clientMethods,
  ...faultMethods,
  ...connectionMethods,
};

export type MethodName = keyof typeof METHODS;
export type MethodParams<Name extends MethodName> = z.input<(typeof METHODS)[Name]['params']>;
export type MethodResult<Name extends MethodName> = Awaited<ReturnType<(typeof METHODS)[Name]['handler']>>;

const TABLE: ReadonlyMap<string, Method> = new Map<string, Method>(Object.entries(METHODS));

export const methodOf = (name: string): Method | undefined => TABLE.get(name);
export const methodNames = (): string[] => [...TABLE.keys()];

export const methodViews = (): MethodView[] => {
  return [...TABLE].map(([name, method]) => {
    const { $schema: _, ...params } = z.toJSONSchema(method.params, { io: 'input' }) as Record<string, unknown>;
    return { name, summary: method.summary, params, result: method.result, changes: method.changes, destroysData: method.destroysData };
  });
};
