/** What the hosts said last, as the operator reads it: names instead of numbers, lines instead of facts, ages. */
import type { MountTableRow, MountView } from '../core/host-views.ts';
import { factText } from '../core/inquiry-text.ts';
import type { Tables } from '../core/tables.ts';

/** Rows of volumes that are gone are left out. */
export const mountViews = (rows: readonly MountTableRow[], tables: Pick<Tables, 'findVolume'>, nowMs: number): readonly MountView[] => {
  return rows.flatMap((row) => {
    const volume = tables.findVolume(row.volume);
    if (volume === undefined) return [];
    return [
      {
        ...row,
        volume: { number: volume.number, name: volume.name },
        inUse: row.facts.some((fact) => fact.kind !== 'not-mounted'),
        texts: row.facts.map((fact) => factText(row.host, volume.name, fact)),
        ageMs: Math.max(0, nowMs - row.reportedAtMs),
      },
    ];
  });
};
