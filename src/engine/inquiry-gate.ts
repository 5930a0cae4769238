/**
 * The gate before everything that overwrites or gives away a volume's content (specification 6).
 *
 * The engine holds the volumes, then calls the gate, then goes on or gives up; so what the gate finds cannot go stale
 * in between. The gate finds out who uses the volumes and decides with the operator's consent; it changes nothing.
 */
import type { InquiryView } from '../core/host-views.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import type { Finding } from '../core/inquiry.ts';
import type { VolumeRow } from '../core/rows.ts';
import type { Consent } from './api.ts';

export type InquiryTargetVolume = {
  readonly number: number;
  readonly name: string;
  /** What would be lost on it. */
  readonly destroys: Destruction;
};

export type InquiryRequest = {
  /** As the operator reads it: `pair resync db`. A consent to one command is none to another. */
  readonly command: string;
  readonly targets: readonly InquiryTargetVolume[];
  /** Changes whenever the state of what is concerned does; a consent to an older one is void. */
  readonly generation: string;
  readonly consent?: Consent;
};

/** The leave to go on. */
export type Permit = {
  /** What was found, and is covered by the operator's consent. */
  readonly findings: readonly Finding[];
  /** To be called when the command has been carried out, or has failed with `error`: for the audit record. */
  ended(error: unknown): Promise<void>;
};

export interface InquiryGate {
  /**
   * Returns if nobody uses the volumes, or the operator's consent covers everything that was found; the decision is on
   * record by then.
   * @throws TwinvolError `MOUNTED`, `NO_ANSWER` (findings and a token in its details), `CONSENT_VOID`, `USAGE`; `STORE_FULL`
   * or `STORE_IO` when the decision could not be recorded
   */
  check(request: InquiryRequest): Promise<Permit>;
  /** Asks now, and decides nothing. `destroys`: what would be lost on the volume, as far as there is something that would destroy it. */
  look(volume: VolumeRow, destroys: () => readonly Destruction[]): Promise<InquiryView>;
  /** Names of the hosts that would be asked, for a plan. */
  hostsFor(volumes: readonly number[]): readonly string[];
}
