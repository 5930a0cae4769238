/**
 * The pair machine, cell by cell: what the published matrix says is what the machine does, refusals name both the
 * state and what is allowed, and the page is the one that the matrix writes.
 */
import { describe, expect, it } from 'vitest';
import { FAULTS } from '../../../src/core/faults.ts';
import { decide, isRestoreInterrupted, refusalError } from '../../../src/core/pair-machine.ts';
import type { Moved, PairEffect, PairEvent } from '../../../src/core/pair-machine.ts';
import { COMMAND_MATRIX, HAPPENING_MATRIX, PAIR_COMMANDS, PAIR_HAPPENINGS } from '../../../src/core/pair-matrix.ts';
import type { PairCommand, PairHappening } from '../../../src/core/pair-matrix.ts';
import { pairsPage } from '../../../src/core/pair-page.ts';
import { PAIR_STATES } from '../../../src/core/rows.ts';
import type { PairRow, PairState } from '../../../src/core/rows.ts';

const base = { id: 7, primary: 1, secondary: 2, dirtyRegionBytes: 65_536, fence: 'never', pace: 8 } as const;
const rowIn = (state: PairState, extra: Partial<PairRow> = {}): PairRow | null => {
  if (state === 'simplex') return null;
  const copy = state === 'duplex-pending' ? { copy: 'initial' as const } : {};
  return { ...base, state, ...copy, createdAtMs: 1, stateSinceMs: 2, ...extra };
};
const commandEvent = (command: PairCommand): PairEvent => {
  switch (command) {
    case 'create':
      return { event: 'create', pair: base };
    case 'set':
      return { event: 'set', pace: 3, fence: 'data' };
    default:
      return { event: command };
  }
};
const happeningEvent = (happening: PairHappening): PairEvent => {
  switch (happening) {
    case 'copy-done':
      return { event: 'copy-done' };
    case 'copy-failed':
      return { event: 'copy-failed', leg: 'secondary', code: 'EIO' };
    case 'differs':
      return { event: 'differs', bytes: 4096 };
    case 'undone':
      return { event: 'undone', command: 'split', code: 'STORE_FULL' };
    case 'recovered':
      return { event: 'recovered', dirtyBytes: 4096 };
    default:
      return { event: happening, code: 'EIO' };
  }
};
const movedBy = (row: PairRow | null, event: PairEvent): Moved => {
  const decision = decide(row, event, 99);
  if (decision.kind !== 'moved') throw new Error(`refused: ${decision.why}`);
  return decision;
};
const deeds = (effects: readonly PairEffect[]): string[] =>
  effects.map((effect) =>
    'sides' in effect
      ? `${effect.do} ${effect.sides.join('+')}`
      : 'side' in effect
        ? `${effect.do} ${effect.side}`
        : effect.do === 'switch'
          ? `switch ${effect.mode}/${effect.dirty}`
          : effect.do,
  );

