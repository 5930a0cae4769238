/**
 * Keeps descriptors for the engine's own files: however many clients come, journals can be compacted, bitmaps written
 * and programs started.
 *
 * The kernel gives the lowest free number, so a connection's number says how many are in use.
 */
import fs from 'node:fs';

const RESERVE_MAX = 256;
/** POSIX's usual limit, where the system does not tell. */
const LIMIT_DEFAULT = 1024;

const readLimit = (): number => {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(fs.readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return soft === undefined ? LIMIT_DEFAULT : Number(soft);
  } catch {
    return LIMIT_DEFAULT;
  }
};

let highest: number | null = null;

/** Whether a connection may keep this descriptor. */
export const isWithinReserve = (fd: number): boolean => {
  if (highest === null) {
    const limit = readLimit();
    highest = limit - Math.min(RESERVE_MAX, limit >>> 2);
  }
  return fd < highest;
};
