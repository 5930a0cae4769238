/** Bounds of the control socket, for one server and for one connection. */
import { KiB, MiB } from '../core/units.ts';

export type ControlLimits = {
  /** Connections at once; one more is told so and closed. */
  readonly connections: number;
  /** Requests of one connection that are not answered yet. */
  readonly requestsInFlight: number;
  /** Event streams of one connection. */
  readonly streams: number;
  /** Queued output above which no more requests are read. */
  readonly outputBytesPause: number;
  /** Queued output at which a connection is dropped. */
  readonly outputBytesMax: number;
  /** How long a reader may take nothing while output is queued. */
  readonly stallMs: number;
  /** How long a line may take from its first byte to its end. */
  readonly lineMs: number;
  /** How long a connection that is being closed may take its last output. */
  readonly graceMs: number;
  /** Malformed messages in a row before the connection is closed. */
  readonly malformedInARow: number;
};

export const CONTROL_LIMITS_DEFAULT: ControlLimits = {
  connections: 64,
  requestsInFlight: 32,
  streams: 8,
  outputBytesPause: 256 * KiB,
  outputBytesMax: 64 * MiB,
  stallMs: 30_000,
  lineMs: 30_000,
  graceMs: 2_000,
  malformedInARow: 16,
};
