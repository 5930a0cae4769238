/**
 * The fault catalogue: every error that an operator, a program or an NBD client can get, in one table.
 *
 * A code is a contract: it is never renamed, and its exit status and NBD errno stay. The text of an error says what
 * and why; the remedy says what to do. The documentation page is generated from this table and tested against it in
 * both directions.
 */

/** Errors of the NBD protocol (NBD specification, "Error values"). */
export const NBD_ERRNO = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type NbdErrno = (typeof NBD_ERRNO)[keyof typeof NBD_ERRNO];

/** Exit statuses of the command line, a contract with scripts. */
export const EXIT = {
  done: 0,
  timeout: 1,
  broken: 2,
  changed: 3,
  refused: 10,
  mounted: 11,
  noAnswer: 12,
  noCandidate: 13,
  usage: 64,
} as const;
export type ExitStatus = (typeof EXIT)[keyof typeof EXIT];

type Fault = {
  readonly exit: ExitStatus;
  readonly errno: NbdErrno;
  /** What the code means, in one sentence, for the reference page. */
  readonly means: string;
  /** What to do, when the place that raises it knows nothing better. */
  readonly remedy: string;
};

const fault = (exit: ExitStatus, errno: NbdErrno, means: string, remedy: string): Fault => ({ exit, errno, means, remedy });
const { EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN, ENOMEM } = NBD_ERRNO;

