/**
 * What the command groups share: the parts of one open device. Made in one place (`device.ts`), handed to every group.
 */
import type { Logger } from 'pino';
import type { EventLog } from '../core/event-log.ts';
import type { DataPlane } from '../data/plane-api.ts';
import type { Store } from '../store/store.ts';
import type { AgentDesk, CertificateDesk } from './agent-desk.ts';
import type { AuditTrail } from './audit-trail.ts';
import type { TableDirectory } from './host-directory.ts';
import type { InquiryGate } from './inquiry-gate.ts';
import type { ObjectLocks } from './object-locks.ts';
import type { PairBook } from './pair-book.ts';
import type { RegionSupply } from './region-supply.ts';
import type { Views } from './views.ts';

export type DeviceContext = {
  readonly store: Store;
  readonly plane: DataPlane;
  readonly log: Logger;
  readonly events: EventLog;
  readonly locks: ObjectLocks;
  readonly pairs: PairBook;
  readonly regions: RegionSupply;
  readonly gate: InquiryGate;
  readonly audit: AuditTrail;
  readonly directory: TableDirectory;
  /** Absent: nobody speaks with the hosts' agents. */
  readonly desk: AgentDesk | null;
  /** Absent: this device issues no certificates. */
  readonly certificates: CertificateDesk | null;
  readonly views: Views;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
};
