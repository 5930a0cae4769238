/**
 * Who holds a lock, as written in a lock file, and whether that process still lives.
 *
 * A process is named by its pid and start time (pids are used again), inside a pid namespace (containers count their
 * own), in one run of the kernel (boot id), on one machine. Death is certain only where all of that can be compared;
 * everything that cannot be seen from here counts as alive, so doubt never opens a store twice.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

export type LockOwner = {
  readonly pid: number;
  /** Clock ticks after boot at which the process started (proc(5), /proc/PID/stat field 22); empty where unknown. */
  readonly startTicks: string;
  /** Random for each boot of the kernel; empty where unknown. */
  readonly bootId: string;
  readonly machine: string;
  readonly pidNamespace: string;
  /** Unique for each acquisition. */
  readonly nonce: string;
  /** How the owner holds the lock. */
  readonly by: 'flock' | 'owner-file';
};

const textOf = (path: string): string => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
};

const linkOf = (path: string): string => {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
};

/** State letter and start time of a process; null when there is none (or no /proc). */
const processStat = (pid: number | 'self'): { readonly state: string; readonly startTicks: string } | null => {
  // The command name, in parentheses, may hold spaces and parentheses itself: count fields from the last one.
  const stat = textOf(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, startTicks] = [fields[0], fields[19]];
  return state === undefined || startTicks === undefined ? null : { state, startTicks };
};

/** This process as an owner. */
export const ownerHere = (nonce: string, by: LockOwner['by']): LockOwner => ({
  pid: process.pid,
  startTicks: processStat('self')?.startTicks ?? '',
  bootId: textOf('/proc/sys/kernel/random/boot_id'),
  machine: textOf('/etc/machine-id') || hostname(),
  pidNamespace: linkOf('/proc/self/ns/pid'),
  nonce,
  by,
});

const OWNER_FIELDS = ['startTicks', 'bootId', 'machine', 'pidNamespace', 'nonce'] as const;

/** The owner that a lock file's text names, or null when the text is not one. */
export const parseOwner = (text: string): LockOwner | null => {
  try {
    const owner = JSON.parse(text) as LockOwner;
    const whole =
      Number.isSafeInteger(owner.pid) &&
      owner.pid > 0 &&
      OWNER_FIELDS.every((field) => typeof owner[field] === 'string') &&
      /^[0-9a-f]{16,64}$/.test(owner.nonce) &&
      (owner.by === 'flock' || owner.by === 'owner-file');
    return whole ? owner : null;
  } catch {
    return null;
  }
};

const pidExists = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it exists and belongs to another user.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
};

export type Liveness = 'alive' | 'dead' | 'unknown';

/** Whether the owner lives, judged from `here`. A zombie is dead: it has closed its files. */
export const livenessOf = (owner: LockOwner, here: LockOwner): Liveness => {
  if (owner.bootId !== here.bootId) return owner.machine === here.machine && owner.bootId !== '' ? 'dead' : 'unknown';
  if (owner.bootId === '') {
    if (owner.machine !== here.machine) return 'unknown';
    return pidExists(owner.pid) ? 'alive' : 'dead';
  }
  if (owner.pidNamespace !== here.pidNamespace) return 'unknown';
  const stat = processStat(owner.pid);
  if (stat === null) return pidExists(owner.pid) ? 'unknown' : 'dead';
  if (stat.startTicks !== owner.startTicks) return 'dead';
  return stat.state === 'Z' || stat.state === 'X' ? 'dead' : 'alive';
};