export const FAULTS = {
  // input
  SIZE_INVALID: fault(EXIT.usage, EINVAL, 'A size could not be read.', 'give a number with K, M, G or T, such as 10G'),
  USAGE: fault(EXIT.usage, EINVAL, 'A command line or a parameter is not as its schema says.', 'see the command with --help'),
  NAME_INVALID: fault(
    EXIT.usage,
    EINVAL,
    'A name has characters or a length that names cannot have.',
    'use 1 to 128 letters, digits, ".", "_" or "-", not only digits',
  ),
  CAPACITY_INVALID: fault(
    EXIT.usage,
    EINVAL,
    'A capacity is out of range or not a multiple of 512.',
    'give a multiple of 512 bytes from 1M to 256T',
  ),
  URI_INVALID: fault(
    EXIT.usage,
    EINVAL,
    'A text is not an NBD URI, or asks for what is not supported.',
    'write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH',
  ),
  // store
  STORE_EXISTS: fault(EXIT.refused, EINVAL, 'A store cannot be initialised where something already is.', 'name an empty or new directory'),
  STORE_MISSING: fault(EXIT.broken, EIO, 'The directory is not a store.', 'run twinvol init DIR, or name another directory'),
  STORE_LOCKED: fault(EXIT.refused, EPERM, 'Another process owns the store.', 'stop that process, or work through its control socket'),
  STORE_VERSION: fault(EXIT.broken, EIO, 'The store was written by a newer version.', 'use that version or a later one'),
  STORE_FOREIGN: fault(
    EXIT.broken,
    EIO,
    'A file of the store is not what it should be.',
    'check that the directory is the right one; nothing was changed',
  ),
  STORE_DAMAGED: fault(EXIT.broken, EIO, 'A record of the store is damaged.', 'restore the file named from a backup; nothing was changed'),
  STORE_IO: fault(EXIT.broken, EIO, 'Reading or writing the store failed.', 'see the cause; free space or repair the disk'),
  STORE_FULL: fault(EXIT.broken, ENOSPC, 'The file system of the store is full.', 'free space, then repeat the command'),
  // lookup
  VOLUME_NOT_FOUND: fault(EXIT.refused, EINVAL, 'No volume has that name or number.', 'twinvol volume list shows what there is'),
  VOLUME_EXISTS: fault(EXIT.refused, EINVAL, 'A volume of that name exists already.', 'choose another name'),
  PAIR_NOT_FOUND: fault(EXIT.refused, EINVAL, 'The volume is in no such pair.', 'twinvol pair status shows the pairs'),
  PAIR_AMBIGUOUS: fault(EXIT.refused, EINVAL, 'The primary has several pairs and none was named.', 'name the secondary too'),
  HOST_NOT_FOUND: fault(EXIT.refused, EINVAL, 'No host has that name.', 'twinvol host list shows the hosts'),
  HOST_EXISTS: fault(EXIT.refused, EINVAL, 'A host of that name exists already.', 'choose another name'),
  GRANT_NOT_FOUND: fault(EXIT.refused, EINVAL, 'The host was not granted the volume.', 'twinvol host show NAME shows its grants'),
  GROUP_NOT_FOUND: fault(EXIT.refused, EINVAL, 'No group has that name.', 'twinvol group show lists the groups'),
  GROUP_EXISTS: fault(EXIT.refused, EINVAL, 'A group of that name exists already.', 'choose another name'),
  CLIENT_NOT_FOUND: fault(EXIT.refused, EINVAL, 'No NBD connection has that number.', 'twinvol client list shows the connections'),
  FAULT_NOT_FOUND: fault(EXIT.refused, EINVAL, 'No fault of a volume has that number.', 'twinvol fault list shows what is set'),
  // refusals
  PAIR_STATE: fault(
    EXIT.refused,
    EINVAL,
    'The pair is in a state in which the command is not allowed.',
    'see the table of commands and states',
  ),
  VOLUME_PAIRED: fault(EXIT.refused, EINVAL, 'The volume is in a pair.', 'release the pair first'),
  VOLUME_HELD: fault(EXIT.refused, EPERM, 'Another command holds the volume.', 'wait until that command has ended'),
  NOT_A_SECONDARY: fault(
    EXIT.refused,
    EINVAL,
    'The volume cannot be the secondary of this pair.',
    'twinvol pool candidates PRIMARY --explain says which can',
  ),
  NOT_IN_POOL: fault(
    EXIT.refused,
    EINVAL,
    'The volume is a normal one, whose data is its own; this is done to volumes of the pool.',
    'put it into the pool first: twinvol volume set NAME --attribute secondary',
  ),
  NOT_A_PRIMARY: fault(
    EXIT.refused,
    EINVAL,
    'The volume cannot be a primary.',
    'a secondary, or a volume of the pool, cannot have a secondary of its own',
  ),
  NO_CANDIDATE: fault(
    EXIT.noCandidate,
    ENOSPC,
    'No volume of the pool can be the secondary.',
    'create one with twinvol volume create NAME --size S --attribute secondary',
  ),
  NEVER_FITTED: fault(EXIT.refused, EINVAL, 'The volume has no former capacity to go back to.', 'nothing needs to be done'),
  PAIR_GROUPED: fault(EXIT.refused, EINVAL, 'The pair is in a group already.', 'remove it there first (twinvol group remove)'),
  NOT_SCHEDULED: fault(
    EXIT.refused,
    EINVAL,
    'No split is scheduled that could be taken back.',
    'twinvol pair status shows the scheduled splits',
  ),
  SPLIT_MISSED: fault(
    EXIT.refused,
    EINVAL,
    'The moment of a scheduled split passed while no engine ran.',
    'schedule it anew, or split now',
  ),
  UNMET: fault(
    EXIT.noCandidate,
    ENOSPC,
    'A declaration has requirements that cannot be met; nothing was changed.',
    'change the declaration, or what stands in its way',
  ),
  REGIONS_MISSING: fault(
    EXIT.noCandidate,
    ENOSPC,
    'The unassigned-region table has too few regions.',
    'delete or shrink a volume, or use a smaller size',
  ),
  LIMIT: fault(EXIT.refused, ENOMEM, 'A limit of the device is reached.', 'see the limits in the README'),
  CHANGED: fault(EXIT.changed, EINVAL, 'Things changed between the plan and the command.', 'look again and repeat the command'),
  EVENTS_GONE: fault(
    EXIT.changed,
    EINVAL,
    'Events that were asked for are no longer kept.',
    'read from the start: leave out the number to resume after',
  ),
  TIMEOUT: fault(EXIT.timeout, EIO, 'The state waited for did not come in time.', 'look at twinvol pair status, and wait longer'),
  WAIT_IMPOSSIBLE: fault(EXIT.broken, EIO, 'The state waited for cannot come any more.', 'look at twinvol pair status for the reason'),
  READ_ONLY: fault(EXIT.refused, EPERM, 'The export is read-only.', 'use another volume, or split the pair first'),
  // inquiry
  MOUNTED: fault(
    EXIT.mounted,
    EPERM,
    'A host has the volume in use, and its content would be overwritten.',
    'unmount it there, or override the finding with a reason',
  ),
  NO_ANSWER: fault(
    EXIT.noAnswer,
    EPERM,
    'A host did not answer whether it has the volume in use.',
    'start its agent, or override the finding with a reason',
  ),
  CONSENT_VOID: fault(EXIT.changed, EPERM, 'The facts changed after the warning was shown.', 'read the new warning and decide again'),
  CANCELLED: fault(
    EXIT.refused,
    ESHUTDOWN,
    'A wait or a verify was given up by its caller.',
    'nothing was undone; repeat it if it is still wanted',
  ),
  NOT_CONFIRMED: fault(
    EXIT.refused,
    EPERM,
    'The operator was asked and said no, or nothing.',
    'nothing was done; repeat the command if it is meant',
  ),
  // access
  ACCESS_DENIED: fault(EXIT.refused, EPERM, 'The caller was not given this.', 'ask the operator of the device'),
  // device
  ENGINE_UNREACHABLE: fault(EXIT.broken, EIO, 'No engine answers on the control socket.', 'start it with twinvol serve --store DIR'),
  NBD_UNREACHABLE: fault(
    EXIT.broken,
    EIO,
    'No connection to an NBD export could be made.',
    'check the URI, that its server runs, and that it gives this export',
  ),
  ENGINE_STOPPING: fault(EXIT.refused, ESHUTDOWN, 'The engine is stopping.', 'wait until it runs again'),
  NOT_SUPPORTED: fault(EXIT.refused, ENOTSUP, 'This platform or build cannot do that.', 'see twinvol status for what is live'),
  INTERNAL: fault(EXIT.broken, EIO, 'A fault of twinvol itself.', 'report it with the log'),
} as const satisfies Record<string, Fault>;

