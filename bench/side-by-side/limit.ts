/**
 * A server that does nothing (does-nothing.c): what it reaches is the most that this client and these sockets leave room
 * for, and so what a ratio between servers can be at most. It is no peer. Needs a C compiler; without one it is left out.
 */
import { existsSync } from 'node:fs';
import { compiledProgram } from './compiled.ts';
import { type Cpus, OwnedProcess } from './owned-process.ts';
import type { Workplace } from './workplace.ts';

export const LIMIT = 'does nothing';

export type LimitServer = AsyncDisposable & { readonly name: string; readonly uri: string };

/** @returns null where there is no compiler */
export const startLimit = async (place: Workplace, bytes: number, cpus: Cpus): Promise<LimitServer | null> => {
  const program = await compiledProgram(place, 'does-nothing');
  if (program === null) return null;
  const socket = place.path(`does-nothing${cpus === null ? '' : '-p'}.sock`);
  const server = new OwnedProcess(program, [socket, String(bytes)], { cpus });
  try {
    await server.until(() => existsSync(socket), 'opened its socket');
  } catch (error) {
    await server.end();
    throw error;
  }
  return { name: LIMIT, uri: `nbd+unix:///?socket=${socket}`, [Symbol.asyncDispose]: () => server.end() };
};
