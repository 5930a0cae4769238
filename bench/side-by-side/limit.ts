/**
 * Servers that are no peers (bare-server.c): one that does nothing, and one that does the I/O and no more. What they reach shows
 * how much of a cell is the client, the sockets and the system calls. They are no ceiling: they answer all that came together with one write and
 * look at a socket less long than twinvol does, and where that counts (depth 1, a client that waits for all of its replies) twinvol has more.
 * They need a C compiler; without one they are left out.
 */
import { existsSync } from 'node:fs';
import { compiledProgram } from './compiled.ts';
import { type Cpus, OwnedProcess } from './owned-process.ts';
import type { Workplace } from './workplace.ts';

export const NOTHING = 'does nothing';
export const ONLY_IO = 'only the I/O';
export const LIMITS: readonly string[] = [NOTHING, ONLY_IO];

export type LimitServer = AsyncDisposable & { readonly name: string; readonly uri: string };

/** @param files that each write goes to; none: it does nothing. @returns null where there is no compiler */
export const startLimit = async (place: Workplace, bytes: number, files: readonly string[], cpus: Cpus): Promise<LimitServer | null> => {
  const program = await compiledProgram(place, 'bare-server');
  if (program === null) return null;
  const socket = place.path(`bare-${files.length}${cpus === null ? '' : '-p'}.sock`);
  const server = new OwnedProcess(program, [socket, String(bytes), ...files], { cpus });
  try {
    await server.until(() => existsSync(socket), 'opened its socket');
  } catch (error) {
    await server.end();
    throw error;
  }
  return { name: files.length === 0 ? NOTHING : ONLY_IO, uri: `nbd+unix:///?socket=${socket}`, [Symbol.asyncDispose]: () => server.end() };
};
