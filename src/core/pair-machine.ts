/**
 * The pair state machine: (pair, event) -> (pair, effects), or a refusal. Pure; the engine's shell carries the
 * effects out in the order given.
 *
 *                       create                     copy-done (clean)
 *        simplex ------------------> duplex-pending ----------------> duplex
 *           ^                          ^    ^    |  ^                   |  |
 *           |                   resync |    |    |  | primary-failed,   |  |
 *           | release           restore|    |    |  | differs,          |  |
 *           | (from any state)         |    |    |  | recovered dirty   |  |
 *           |                          |    |    |  +-------------------+  |
 *           |                          |    |    |                         |
 *           |                        split  |    | copy-failed,            |
 *           |                          ^    |    | secondary-failed,       | secondary-failed,
 *           |                          |    |    | link-lost               | link-lost
 *           |                          |    |    v                         |
 *           |                          |    +-suspended <------------------+
 *           |                          |      resync                       |
 *           |                          +-----------------------------------+
 *           |                                        split
 *
 * Invariants:
 * - What is allowed is read from the matrix (`pair-matrix.ts`) and from nowhere else.
 * - Every transition carries its reason as data: `row.reason` when nobody asked for it, none when a command did.
 * - Effects before `journal` can be taken back, effects after it only go forward. `journal` comes before anything
 *   that overwrites a leg, and after anything that only lets bits become dirty.
 * - A pair becomes `duplex` only by `copy-done` (through a switch that demands that nothing is dirty), or stays so at
 *   a start that found nothing dirty.
 */
import { TwinvolError } from './faults.ts';
import type { FaultCode } from './faults.ts';
import { COMMAND_MATRIX, HAPPENING_MATRIX, statesAllowing } from './pair-matrix.ts';
import type { HappeningCell, PairCommand, PairHappening, RefusedCell } from './pair-matrix.ts';
import type { CopyKind, FenceLevel, PairRow, PairState, PairedState } from './rows.ts';

export type PairSide = 'primary' | 'secondary';
type DirtyChange = 'keep' | 'all' | 'clear' | 'merge';
type Mode = 'idle' | 'copying' | 'restoring' | 'mirroring' | 'tracking';

/** One thing that the shell does. */
export type PairEffect =
  /** Writes and new connections to those volumes wait from here to the end of the command. */
  | { readonly do: 'hold'; readonly sides: readonly PairSide[] }
  /** Ask whether somebody uses those volumes, because their content will be overwritten. */
  | { readonly do: 'inquire'; readonly sides: readonly PairSide[] }
  /** What was written to that side is durable. */
  | { readonly do: 'flush'; readonly side: PairSide }
  /** New bitmap files; the pair is known to the data plane, mode idle. */
  | { readonly do: 'attach' }
  | { readonly do: 'switch'; readonly mode: Mode; readonly dirty: DirtyChange; readonly onlyIfClean?: boolean; readonly isFenced?: boolean }
  /** The new row (or its absence) becomes durable. */
  | { readonly do: 'journal' }
  /** What this restore changes on the primary is dirty for the primary's other pairs. */
  | { readonly do: 'mark-siblings' }
  | { readonly do: 'end-clients'; readonly sides: readonly PairSide[] }
  /** `checksum`: what is equal on both legs already is not written. */
  | { readonly do: 'copy-start'; readonly checksum?: boolean }
  | { readonly do: 'copy-stop' }
  | { readonly do: 'configure' }
  /** Copying and tracking end, the bitmap files are deleted. */
  | { readonly do: 'detach' }
  /** Tell the operator: an event of that kind. `debug` goes to the log only. */
  | { readonly do: 'report'; readonly level: 'warning' | 'notice' | 'debug'; readonly text: string };

export type PairEvent =
  | { readonly event: 'create'; readonly pair: Omit<PairRow, 'state' | 'copy' | 'reason' | 'createdAtMs' | 'stateSinceMs'> }
  | { readonly event: 'split' | 'release' | 'verify' }
  | { readonly event: 'resync' | 'restore'; readonly pace?: number; readonly checksum?: boolean }
  | { readonly event: 'set'; readonly pace?: number; readonly fence?: FenceLevel }
  | { readonly event: 'copy-done' }
  /** `copy`: it is the copy's own fault, and none of a leg's. */
  | { readonly event: 'copy-failed'; readonly leg: PairSide | 'copy'; readonly code: string }
  | { readonly event: 'primary-failed' | 'secondary-failed'; readonly code: string }
  | { readonly event: 'link-lost'; readonly code: string }
  | { readonly event: 'differs'; readonly bytes: number }
  | { readonly event: 'undone'; readonly command: PairCommand; readonly code: string }
  | { readonly event: 'recovered'; readonly dirtyBytes: number };

