/**
 * The published matrix: what each command and each happening does to a pair in each state (specification 3).
 *
 * It is data, so that the machine (`pair-machine.ts`), the refusal's text and the page (`PAIRS.md`) cannot disagree.
 * Invariants: every cell is filled, a refused cell has a stable fault code and says why, and no cell is a silent
 * no-op: a command that is allowed changes something or answers something; a happening that changes no state is
 * reported.
 */
import type { FaultCode } from './faults.ts';
import type { PairState } from './rows.ts';

export const PAIR_COMMANDS = ['create', 'split', 'resync', 'restore', 'release', 'set', 'verify'] as const;
export type PairCommand = (typeof PAIR_COMMANDS)[number];

/**
 * What happens to a pair without a command. `undone`: a command had switched the data plane and could not be recorded;
 * `recovered`: the engine starts with the pair in its tables.
 */
export const PAIR_HAPPENINGS = [
  'copy-done',
  'copy-failed',
  'primary-failed',
  'secondary-failed',
  'link-lost',
  'differs',
  'undone',
  'recovered',
] as const;
export type PairHappening = (typeof PAIR_HAPPENINGS)[number];

export type AllowedCell = {
  readonly allowed: true;
  /** The state afterwards; `same` where the command changes no state. */
  readonly to: PairState | 'same';
  /** Narrows the cell: it holds in this case only, else the command is refused with `unless`. */
  readonly only?: 'restore-interrupted' | 'restore-not-interrupted';
  readonly unless?: RefusedCell;
  readonly note: string;
};
export type RefusedCell = {
  readonly allowed: false;
  readonly code: FaultCode;
  readonly why: string;
  readonly remedy: string;
};
export type Cell = AllowedCell | RefusedCell;

const goes = (to: AllowedCell['to'], note: string): AllowedCell => ({ allowed: true, to, note });
const refused = (code: FaultCode, why: string, remedy: string): RefusedCell => ({ allowed: false, code, why, remedy });

const noPair: RefusedCell = refused('PAIR_NOT_FOUND', 'there is no such pair', 'form it with twinvol pair create PRIMARY SECONDARY');
const exists: RefusedCell = refused('VOLUME_PAIRED', 'the pair exists already', 'release it first, or use it as it is');
const copying = (remedy: string): RefusedCell => refused('PAIR_STATE', 'the copy is still running', remedy);
const waitDuplex = 'wait for the end of the copy (twinvol pair wait PRIMARY --state duplex), or give --wait';
const splitFirst = 'split the pair first (twinvol pair split PRIMARY)';
const halfRestored: RefusedCell = refused(
  'PAIR_STATE',
  'a restore was interrupted, and the primary holds a part of the restored image',
  'finish it with twinvol pair restore PRIMARY, or release the pair',
);

/** Commands by state. The order of states is the one of `PAIR_STATES`. */
export const COMMAND_MATRIX: Readonly<Record<PairCommand, Readonly<Record<PairState, Cell>>>> = {
  create: {
    simplex: goes('duplex-pending', 'the initial copy starts, every region is dirty'),
    'duplex-pending': exists,
    duplex: exists,
    split: exists,
    suspended: exists,
  },
  split: {
    simplex: noPair,
    'duplex-pending': copying(waitDuplex),
    duplex: goes('split', 'the secondary keeps the image of this moment; both sides are tracked'),
    split: refused('PAIR_STATE', 'the pair is split already', 'to take a newer image, resync, wait for duplex, and split again'),
    suspended: refused(
      'PAIR_STATE',
      'an error stopped the update copy, so the secondary is no image of one moment',
      'resync, wait for duplex, then split',
    ),
  },
  resync: {
    simplex: noPair,
    'duplex-pending': copying('let it end; twinvol pair status PRIMARY shows its progress'),
    duplex: refused('PAIR_STATE', 'both legs are equal already', 'nothing needs to be done'),
    split: goes('duplex-pending', 'regions dirty on either side are copied to the secondary'),
    suspended: {
      ...goes('duplex-pending', 'regions dirty on either side are copied to the secondary'),
      only: 'restore-not-interrupted',
      unless: halfRestored,
    },
  },
  restore: {
    simplex: noPair,
    'duplex-pending': copying(waitDuplex),
    duplex: refused('PAIR_STATE', 'both legs are equal, so there is no older image to go back to', splitFirst),
    split: goes('duplex-pending', 'regions dirty on either side are copied to the primary'),
    suspended: {
      ...goes('duplex-pending', 'the interrupted restore goes on'),
      only: 'restore-interrupted',
      unless: refused(
        'PAIR_STATE',
        'an error stopped the update copy, so the secondary is no image of one moment',
        'resync, wait for duplex, then split',
      ),
    },
  },
  release: {
    simplex: noPair,
    'duplex-pending': goes(
      'simplex',
      'the copy ends; the secondary is left with a part of the image; of a restore the primary is, and its hosts are asked and ended',
    ),
    duplex: goes('simplex', 'the secondary is left with the image of this moment'),
    split: goes('simplex', 'both volumes keep what they hold'),
    suspended: goes(
      'simplex',
      'both volumes keep what they hold; of an interrupted restore the primary holds a part of the image, and its hosts are asked and ended',
    ),
  },
  set: {
    simplex: noPair,
    'duplex-pending': goes('same', 'pace and fence level change at once'),
    duplex: goes('same', 'pace and fence level change at once'),
    split: goes('same', 'pace and fence level change at once'),
    suspended: goes('same', 'pace and fence level change at once'),
  },
  verify: {
    simplex: noPair,
    'duplex-pending': copying(waitDuplex),
    duplex: goes('same', 'the legs are compared; with repair, what differs is copied again'),
    split: goes('same', 'what is clean on both sides is compared; with repair, what differs is copied by the next resync'),
    suspended: goes('same', 'what is clean on both sides is compared; with repair, what differs is copied by the next resync'),
  },
};

