/**
 * What is known to be mounted where, from the hosts' last reports and answers, with its age (specification 6, mount
 * table). It is knowledge of the past, for people to look at: no decision is made from it, an inquiry asks anew.
 *
 * A host whose agent is gone keeps its rows, marked as no longer reported; a host that is removed loses them.
 */
import type { MountTableRow } from '../core/host-views.ts';
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { HostFact } from '../core/mount-facts.ts';
import { factIdentity } from '../core/mount-facts.ts';

/** What a report changed for one host and volume. */
export type MountChange = {
  readonly host: string;
  readonly volume: number;
  readonly appeared: readonly HostFact[];
  readonly vanished: readonly HostFact[];
};

type Row = Omit<MountTableRow, 'isLive'>;

const without = (facts: readonly HostFact[], others: readonly HostFact[]): readonly HostFact[] => {
  const known = new Set(others.map(factIdentity));
  return facts.filter((fact) => !known.has(factIdentity(fact)));
};

export class MountTable {
  readonly #rows = new Map<string, Map<number, Row>>();

  /** Takes what a host says. Returns what is new by it; a first report of "not mounted" is no news. */
  record(host: string, findings: readonly VolumeFacts[], nowMs: number): readonly MountChange[] {
    const rows = this.#rows.get(host) ?? new Map<number, Row>();
    this.#rows.set(host, rows);
    return findings.flatMap(({ volume, facts }) => {
      const former = rows.get(volume);
      const appeared = without(facts, former?.facts ?? [{ kind: 'not-mounted' }]);
      const vanished = without(former?.facts ?? [], facts);
      const isNews = appeared.length > 0 || vanished.length > 0;
      const changedAtMs = former === undefined || isNews ? nowMs : former.changedAtMs;
      rows.set(volume, { host, volume, facts, reportedAtMs: nowMs, changedAtMs });
      return isNews ? [{ host, volume, appeared, vanished }] : [];
    });
  }

  /** Hosts that are no more, and volumes that a host cannot reach any more, leave the table. */
  keepOnly(isKept: (host: string, volume: number) => boolean): void {
    for (const [host, rows] of this.#rows) {
      for (const volume of rows.keys()) if (!isKept(host, volume)) rows.delete(volume);
      if (rows.size === 0) this.#rows.delete(host);
    }
  }

  /** All rows, by host and volume. */
  rows(isLive: (host: string) => boolean): readonly MountTableRow[] {
    return [...this.#rows.values()]
      .flatMap((rows) => [...rows.values()])
      .map((row) => ({ ...row, isLive: isLive(row.host) }))
      .sort((a, b) => (a.host < b.host ? -1 : a.host > b.host ? 1 : a.volume - b.volume));
  }
}