export type Moved = {
  readonly kind: 'moved';
  /** The pair afterwards; null: simplex. */
  readonly row: PairRow | null;
  readonly from: PairState;
  readonly to: PairState;
  readonly reason: string | null;
  readonly effects: readonly PairEffect[];
};
export type Refused = {
  readonly kind: 'refused';
  readonly command: PairCommand;
  readonly state: PairState;
  readonly allowedIn: readonly PairState[];
  readonly code: FaultCode;
  readonly why: string;
  readonly remedy: string;
};
export type Decision = Moved | Refused;

const isCommand = (name: string): name is PairCommand => Object.hasOwn(COMMAND_MATRIX, name);

/** True for a suspended pair whose restore was stopped halfway: its primary holds neither image whole. */
export const isRestoreInterrupted = (row: PairRow): boolean => row.state === 'suspended' && row.copy === 'restore';

/**
 * Decides. Changes nothing.
 * @param now the pair's row, or null for simplex
 * @param atMs milliseconds since 1970, for the new row
 */
export const decide = (now: PairRow | null, event: PairEvent, atMs: number): Decision => {
  const name = event.event;
  if (isCommand(name)) {
    const refusal = refusalOf(now, name);
    if (refusal !== null) return refusal;
  }
  switch (event.event) {
    case 'create':
      return created(event, atMs);
    case 'split':
      return splitOff(present(now), atMs);
    case 'resync':
    case 'restore':
      return copyAgain(present(now), event, atMs);
    case 'release':
      return released(present(now));
    case 'set':
      return configured(present(now), event);
    case 'verify':
      return unchanged(present(now), []);
    default:
      return happened(now, event, atMs);
  }
};

/** The refusal as the operator reads it; it names the pair, its state, and what is allowed. */
export const refusalError = (refusal: Refused, pairText: string): TwinvolError => {
  const allowed = refusal.allowedIn.join(', ');
  const text = `${refusal.command} refused: ${pairText} is ${refusal.state}, and ${refusal.why} (${refusal.command} is allowed in: ${allowed})`;
  return new TwinvolError(refusal.code, text, {
    remedy: refusal.remedy,
    details: { command: refusal.command, state: refusal.state, allowedIn: refusal.allowedIn },
  });
};

/** Whether the matrix refuses the command; null: allowed. */
export const refusalOf = (now: PairRow | null, command: PairCommand): Refused | null => {
  const state = now?.state ?? 'simplex';
  const cell = COMMAND_MATRIX[command][state];
  const refusedCell = (refused: RefusedCell): Refused => ({
    kind: 'refused',
    command,
    state,
    allowedIn: statesAllowing(command),
    code: refused.code,
    why: refused.why,
    remedy: refused.remedy,
  });
  if (!cell.allowed) return refusedCell(cell);
  if (cell.only === undefined) return null;
  const interrupted = now !== null && isRestoreInterrupted(now);
  if (interrupted === (cell.only === 'restore-interrupted')) return null;
  if (cell.unless === undefined) throw new Error(`the cell ${command} x ${state} is narrowed without saying what else`);
  return refusedCell(cell.unless);
};

const present = (row: PairRow | null): PairRow => {
  if (row === null) throw new Error('the matrix allowed a command on a pair that is not there');
  return row;
};

type RowChange = {
  readonly state: PairedState;
  readonly copy?: CopyKind;
  readonly reason?: string;
  readonly pace?: number;
  readonly isFenced?: true;
};

/** The row in its new state; `copy`, `reason`, the fence that struck and what was written since the split are never left over. */
const rowIn = (row: PairRow, change: RowChange, atMs: number): PairRow => {
  const { copy: _copy, reason: _reason, secondaryWritten: _written, isFenced: _fenced, ...rest } = row;
  return {
    ...rest,
    state: change.state,
    pace: change.pace ?? row.pace,
    ...(change.copy === undefined ? {} : { copy: change.copy }),
    ...(change.reason === undefined ? {} : { reason: change.reason }),
    ...(change.isFenced === undefined ? {} : { isFenced: change.isFenced }),
    stateSinceMs: atMs,
  };
};

const moved = (now: PairRow | null, row: PairRow | null, effects: readonly PairEffect[]): Moved => ({
  kind: 'moved',
  row,
  from: now?.state ?? 'simplex',
  to: row?.state ?? 'simplex',
  reason: row?.reason ?? null,
  effects,
});

const unchanged = (row: PairRow | null, effects: readonly PairEffect[]): Moved => moved(row, row, effects);