describe('the command x state matrix', () => {
  for (const command of PAIR_COMMANDS) {
    for (const state of PAIR_STATES) {
      const cell = COMMAND_MATRIX[command][state];
      it(`${command} in ${state}: ${cell.allowed ? `allowed (${cell.to})` : `refused ${cell.code}`}`, () => {
        const suits = cell.allowed && cell.only === 'restore-interrupted' ? { copy: 'restore' as const } : {};
        const row = rowIn(state, suits);
        const decision = decide(row, commandEvent(command), 99);
        if (cell.allowed) {
          expect(decision).toMatchObject({ kind: 'moved', from: state, to: cell.to === 'same' ? state : cell.to });
        } else {
          expect(decision).toMatchObject({ kind: 'refused', command, state, code: cell.code });
          expect(Object.hasOwn(FAULTS, cell.code)).toBe(true);
          if (decision.kind !== 'refused') return;
          const error = refusalError(decision, 'pair db -> copy');
          expect(error.code).toBe(cell.code);
          expect(error.message).toContain(`is ${state}`);
          for (const allowed of decision.allowedIn) expect(error.message).toContain(allowed);
          expect(error.remedy.length).toBeGreaterThan(10);
          expect(error.exitStatus).toBe(10);
        }
      });
    }
  }

  it('no allowed command is a silent no-op: it changes the row, or it answers (verify)', () => {
    for (const command of PAIR_COMMANDS) {
      for (const state of PAIR_STATES) {
        const cell = COMMAND_MATRIX[command][state];
        if (!cell.allowed || command === 'verify') continue;
        const row = rowIn(state, cell.only === 'restore-interrupted' ? { copy: 'restore' } : {});
        const decision = movedBy(row, commandEvent(command));
        expect(decision.row).not.toEqual(row);
        expect(deeds(decision.effects)).toContain('journal');
      }
    }
  });

  it('an interrupted restore can be restored or released, but not resynced over', () => {
    const row = rowIn('suspended', { copy: 'restore', reason: 'restore-interrupted: primary-error: EIO' });
    expect(decide(row, { event: 'resync' }, 99)).toMatchObject({ kind: 'refused', code: 'PAIR_STATE' });
    expect(movedBy(row, { event: 'restore' }).to).toBe('duplex-pending');
    expect(movedBy(row, { event: 'release' }).to).toBe('simplex');
    expect(decide(rowIn('suspended'), { event: 'restore' }, 99)).toMatchObject({ kind: 'refused', code: 'PAIR_STATE' });
  });
});

describe('the happening x state matrix', () => {
  for (const happening of PAIR_HAPPENINGS) {
    for (const state of PAIR_STATES) {
      const cell = HAPPENING_MATRIX[happening][state];
      it(`${happening} in ${state}: ${cell.kind}`, () => {
        const decision = movedBy(rowIn(state), happeningEvent(happening));
        expect(decision.to).toBe(cell.kind === 'moves' ? cell.to : state);
        expect(decision.effects.length).toBeGreaterThan(0);
        if (cell.kind === 'late') expect(decision.effects).toMatchObject([{ do: 'report', level: 'debug' }]);
      });
    }
  }

  it('carries the reason as data', () => {
    expect(movedBy(rowIn('duplex'), { event: 'secondary-failed', code: 'ENOSPC' }).row?.reason).toBe('secondary-error: ENOSPC');
    expect(movedBy(rowIn('duplex'), { event: 'link-lost', code: 'ETIMEDOUT' }).row?.reason).toBe('link-lost: ETIMEDOUT');
    expect(movedBy(rowIn('duplex'), { event: 'primary-failed', code: 'EIO' }).row?.reason).toBe('primary-error: EIO');
    expect(movedBy(rowIn('duplex'), { event: 'recovered', dirtyBytes: 4096 }).row?.reason).toBe('crash-recovery');
    const restore = rowIn('duplex-pending', { copy: 'restore' });
    const interrupted = movedBy(restore, { event: 'copy-failed', leg: 'primary', code: 'EIO' }).row;
    expect(interrupted).toMatchObject({ state: 'suspended', copy: 'restore', reason: 'restore-interrupted: primary-error: EIO' });
    expect(interrupted !== null && isRestoreInterrupted(interrupted)).toBe(true);
  });

  it('an interrupted restore stays in its mode: hosts read the whole image from the secondary', () => {
    const restoring = rowIn('duplex-pending', { copy: 'restore' });
    const stopped = movedBy(restoring, { event: 'copy-failed', leg: 'primary', code: 'EIO' });
    expect(deeds(stopped.effects)).toEqual(['copy-stop', 'journal', 'report']);
    expect(deeds(movedBy(stopped.row, { event: 'recovered', dirtyBytes: 4096 }).effects)).toEqual(['switch restoring/merge']);
  });

  it('a failed secondary is not switched again, which would lift the fence', () => {
    expect(deeds(movedBy(rowIn('duplex'), { event: 'secondary-failed', code: 'EIO' }).effects)).toEqual(['copy-stop', 'journal', 'report']);
    expect(deeds(movedBy(rowIn('duplex'), { event: 'link-lost', code: 'EPIPE' }).effects)).toEqual([
      'copy-stop',
      'switch tracking/keep',
      'journal',
      'report',
    ]);
  });

  it('forgets an old reason and copy kind when a command or the end of a copy moves the pair', () => {
    const pending = rowIn('duplex-pending', { copy: 'resync', reason: 'crash-recovery' });
    const duplex = movedBy(pending, { event: 'copy-done' }).row;
    expect(duplex).toEqual({ ...base, state: 'duplex', createdAtMs: 1, stateSinceMs: 99 });
  });

  it('a pair that was duplex and is clean stays duplex at the start', () => {
    expect(movedBy(rowIn('duplex'), { event: 'recovered', dirtyBytes: 0 })).toMatchObject({
      to: 'duplex',
      effects: [{ do: 'switch', mode: 'mirroring', dirty: 'keep' }],
    });
  });
});

