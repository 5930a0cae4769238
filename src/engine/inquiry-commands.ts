/** Asking without deciding: an inquiry about one volume, the mount table, and the audit record. Changes nothing. */
import type { AuditRecord } from '../core/audit.ts';
import type { InquiryView, MountView } from '../core/host-views.ts';
import type { AuditInput, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';
import { mountViews } from './mount-views.ts';

/** Records that one call gives at most; the next call goes on from the last of them. */
export const AUDIT_RECORDS_MAX: number = 10_000;

export class InquiryCommands {
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /** The volume is not held: what comes back may be old a moment later, and no command relies on it. */
  ask(volume: VolumeRef): Promise<InquiryView> {
    return this.#context.gate.look(this.#context.store.tables.volume(volume));
  }

  mounts(volume: VolumeRef | undefined): readonly MountView[] {
    const { store, desk, nowMs } = this.#context;
    const number = volume === undefined ? null : store.tables.volume(volume).number;
    const rows = desk?.mountTable() ?? [];
    return mountViews(
      rows.filter((row) => number === null || row.volume === number),
      store.tables,
      nowMs(),
    );
  }

  audit({ since = 0, limit = AUDIT_RECORDS_MAX }: AuditInput): Promise<readonly AuditRecord[]> {
    return this.#context.audit.read(since, Math.min(limit, AUDIT_RECORDS_MAX));
  }
}
