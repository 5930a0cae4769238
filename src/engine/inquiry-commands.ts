/** Asking without deciding: an inquiry about one volume, the mount table, and the audit record. Changes nothing. */
import type { AuditRecord } from '../core/audit.ts';
import type { InquiryView, MountView } from '../core/host-views.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import type { VolumeRow } from '../core/rows.ts';
import type { AuditInput, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';
import { destructionOf } from './pair-destruction.ts';
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
    const { gate, store } = this.#context;
    const row = store.tables.volume(volume);
    return gate.look(row, () => this.#lostByResync(row));
  }

  #lostByResync(volume: VolumeRow): readonly Destruction[] {
    const { pairs, plane } = this.#context;
    const pair = pairs.ofSecondary(volume.number);
    if (pair === undefined || (pair.state !== 'split' && pair.state !== 'suspended')) return [];
    return [destructionOf(volume, 'secondary', pair, 'resync', plane)];
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
