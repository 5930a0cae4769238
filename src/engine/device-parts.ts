/** The parts of an open device that only its composition root and its report need, beside the shared context. */
import type { DeviceContext } from './context.ts';
import type { ExportAddresses } from './export-addresses.ts';
import type { DeviceExportPolicy } from './export-policy.ts';
import type { Happenings } from './happenings.ts';
import type { PairShell } from './pair-shell.ts';

export type DeviceParts = {
  readonly context: DeviceContext;
  readonly shell: PairShell;
  readonly policy: DeviceExportPolicy;
  readonly happenings: Happenings;
  readonly addresses: ExportAddresses;
  /** Path of the control socket; empty: the library without one. */
  readonly controlPath: string;
  readonly startedAtMs: number;
  /** What this start had to copy again, in bytes. */
  readonly recoveryBytes: number;
};
