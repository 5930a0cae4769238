/**
 * What a method of the control socket is: one entry of the method table, from which validation, the reference page and
 * the types of the client come. A handler only translates: decisions belong to the engine.
 */
import { z } from 'zod';
import { TwinvolError } from '../core/faults.ts';
import { VOLUME_NAME_CHARS_MAX } from '../core/units.ts';
import type { EventView } from '../core/views.ts';
import type { Engine } from '../engine/api.ts';

/** What a handler may do with the connection that asked. */
export type MethodContext = {
  /** Fires when the caller is gone or has cancelled the request. */
  readonly signal: AbortSignal;
  /** Sends the events as notifications once the reply is out; returns the subscription's number. */
  stream(open: (signal: AbortSignal) => AsyncIterable<EventView>): number;
  /** Ends a stream; false if there is none of that number. */
  endStream(subscription: number): boolean;
  /** Fires the signal of another request of this connection; false if none of that id is in flight. */
  cancel(id: string | number): boolean;
};

export type Method<Params extends z.ZodType = z.ZodType, Result = unknown> = {
  /** One line for the reference page. */
  readonly summary: string;
  readonly params: Params;
  /** The result's type, as the reference page names it. */
  readonly result: string;
  /** Whether it changes anything. */
  readonly changes: boolean;
  /** Whether data may be lost by it: what asks for consent (specification 6). */
  readonly destroysData: boolean;
  readonly handler: (engine: Engine, params: z.output<Params>, context: MethodContext) => Result | Promise<Result>;
};

/** Keeps the types of the parameters and of the result. */
export const defineMethod = <Params extends z.ZodType, Result>(method: Method<Params, Result>): Method<Params, Result> => method;

/**
 * Checks the parameters against the schema.
 * @throws TwinvolError `USAGE` that names every parameter at fault
 */
export const validateParams = (name: string, method: Method, params: unknown): unknown => {
  const parsed = method.params.safeParse(params);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => {
    const place = issue.path.length === 0 ? '' : `"${issue.path.join('.')}": `;
    return `${place}${issue.message}`;
  });
  throw new TwinvolError('USAGE', `${name}: ${faults.join('; ')}`, {
    remedy: 'see the method in the reference of the control socket (device.methods)',
    details: { method: name, faults },
  });
};

// The parameters that many methods share.

export const volumeRef = z
  .union([z.string().min(1).max(VOLUME_NAME_CHARS_MAX), z.int().min(0)], { error: 'expected a volume: its name or its number' })
  .describe('a volume: its name (text) or its number');
export const planned = z.boolean().exactOptional().describe('true: say what would be done, and do nothing');
export const sizeBytes = z.int().min(0).describe('a size in bytes');
export const attribute = z.enum(['normal', 'secondary']);
export const fence = z
  .enum(['never', 'data'])
  .describe('what a host write gets when the secondary fails: `never` an error, or the error of the `data`');
export const pace = z.int().min(1).max(15).describe('1 gives way to hosts most, 15 least');
export const timeoutMs = z
  .int()
  .min(0)
  .max(2 ** 31 - 1)
  .describe('milliseconds');

export const atMs = z
  .int()
  .min(0)
  .nullable()
  .describe(
    'a moment ahead, in milliseconds since 1970, at which the split is to happen; null takes a scheduled split back; left out: now',
  );

export const pairRef = {
  primary: volumeRef,
  secondary: volumeRef.exactOptional().describe('may be left out where the primary has one pair only'),
};

export const consent = z
  .strictObject({
    token: z.string().max(256).exactOptional().describe('the token of the warning that was shown'),
    overrides: z
      .array(z.string().min(1).max(1024))
      .max(4096)
      .readonly()
      .exactOptional()
      .describe('findings that are overridden, as in the warning: `mounted:HOST`, `no-answer:HOST`, `client:ID`'),
    reason: z.string().max(4096).exactOptional().describe('why; goes to the audit record'),
    by: z.string().max(256).exactOptional().describe('who decides, as the caller says; goes to the audit record'),
  })
  .exactOptional()
  .describe("the operator's decision on what the mount inquiry found");
