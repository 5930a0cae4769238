/**
 * The pair machine under any sequence of commands and happenings: the row stays well formed, and `duplex` is reached
 * by a finished copy only.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decide, isRestoreInterrupted } from '../../src/core/pair-machine.ts';
import type { PairEvent } from '../../src/core/pair-machine.ts';
import { pairVerdict } from '../../src/core/row-rules.ts';
import type { PairRow } from '../../src/core/rows.ts';
import { MiB } from '../../src/core/units.ts';

const base = { id: 1, primary: 1, secondary: 2, dirtyRegionBytes: 65_536, fence: 'never', pace: 8 } as const;
const events: fc.Arbitrary<PairEvent> = fc.oneof(
  fc.constantFrom<PairEvent>(
    { event: 'create', pair: base },
    { event: 'split' },
    { event: 'resync', pace: 3 },
    { event: 'restore' },
    { event: 'release' },
    { event: 'set', pace: 15 },
    { event: 'verify' },
    { event: 'copy-done' },
    { event: 'copy-done' },
    { event: 'copy-failed', leg: 'primary', code: 'EIO' },
    { event: 'primary-failed', code: 'EIO' },
    { event: 'secondary-failed', code: 'ENOSPC' },
    { event: 'link-lost', code: 'ETIMEDOUT' },
    { event: 'differs', bytes: 4096 },
    { event: 'undone', command: 'release', code: 'STORE_FULL' },
  ),
  fc.nat(1_000_000).map((dirtyBytes): PairEvent => ({ event: 'recovered', dirtyBytes })),
);

it('keeps the row well formed, and calls a pair duplex only after a finished copy', () => {
  fc.assert(
    fc.property(fc.array(events, { maxLength: 60 }), (sequence) => {
      let row: PairRow | null = null;
      let atMs = 0;
      for (const event of sequence) {
        atMs += 1;
        const before: PairRow | null = row;
        const decision = decide(before, event, atMs);
        if (decision.kind === 'refused') {
          expect(decision.state).toBe(before?.state ?? 'simplex');
          expect(decision.allowedIn.length).toBeGreaterThan(0);
          continue;
        }
        row = decision.row;
        expect(decision.from).toBe(before?.state ?? 'simplex');
        expect(decision.to).toBe(row?.state ?? 'simplex');
        if (row === null) continue;
        expect(pairVerdict(row, MiB)).toBeNull();
        expect(row.copy !== undefined).toBe(row.state === 'duplex-pending' || isRestoreInterrupted(row));
        if (row.state === 'suspended') expect(row.reason).toBeDefined();
        if (row.state === 'duplex' && before?.state !== 'duplex') expect(event.event).toBe('copy-done');
        if (row.state !== before?.state) expect(decision.effects.some((effect) => effect.do === 'journal')).toBe(true);
        if (row.state === 'duplex-pending' && before?.state !== 'duplex-pending')
          expect(decision.effects.some((effect) => effect.do === 'copy-start')).toBe(true);
      }
    }),
    { numRuns: 1000 },
  );
});