describe('the order of effects', () => {
  it('create: the bits are all dirty before the row is durable, and the copy starts after it', () => {
    expect(deeds(movedBy(null, commandEvent('create')).effects)).toEqual([
      'hold secondary',
      'inquire secondary',
      'attach',
      'switch copying/all',
      'journal',
      'end-clients secondary',
      'copy-start',
    ]);
  });

  it('split: the switch is the moment of the image, which is durable before the journal says that there is one', () => {
    expect(deeds(movedBy(rowIn('duplex'), { event: 'split' }).effects)).toEqual(['switch tracking/clear', 'flush secondary', 'journal']);
  });

  it('resync: held and asked, durable, then switched', () => {
    expect(deeds(movedBy(rowIn('split'), { event: 'resync' }).effects)).toEqual([
      'hold secondary',
      'inquire secondary',
      'journal',
      'configure',
      'end-clients secondary',
      'switch copying/merge',
      'copy-start',
    ]);
  });

  it('restore: asks for both sides, and the other pairs learn what changes before the copy starts', () => {
    expect(deeds(movedBy(rowIn('split'), { event: 'restore' }).effects)).toEqual([
      'hold primary+secondary',
      'inquire primary+secondary',
      'journal',
      'configure',
      'end-clients primary+secondary',
      'switch restoring/merge',
      'mark-siblings',
      'copy-start',
    ]);
  });

  it('nothing that overwrites a leg comes before the journal', () => {
    const overwrites = (command: PairCommand, effect: PairEffect): boolean =>
      effect.do === 'copy-start' ||
      // A release of a restore ends them before another content shows; it overwrites nothing.
      (effect.do === 'end-clients' && command !== 'release') ||
      (effect.do === 'switch' && effect.mode === 'restoring') ||
      (effect.do === 'switch' && effect.dirty === 'merge');
    for (const command of PAIR_COMMANDS) {
      for (const state of PAIR_STATES) {
        for (const copy of ['initial', 'restore'] as const) {
          const decision = decide(rowIn(state, state === 'suspended' ? { copy } : {}), commandEvent(command), 99);
          if (decision.kind !== 'moved') continue;
          const journal = decision.effects.findIndex((effect) => effect.do === 'journal');
          const early = decision.effects.slice(0, Math.max(journal, 0)).filter((effect) => overwrites(command, effect));
          expect(early, `${command} in ${state}`).toEqual([]);
        }
      }
    }
  });

  it('split demands that nothing is dirty: a leg that failed a moment ago must not lose its dirty bits', () => {
    expect(movedBy(rowIn('duplex'), { event: 'split' }).effects[0]).toEqual({
      do: 'switch',
      mode: 'tracking',
      dirty: 'clear',
      onlyIfClean: true,
    });
  });

  it('duplex is reached through a switch that demands that nothing is dirty', () => {
    expect(movedBy(rowIn('duplex-pending'), { event: 'copy-done' }).effects).toEqual([
      { do: 'switch', mode: 'mirroring', dirty: 'keep', onlyIfClean: true },
      { do: 'journal' },
    ]);
  });
});

it('the published page is the one that the matrix writes', async () => {
  await expect(pairsPage()).toMatchFileSnapshot('../../../src/core/PAIRS.md');
});
