/**
 * The one error of the NBD client. `code` is stable and says who was at fault: a code that ends in an errno of the
 * protocol is the server's answer (or what it would have been: requests that cannot succeed are not sent), the others
 * are about the connection or the caller.
 */
import { NBD_ERRNO } from '../core/faults.ts';

const ERRNO_CODES = {
  NBD_EPERM: NBD_ERRNO.EPERM,
  NBD_EIO: NBD_ERRNO.EIO,
  NBD_ENOMEM: NBD_ERRNO.ENOMEM,
  NBD_EINVAL: NBD_ERRNO.EINVAL,
  NBD_ENOSPC: NBD_ERRNO.ENOSPC,
  NBD_EOVERFLOW: NBD_ERRNO.EOVERFLOW,
  NBD_ENOTSUP: NBD_ERRNO.ENOTSUP,
  NBD_ESHUTDOWN: NBD_ERRNO.ESHUTDOWN,
} as const;

export type NbdErrorCode =
  | keyof typeof ERRNO_CODES
  /** The URI or an option could not be used. */
  | 'NBD_USAGE'
  /** No connection could be made. */
  | 'NBD_CONNECT'
  /** TLS failed, or one side insists on it and the other has none. */
  | 'NBD_TLS'
  /** The server does not give the export: no such name, or not to us. */
  | 'NBD_REFUSED'
  /** The server broke the protocol. */
  | 'NBD_PROTOCOL'
  /** The connection was lost. Writes that were in flight may or may not have been done. */
  | 'NBD_DISCONNECTED'
  /** A connection was lost since the last flush: writes that were acknowledged but not flushed may be gone. */
  | 'NBD_FLUSH_LOST'
  /** After a reconnection the export has another size. */
  | 'NBD_CHANGED'
  | 'NBD_TIMEOUT'
  /** The caller's signal. A write that was in flight may or may not have been done. */
  | 'NBD_ABORTED'
  /** The client was closed. */
  | 'NBD_CLOSED';

export type NbdErrorOptions = {
  readonly errno?: number;
  /** The server's own words. */
  readonly serverMessage?: string;
  readonly cause?: unknown;
};

export class NbdError extends Error {
  readonly code: NbdErrorCode;
  /** The protocol's error number; EIO for what has none. */
  readonly errno: number;
  readonly serverMessage: string;

  constructor(code: NbdErrorCode, message: string, options: NbdErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'NbdError';
    this.code = code;
    this.errno = options.errno ?? (code in ERRNO_CODES ? ERRNO_CODES[code as keyof typeof ERRNO_CODES] : NBD_ERRNO.EIO);
    this.serverMessage = options.serverMessage ?? '';
  }
}

/** The error for an errno of a reply. One that the specification does not know counts as EINVAL, as it demands. */
export const errorOfReply = (errno: number, serverMessage: string, what: string): NbdError => {
  const known = Object.entries(ERRNO_CODES).find(([, number]) => number === errno)?.[0] as keyof typeof ERRNO_CODES | undefined;
  const code = known ?? 'NBD_EINVAL';
  const words = serverMessage === '' ? code.slice('NBD_'.length) : serverMessage;
  return new NbdError(code, `${what} failed: ${words}`, { errno: known === undefined ? NBD_ERRNO.EINVAL : errno, serverMessage });
};
