/**
 * From a request to its reply: looks the method up, checks the parameters, calls the handler, and turns whatever goes
 * wrong into one error body. Nothing that a request holds makes this throw.
 */
import { TwinvolError } from '../core/faults.ts';
import { nearest } from '../core/nearest.ts';
import type { Engine } from '../engine/api.ts';
import type { RpcErrorBody } from '../wire/control-frames.ts';
import { errorBodyOf, RPC_ERROR } from '../wire/control-frames.ts';
import type { MethodContext } from './method.ts';
import { validateParams } from './method.ts';
import { methodNames, methodOf } from './method-table.ts';

export type Outcome = { readonly result: unknown } | { readonly error: RpcErrorBody; readonly cause: unknown };

const unknownMethod = (name: string): TwinvolError => {
  const near = nearest(name, methodNames());
  return new TwinvolError('USAGE', `there is no method "${name.slice(0, 100)}"`, {
    remedy: near === null ? 'device.methods lists the methods' : `did you mean ${near}?`,
    details: { method: name.slice(0, 100), near },
  });
};

/** An error that has no code of its own is a fault of ours: it is named so, and its text is kept for the report. */
const internal = (name: string, error: unknown): TwinvolError => {
  return new TwinvolError('INTERNAL', `${name} failed: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
};

export const dispatch = async (engine: Engine, name: string, params: unknown, context: MethodContext): Promise<Outcome> => {
  const method = methodOf(name);
  if (method === undefined) {
    const cause = unknownMethod(name);
    return { error: errorBodyOf(cause, RPC_ERROR.methodNotFound), cause };
  }
  let checked: unknown;
  try {
    checked = validateParams(name, method, params);
  } catch (cause) {
    if (!(cause instanceof TwinvolError)) throw cause;
    return { error: errorBodyOf(cause, RPC_ERROR.invalidParams), cause };
  }
  try {
    return { result: await method.handler(engine, checked, context) };
  } catch (cause) {
    if (cause instanceof TwinvolError) return { error: errorBodyOf(cause), cause };
    return { error: errorBodyOf(internal(name, cause), RPC_ERROR.internal), cause };
  }
};
