/**
 * How much handshake a client gets before it is cut off. Time is bounded by whoever owns the socket.
 *
 * Honest clients list a device of 65,535 volumes with two or three options for each export on one connection, so good
 * options are cheap and many are allowed; each refused option (a guessed name, a malformed request) counts apart.
 */
import { VOLUME_COUNT_MAX } from '../core/units.ts';

export type NegotiationLimits = {
  readonly optionsMax: number;
  /** Options that were answered with an error. */
  readonly refusalsMax: number;
  /** LIST is the one short option with a long answer. */
  readonly listsMax: number;
  readonly receivedBytesMax: number;
  /** Data of one option that is kept; more is skipped and refused as too big. */
  readonly optionDataBytesMax: number;
  /** Data of one option that is skipped; an option that announces more ends the connection. */
  readonly optionSkipBytesMax: number;
  /** Bytes that may arrive while an answer of the driver is pending. */
  readonly pendingBytesMax: number;
};

export const NEGOTIATION_LIMITS: NegotiationLimits = {
  optionsMax: VOLUME_COUNT_MAX * 4,
  refusalsMax: 256,
  listsMax: 64,
  receivedBytesMax: 64 * 1024 * 1024,
  optionDataBytesMax: 16 * 1024,
  optionSkipBytesMax: 1024 * 1024,
  pendingBytesMax: 256 * 1024,
};

export type NegotiationCounts = { options: number; refusals: number; lists: number; receivedBytes: number };

/** The limit that is broken, in words, or null. */
export const limitBroken = (counts: NegotiationCounts, limits: NegotiationLimits): string | null => {
  if (counts.options > limits.optionsMax) return `more than ${limits.optionsMax} options`;
  if (counts.refusals > limits.refusalsMax) return `more than ${limits.refusalsMax} refused options`;
  if (counts.lists > limits.listsMax) return `more than ${limits.listsMax} lists`;
  if (counts.receivedBytes > limits.receivedBytesMax) return `more than ${limits.receivedBytesMax} bytes of options`;
  return null;
};
