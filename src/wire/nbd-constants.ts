/**
 * The numbers of the NBD protocol that are used here (NBD specification, "Values", and its extended-headers extension).
 *
 * Plain constants, not an enum or an object, so that a hot loop compares against literals. 64-bit magics are given
 * as two 32-bit halves: BigInt stays out of the data path.
 */
import { NBD_ERRNO } from '../core/faults.ts';
import type { NbdErrno } from '../core/faults.ts';

/** The port that IANA gives to NBD. */
export const NBD_PORT = 10_809;

// Handshake magics, as high and low half.
/** "NBDMAGIC" */
export const NBD_MAGIC_HIGH = 0x4e42444d;
export const NBD_MAGIC_LOW = 0x41474943;
/** "IHAVEOPT" */
export const NBD_OPTION_MAGIC_HIGH = 0x49484156;
export const NBD_OPTION_MAGIC_LOW = 0x454f5054;
export const NBD_OPTION_REPLY_MAGIC_HIGH = 0x0003e889;
export const NBD_OPTION_REPLY_MAGIC_LOW = 0x045565a9;
/** Follows "NBDMAGIC" in the oldstyle negotiation, which nobody should use any more. */
export const NBD_OLDSTYLE_MAGIC_HIGH = 0x00004202;
export const NBD_OLDSTYLE_MAGIC_LOW = 0x81861253;

// Handshake flags (server) and client flags: the same bits in both.
export const NBD_FLAG_FIXED_NEWSTYLE = 0x0001;
export const NBD_FLAG_NO_ZEROES = 0x0002;

// Transmission flags.
export const NBD_FLAG_HAS_FLAGS = 0x0001;
export const NBD_FLAG_READ_ONLY = 0x0002;
export const NBD_FLAG_SEND_FLUSH = 0x0004;
export const NBD_FLAG_SEND_FUA = 0x0008;
export const NBD_FLAG_ROTATIONAL = 0x0010;
export const NBD_FLAG_SEND_TRIM = 0x0020;
export const NBD_FLAG_SEND_WRITE_ZEROES = 0x0040;
export const NBD_FLAG_SEND_DF = 0x0080;
export const NBD_FLAG_CAN_MULTI_CONN = 0x0100;
export const NBD_FLAG_SEND_CACHE = 0x0400;
export const NBD_FLAG_SEND_FAST_ZERO = 0x0800;

// Options.
export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;
export const NBD_OPT_EXTENDED_HEADERS = 11;

// Option replies; errors have bit 31 set.
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;
export const NBD_REP_ERROR_BIT = 0x80000000;
export const NBD_REP_ERR_UNSUP = 0x80000001;
export const NBD_REP_ERR_POLICY = 0x80000002;
export const NBD_REP_ERR_INVALID = 0x80000003;
export const NBD_REP_ERR_TLS_REQD = 0x80000005;
export const NBD_REP_ERR_UNKNOWN = 0x80000006;
export const NBD_REP_ERR_SHUTDOWN = 0x80000007;
export const NBD_REP_ERR_TOO_BIG = 0x80000009;
export const NBD_REP_ERR_EXT_HEADER_REQD = 0x8000000a;

// Information types of INFO and GO.
export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

// Transmission magics.
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

// Header sizes in bytes.
export const NBD_REQUEST_BYTES = 28;
export const NBD_EXTENDED_REQUEST_BYTES = 32;
export const NBD_SIMPLE_REPLY_BYTES = 16;
export const NBD_STRUCTURED_REPLY_BYTES = 20;
export const NBD_EXTENDED_REPLY_BYTES = 32;

// Commands.
export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_CACHE = 5;
export const NBD_CMD_WRITE_ZEROES = 6;
export const NBD_CMD_BLOCK_STATUS = 7;

// Command flags.
export const NBD_CMD_FLAG_FUA = 0x0001;
export const NBD_CMD_FLAG_NO_HOLE = 0x0002;
export const NBD_CMD_FLAG_DF = 0x0004;
export const NBD_CMD_FLAG_REQ_ONE = 0x0008;
export const NBD_CMD_FLAG_FAST_ZERO = 0x0010;
export const NBD_CMD_FLAG_PAYLOAD_LEN = 0x0020;

// Structured and extended reply chunks; error chunks have bit 15 set.
export const NBD_REPLY_FLAG_DONE = 0x0001;
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
export const NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6;
export const NBD_REPLY_TYPE_ERROR_BIT = 0x8000;
export const NBD_REPLY_TYPE_ERROR = 0x8001;
export const NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002;

// Block status of `base:allocation`, and of dirty bitmaps (`qemu:dirty-bitmap:NAME` and `twinvol:dirty` alike).
export const NBD_STATE_HOLE = 0x1;
export const NBD_STATE_ZERO = 0x2;
export const NBD_STATE_DIRTY = 0x1;

// Limits of the specification.
/** A string (export name, error message, query) is never longer. */
export const NBD_STRING_BYTES_MAX = 4096;
/** Extents in one block-status chunk. */
export const NBD_EXTENTS_MAX = 1_048_576;

// Errors of the transmission phase, under their names in the specification.
export const NBD_EPERM: NbdErrno = NBD_ERRNO.EPERM;
export const NBD_EIO: NbdErrno = NBD_ERRNO.EIO;
export const NBD_EINVAL: NbdErrno = NBD_ERRNO.EINVAL;
export const NBD_ENOSPC: NbdErrno = NBD_ERRNO.ENOSPC;
export const NBD_EOVERFLOW: NbdErrno = NBD_ERRNO.EOVERFLOW;
export const NBD_ENOTSUP: NbdErrno = NBD_ERRNO.ENOTSUP;
export const NBD_ESHUTDOWN: NbdErrno = NBD_ERRNO.ESHUTDOWN;