/** All bits are dirty before the row is durable: a crash in between leaves bitmap files that belong to no pair. */
const created = (event: Extract<PairEvent, { event: 'create' }>, atMs: number): Moved => {
  const row: PairRow = { ...event.pair, state: 'duplex-pending', copy: 'initial', createdAtMs: atMs, stateSinceMs: atMs };
  return moved(null, row, [
    { do: 'hold', sides: ['secondary'] },
    { do: 'inquire', sides: ['secondary'] },
    { do: 'attach' },
    { do: 'switch', mode: 'copying', dirty: 'all' },
    { do: 'journal' },
    { do: 'end-clients', sides: ['secondary'] },
    { do: 'copy-start' },
  ]);
};

/**
 * The switch is the moment of the image; it demands that nothing is dirty, because a leg may have failed a moment ago and
 * the news be on its way. The image is durable before anything says that there is one. A crash before the journal: the
 * pair is still `duplex`, the writes since the switch are dirty bits, and recovery resyncs them; the command was never
 * acknowledged.
 */
const splitOff = (row: PairRow, atMs: number): Moved =>
  moved(row, rowIn(row, { state: 'split' }, atMs), [
    { do: 'switch', mode: 'tracking', dirty: 'clear', onlyIfClean: true },
    { do: 'flush', side: 'secondary' },
    { do: 'journal' },
  ]);

/**
 * A restore asks for both sides: the primary is overwritten now, the secondary by what hosts write from now on.
 * Journal first: from the switch on a write to a clean region reaches the side that is overwritten, and a pair that is
 * still called `split` must keep its image. A crash in between: `duplex-pending`, and recovery does the switch.
 */
const copyAgain = (row: PairRow, event: Extract<PairEvent, { event: 'resync' | 'restore' }>, atMs: number): Moved => {
  const restoring = event.event === 'restore';
  const sides: readonly PairSide[] = restoring ? ['primary', 'secondary'] : ['secondary'];
  const change: RowChange = { state: 'duplex-pending', copy: event.event, ...(event.pace === undefined ? {} : { pace: event.pace }) };
  return moved(row, rowIn(row, change, atMs), [
    { do: 'hold', sides },
    { do: 'inquire', sides },
    { do: 'journal' },
    { do: 'configure' },
    { do: 'end-clients', sides },
    { do: 'switch', mode: restoring ? 'restoring' : 'copying', dirty: 'merge' },
    ...(restoring ? ([{ do: 'mark-siblings' }] as const) : []),
    { do: 'copy-start', ...(event.checksum === undefined ? {} : { checksum: event.checksum }) },
  ]);
};

/**
 * The pair stops mirroring before it is gone from the tables; a crash in between finds dirty bits and resyncs.
 * In a restore hosts read and write the secondary's image by the primary's name, and the primary holds a part of it: they are
 * asked and ended before its own content shows, so that none finds another one under an open connection.
 */
const released = (row: PairRow): Moved =>
  moved(row, null, [
    ...(row.copy === 'restore'
      ? ([
          { do: 'hold', sides: ['primary', 'secondary'] },
          { do: 'inquire', sides: ['primary'] },
          { do: 'end-clients', sides: ['primary'] },
        ] as const)
      : []),
    { do: 'copy-stop' },
    { do: 'switch', mode: 'tracking', dirty: 'keep' },
    { do: 'flush', side: 'secondary' },
    { do: 'journal' },
    { do: 'detach' },
  ]);

const configured = (row: PairRow, event: Extract<PairEvent, { event: 'set' }>): Moved => {
  const { isFenced, ...rest } = row;
  const fence = event.fence ?? row.fence;
  const isStill = isFenced === true && fence === 'data';
  const changed: PairRow = { ...rest, pace: event.pace ?? row.pace, fence, ...(isStill ? { isFenced } : {}) };
  return moved(row, changed, [{ do: 'journal' }, { do: 'configure' }]);
};

type Happening = Extract<PairEvent, { event: PairHappening }>;

const happened = (now: PairRow | null, event: Happening, atMs: number): Moved => {
  const cell = HAPPENING_MATRIX[event.event][now?.state ?? 'simplex'];
  if (now === null || cell.kind === 'late') return unchanged(now, [{ do: 'report', level: 'debug', text: `${event.event} came late` }]);
  switch (event.event) {
    case 'copy-done':
      return moved(now, rowIn(now, { state: 'duplex' }, atMs), [
        { do: 'switch', mode: 'mirroring', dirty: 'keep', onlyIfClean: true },
        { do: 'journal' },
      ]);
    case 'recovered':
      return recovered(now, event.dirtyBytes, atMs);
    case 'undone':
      return undone(now, event, atMs);
    case 'copy-failed':
      return suspended(now, cell, event, `${event.leg}-error: ${event.code}`, atMs);
    case 'secondary-failed':
      return suspended(now, cell, event, `secondary-error: ${event.code}`, atMs);
    case 'link-lost':
      return suspended(now, cell, event, `link-lost: ${event.code}`, atMs);
    case 'primary-failed':
      return recopied(now, cell, `primary-error: ${event.code}`, atMs);
    case 'differs':
      return recopied(now, cell, `verify-repair: ${event.bytes} bytes`, atMs);
  }
};