/** What a happening does: moves the pair, leaves it where it is and is reported, or came too late to mean anything. */
export type HappeningCell =
  | { readonly kind: 'moves'; readonly to: PairState; readonly note: string }
  | { readonly kind: 'stays'; readonly note: string }
  | { readonly kind: 'late'; readonly note: string };

const moves = (to: PairState, note: string): HappeningCell => ({ kind: 'moves', to, note });
const stays = (note: string): HappeningCell => ({ kind: 'stays', note });
const late: HappeningCell = { kind: 'late', note: 'reported in the log: the pair has moved on since' };

export const HAPPENING_MATRIX: Readonly<Record<PairHappening, Readonly<Record<PairState, HappeningCell>>>> = {
  'copy-done': {
    simplex: late,
    'duplex-pending': moves('duplex', 'only if no region is dirty at the closed gate; else the copy goes on'),
    duplex: late,
    split: late,
    suspended: late,
  },
  'copy-failed': {
    simplex: late,
    'duplex-pending': moves('suspended', 'the bitmap is kept; resync (or restore, if it was one) goes on from there'),
    duplex: late,
    split: late,
    suspended: late,
  },
  'primary-failed': {
    simplex: late,
    'duplex-pending': stays('the region is dirty, the running copy takes it'),
    duplex: moves('duplex-pending', 'the regions of the failed write may differ and are copied again'),
    split: stays('the region is dirty already'),
    suspended: stays('the region is dirty already'),
  },
  'secondary-failed': {
    simplex: late,
    'duplex-pending': moves('suspended', 'the bitmap is kept'),
    duplex: moves('suspended', 'the regions of the failed write are dirty'),
    split: stays('an error of the secondary in its own use; the pair is not concerned'),
    suspended: stays('the pair is suspended already'),
  },
  'link-lost': {
    simplex: late,
    'duplex-pending': moves('suspended', 'the bitmap is kept'),
    duplex: moves('suspended', 'writes are tracked from here on'),
    split: stays('nothing is sent while split'),
    suspended: stays('the pair is suspended already'),
  },
  differs: {
    simplex: late,
    'duplex-pending': stays('the regions are dirty, the running copy takes them'),
    duplex: moves('duplex-pending', 'a verify with repair marked regions dirty: they are copied again'),
    split: stays('the regions are dirty, the next resync takes them'),
    suspended: stays('the regions are dirty, the next resync takes them'),
  },
  undone: {
    simplex: late,
    'duplex-pending': stays('the copy goes on'),
    duplex: moves('duplex-pending', 'mirroring had stopped for a moment: what was written then is copied again'),
    split: stays('tracking goes on'),
    suspended: stays('tracking goes on'),
  },
  recovered: {
    simplex: late,
    'duplex-pending': stays('the copy goes on from its bitmap'),
    duplex: moves('duplex-pending', 'only if regions are dirty after an unclean end; a clean pair stays duplex'),
    split: stays('tracking goes on from the bitmaps'),
    suspended: stays('tracking goes on from the bitmaps'),
  },
};

/** The states in which a command is allowed, for the text of a refusal. */
export const statesAllowing = (command: PairCommand): readonly PairState[] => {
  const row = COMMAND_MATRIX[command];
  return (Object.keys(row) as PairState[]).filter((state) => row[state].allowed);
};
