/**
 * Calls on a bare descriptor that Node has none for: duplicating one, and its blocking mode. fs-ext's fcntl(2) gives
 * them. There is no stand-in: without the addon a connection stays on the thread that accepted it, and `nativeReport`
 * says so.
 */
import { constants } from 'node:fs';
import { fsExt, isLinux } from './native.ts';

/** fcntl(2) commands of Linux. */
const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
/** Standard input, output and error stay free for what they are. */
const LOWEST_FD = 3;

/**
 * A second descriptor of the same open file or socket, closed on exec; the caller owns and closes it.
 * Null where the platform has no way. Throws the system's errors (EBADF, EMFILE).
 */
export const duplicateDescriptor = (fd: number): number | null =>
  fsExt === null || !isLinux ? null : fsExt.fcntlSync(fd, F_DUPFD_CLOEXEC, LOWEST_FD);

/**
 * Sets whether calls on the descriptor wait. The mode belongs to the open file: its duplicates share it.
 * False where the platform has no way, and nothing has changed. Throws the system's errors.
 */
export const setBlocking = (fd: number, blocking: boolean): boolean => {
  if (fsExt === null || !isLinux) return false;
  const flags = fsExt.fcntlSync(fd, F_GETFL, 0);
  const wanted = blocking ? flags & ~constants.O_NONBLOCK : flags | constants.O_NONBLOCK;
  if (wanted !== flags) fsExt.fcntlSync(fd, F_SETFL, wanted);
  return true;
};