/**
 * The bits are a superset before and after, so a crash in between is a resync. Where a host's write failed, the plane
 * tracks already (and fences, where the pair says so; a switch would lift that). Fence `data` wants no write on the
 * primary alone, so it strikes whatever stopped the update copy: a copy that failed as well as a host's write.
 * A restore that stops keeps its kind and its mode: hosts still read the whole image from the secondary, the primary
 * holds a part of it, and only a restore may follow.
 */
const suspended = (now: PairRow, cell: HappeningCell, event: Happening, reason: string, atMs: number): Moved => {
  if (cell.kind !== 'moves') return unchanged(now, [{ do: 'report', level: 'warning', text: `${reason} (${cell.note})` }]);
  const restoring = now.copy === 'restore';
  const isTracking = event.event === 'secondary-failed';
  const isFenced = now.fence === 'data' && !restoring;
  const change: RowChange = restoring
    ? { state: 'suspended', copy: 'restore', reason: `restore-interrupted: ${reason}` }
    : { state: 'suspended', reason, ...(isFenced ? { isFenced: true } : {}) };
  return moved(now, rowIn(now, change, atMs), [
    { do: 'copy-stop' },
    ...(restoring || isTracking ? [] : ([{ do: 'switch', mode: 'tracking', dirty: 'keep', isFenced }] as const)),
    { do: 'journal' },
    { do: 'report', level: 'warning', text: `${restoring ? 'the restore' : 'the update copy'} stopped: ${reason}` },
  ]);
};

/** The bits are set already; from `mirroring` to `copying` nothing is lost, whenever the row becomes durable. */
const recopied = (now: PairRow, cell: HappeningCell, reason: string, atMs: number): Moved => {
  if (cell.kind !== 'moves') {
    return unchanged(now, [
      ...(now.state === 'duplex-pending' ? ([{ do: 'copy-start' }] as const) : []),
      { do: 'report', level: 'warning', text: `${reason} (${cell.note})` },
    ]);
  }
  return moved(now, rowIn(now, { state: 'duplex-pending', copy: 'resync', reason }, atMs), [
    { do: 'switch', mode: 'copying', dirty: 'keep' },
    { do: 'journal' },
    { do: 'copy-start' },
    { do: 'report', level: 'warning', text: `regions are copied again: ${reason}` },
  ]);
};

/** The data plane's mode of a state. `merge` wherever a copy is unfinished: its switch may not have happened yet. */
const switchTo = (row: PairRow): PairEffect => {
  if (row.copy === 'restore') return { do: 'switch', mode: 'restoring', dirty: 'merge' };
  switch (row.state) {
    case 'duplex-pending':
      return { do: 'switch', mode: 'copying', dirty: 'merge' };
    case 'duplex':
      return { do: 'switch', mode: 'mirroring', dirty: 'keep' };
    case 'split':
    case 'suspended':
      return { do: 'switch', mode: 'tracking', dirty: 'keep' };
  }
};

/** The plane does again what the row says; a duplex pair has to copy what was written in between. */
const undone = (now: PairRow, event: Extract<PairEvent, { event: 'undone' }>, atMs: number): Moved => {
  const report: PairEffect = { do: 'report', level: 'warning', text: `${event.command} was taken back: ${event.code}` };
  if (now.state === 'duplex') {
    const row = rowIn(now, { state: 'duplex-pending', copy: 'resync', reason: `${event.command}-undone: ${event.code}` }, atMs);
    return moved(now, row, [switchTo(row), { do: 'journal' }, { do: 'copy-start' }, report]);
  }
  return unchanged(now, [switchTo(now), ...(now.state === 'duplex-pending' ? ([{ do: 'copy-start' }] as const) : []), report]);
};

const recovered = (now: PairRow, dirtyBytes: number, atMs: number): Moved => {
  if (now.state === 'duplex' && dirtyBytes > 0) {
    const row = rowIn(now, { state: 'duplex-pending', copy: 'resync', reason: 'crash-recovery' }, atMs);
    const text = `the legs may differ after an unclean end: ${dirtyBytes} bytes are copied again`;
    return moved(now, row, [switchTo(row), { do: 'journal' }, { do: 'copy-start' }, { do: 'report', level: 'notice', text }]);
  }
  if (now.state !== 'duplex-pending') return unchanged(now, [switchTo(now)]);
  const restoring = now.copy === 'restore';
  return unchanged(now, [
    switchTo(now),
    ...(restoring ? ([{ do: 'mark-siblings' }] as const) : []),
    { do: 'copy-start' },
    { do: 'report', level: 'notice', text: `the ${now.copy ?? 'initial'} copy goes on: ${dirtyBytes} bytes are left` },
  ]);
};
