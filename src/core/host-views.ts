/**
 * What the device reports about hosts and their use of volumes: the shapes that the library, the control socket and the
 * command line's `--json` share. Plain JSON values. Times in milliseconds since 1970, durations in milliseconds.
 */
import type { Finding } from './inquiry.ts';
import type { Destruction } from './inquiry-text.ts';
import type { HostFact, NoAnswerReason } from './mount-facts.ts';
import type { HostAccess } from './rows.ts';
import type { ClientView } from './views.ts';

/** A volume as reports name it. */
export type VolumeName = {
  readonly number: number;
  readonly name: string;
};

/** A host's agent that is connected now. */
export type AgentView = {
  readonly host: string;
  readonly pid: number;
  /** Whether it runs as root, and so sees what other users have open. */
  readonly isPrivileged: boolean;
  readonly transport: 'unix' | 'tls';
  readonly connectedAtMs: number;
};

/** What a host said last about one volume. Knowledge of the past: an inquiry asks anew. */
export type MountTableRow = {
  readonly host: string;
  readonly volume: number;
  readonly facts: readonly HostFact[];
  /** When the host said so last, and when that was news. */
  readonly reportedAtMs: number;
  readonly changedAtMs: number;
  /** Whether the host's agent is connected, so that a change would be told. */
  readonly isLive: boolean;
};

/** The same, as the operator reads it. */
export type MountView = {
  readonly host: string;
  readonly volume: VolumeName;
  readonly facts: readonly HostFact[];
  readonly reportedAtMs: number;
  readonly changedAtMs: number;
  /** Whether the host's agent is connected, so that a change would be told. */
  readonly isLive: boolean;
  /** False where the host says that it does not use the volume. */
  readonly inUse: boolean;
  /** A line for each fact. */
  readonly texts: readonly string[];
  readonly ageMs: number;
};

export type GrantView = {
  readonly volume: VolumeName;
  readonly access: HostAccess;
};

export type HostView = {
  readonly name: string;
  readonly grants: readonly GrantView[];
  /** SHA-256 of the certificates that prove the host over TLS, the newest last. */
  readonly certificates: readonly string[];
  readonly createdAtMs: number;
  /** null: no agent of it is connected, and an inquiry will not be answered. */
  readonly agent: AgentView | null;
  /** What it said last about volumes that it uses, or may use. */
  readonly mounts: readonly MountView[];
  /** Its NBD connections, as far as they have proved to be its own. */
  readonly clients: readonly ClientView[];
};

/** What came back from one host about one volume. */
export type AnswerView = {
  readonly host: string;
  readonly volume: VolumeName;
  readonly outcome: 'answered' | 'no-answer';
  /** True where the host said that it does not use the volume, and nothing else. */
  readonly unused: boolean;
  /** A line for each fact, or why there is no answer. */
  readonly texts: readonly string[];
  readonly reason: NoAnswerReason | null;
  readonly afterMs: number | null;
};

/** An inquiry that decides nothing. */
export type InquiryView = {
  /** Its number in the audit record. */
  readonly inquiry: number;
  readonly volume: VolumeName;
  readonly clear: boolean;
  readonly hosts: readonly string[];
  readonly answers: readonly AnswerView[];
  readonly findings: readonly Finding[];
  /** What a resync of its pair would destroy on it now; empty unless it is the secondary of a pair that can be resynced. */
  readonly destroys: readonly Destruction[];
  /** A line for each finding, and for what would be destroyed; none where nothing was found. */
  readonly warnings: readonly string[];
  readonly tookMs: number;
};

/** Files of a certificate that was issued, on the device, and what proves it. */
export type CertificateView = {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly authorityFile: string;
  /** SHA-256 of the certificate, hex. */
  readonly sha256: string;
  readonly expiresAtMs: number;
};