export type FaultCode = keyof typeof FAULTS;

export type FaultOptions = {
  /** Replaces the catalogue's remedy. */
  readonly remedy?: string;
  /** Facts for programs: numbers, names, states. JSON values only. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
};

/** The one error class. `message` says what and why; `remedy` what to do; `code` is stable. */
export class TwinvolError extends Error {
  readonly code: FaultCode;
  readonly remedy: string;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: FaultCode, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TwinvolError';
    this.code = code;
    this.remedy = options.remedy ?? FAULTS[code].remedy;
    this.details = options.details ?? {};
  }

  get exitStatus(): ExitStatus {
    return FAULTS[this.code].exit;
  }

  get errno(): NbdErrno {
    return FAULTS[this.code].errno;
  }
}

/** `code` of a system error (`ENOSPC`), or an empty string. */
export const systemCode = (error: unknown): string => {
  const code = (error as { readonly code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
};

/** The NBD errno for any error: the one place where an inner cause becomes a number on the wire. */
export const nbdErrnoOf = (error: unknown): NbdErrno => {
  if (error instanceof TwinvolError) return error.errno;
  switch (systemCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
    case 'NBD_ENOSPC': // of the NBD client, for a remote leg
      return ENOSPC;
    case 'EROFS':
    case 'EPERM':
    case 'EACCES':
    case 'NBD_EPERM':
      return EPERM;
    case 'ENOMEM':
      return ENOMEM;
    default:
      return EIO;
  }
};
