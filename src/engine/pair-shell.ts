/**
 * The shell of the pair machine: carries out what `core/pair-machine.ts` has decided, effect by effect, in the order
 * given there.
 *
 * A command's effects before the journal are taken back when one of them fails: holds are lifted, a new pair is
 * detached, and the data plane is put back to what the row says (the happening `undone`). After the journal there is no
 * way back: if an effect fails there, the pair is suspended with the reason, and its bitmap makes a resync cheap.
 * A happening is a fact: its row goes on even when the journal cannot be written (see `pair-book.ts`).
 *
 * Whoever calls this holds the pair's lock.
 */
import { systemCode, TwinvolError } from '../core/faults.ts';
import { decide } from '../core/pair-machine.ts';
import type { Moved, PairEffect, PairEvent, PairSide } from '../core/pair-machine.ts';
import type { PairCommand } from '../core/pair-matrix.ts';
import type { PairRow, TableOp } from '../core/rows.ts';
import { pairDeleteOps } from '../core/table-changes.ts';
import type { Tables } from '../core/tables.ts';
import type { Consent } from './api.ts';
import type { DataPlane } from '../data/plane-api.ts';
import type { DeviceContext } from './context.ts';
import type { Permit } from './inquiry-gate.ts';
import type { Release } from './object-locks.ts';
import { destructionOf } from './pair-destruction.ts';

/** How often a row that runs ahead of the journal is tried again. */
const SETTLE_RETRY_MS = 2000;

export type PairTask = {
  readonly command: PairCommand;
  /** As the operator reads it: `pair resync db -> copy`. */
  readonly text: string;
  /** The pair before; null for simplex. */
  readonly now: PairRow | null;
  readonly decision: Moved;
  readonly consent?: Consent;
  /** The caller holds the volumes and has asked about all of them together (a group): neither is done here. */
  readonly isCleared?: boolean;
  /** More operations for the same journal record. */
  readonly ops?: (tables: Tables) => readonly TableOp[];
  /** For a new pair whose secondary is fitted: done after the inquiry, before the pair's files are made. */
  readonly prepare?: () => Promise<Prepared>;
};

/** A step before the record that is part of a command. */
export type Prepared = {
  /** Operations for the record. */
  readonly ops: readonly TableOp[];
  /** Puts everything back as it was; the record was not written. */
  readonly undo: () => Promise<void>;
  /** The record is durable. */
  readonly done: () => void;
  /** Whatever became of it: lets go of what was reserved. */
  readonly release: () => void;
};

/** A command on its way. */
type Run = {
  readonly task: PairTask;
  /** The pair afterwards, or for a release the pair that ends. */
  row: PairRow;
  readonly held: number[];
  /** Gives the pair ids free for the next new pair. */
  releaseIds: Release;
  prepared: Prepared | null;
  /** The leave to overwrite, once it was asked for. */
  permit: Permit | null;
  isAttached: boolean;
  isSwitched: boolean;
  isJournalled: boolean;
};

/** A short cause for a row's reason: a stable code where there is one. */
export const causeOf = (error: unknown): string => {
  if (error instanceof TwinvolError) return error.code;
  return systemCode(error) || 'INTERNAL';
};

export class PairShell {
  readonly #context: DeviceContext;
  #settleTimer: NodeJS.Timeout | null = null;
  #isClosing = false;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /**
   * Carries a command out.
   * @returns the pair afterwards; for a release the pair that ended
   * @throws TwinvolError whatever stopped it; before the journal nothing has changed, after it the pair is suspended
   */
  async command(task: PairTask): Promise<PairRow> {
    const run: Run = {
      task,
      row: rowOf(task),
      held: [],
      releaseIds: () => undefined,
      prepared: null,
      permit: null,
      isAttached: false,
      isSwitched: false,
      isJournalled: false,
    };
    try {
      for (const effect of task.decision.effects) await this.#commandEffect(run, effect);
      await run.permit?.ended(null);
      return run.row;
    } catch (error) {
      await run.permit?.ended(error);
      if (run.isJournalled) throw await this.#failedAfterJournal(run, error);
      await this.#takeBack(run, error);
      throw error;
    } finally {
      run.releaseIds();
      run.prepared?.release();
      for (const volume of run.held) await this.#context.plane.volumeUnhold(volume);
    }
  }

  /** Carries out what happened to a pair without a command. Never throws: what fails is logged and reported. */
  async happening(id: number, event: PairEvent): Promise<void> {
    const { pairs, nowMs, log } = this.#context;
    const now = pairs.row(id) ?? null;
    const decision = decide(now, event, nowMs());
    if (decision.kind === 'refused') throw new Error(`a happening was refused: ${event.event}`);
    try {
      await this.#happeningEffects(id, now, decision);
    } catch (error) {
      log.error({ err: error, pair: id, event: event.event }, 'a change of a pair could not be carried out');
      this.#context.events.append('warning', 'pair', id, { text: `${event.event} could not be carried out`, code: causeOf(error) });
    }
  }

  /** Announces a pair's new state, once it is true. */
  announce(now: PairRow | null, row: PairRow | null): void {
    const id = (row ?? now)?.id;
    if (id === undefined) throw new Error('a change from simplex to simplex');
    const { events, views, pairs, log } = this.#context;
    const about = (row ?? now) as PairRow;
    const data = {
      primary: about.primary,
      secondary: about.secondary,
      old: now?.state ?? 'simplex',
      new: row?.state ?? 'simplex',
      copy: row?.copy ?? null,
      reason: row?.reason ?? null,
      pace: about.pace,
      fence: about.fence,
    };
    events.append(now === null ? 'create' : row === null ? 'destroy' : 'change', 'pair', id, data);
    log.info({ pair: id, ...data }, `${views.pairText(about)}: ${data.old} -> ${data.new}`);
    pairs.announce(id);
  }

  /** No more attempts to journal what could not be journalled. */
  close(): void {
    this.#isClosing = true;
    if (this.#settleTimer !== null) clearTimeout(this.#settleTimer);
    this.#settleTimer = null;
  }

  async #commandEffect(run: Run, effect: PairEffect): Promise<void> {
    const { task } = run;
    switch (effect.do) {
      case 'hold':
        if (task.isCleared === true) return;
        for (const side of effect.sides) {
          await this.#context.plane.volumeHold(run.row[side]);
          run.held.push(run.row[side]);
        }
        return;
      case 'inquire':
        if (task.isCleared !== true) run.permit = await this.#inquire(run, effect.sides);
        return;
      case 'attach':
        run.prepared = (await task.prepare?.()) ?? null;
        // A new pair gets its id here: the journal takes ids in rising order only.
        run.releaseIds = await this.#context.locks.take(['pair-ids'], task.text);
        run.row = { ...run.row, id: this.#context.store.tables.nextPairId };
        await this.#planeEffect(run.row, effect);
        run.isAttached = true;
        return;
      case 'journal':
        await this.#journalCommand(run);
        run.isJournalled = true;
        run.releaseIds();
        run.prepared?.release();
        run.prepared?.done();
        return this.announce(task.now, task.decision.row === null ? null : run.row);
      case 'switch':
        if (!(await this.#planeEffect(run.row, effect))) {
          throw notClean(this.#context.plane, `${task.text} refused`, [run.row.id]);
        }
        run.isSwitched = true;
        return;
      default:
        await this.#planeEffect(run.row, effect);
    }
  }

  async #happeningEffects(id: number, now: PairRow | null, decision: Moved): Promise<void> {
    const row = decision.row ?? now;
    for (const effect of decision.effects) {
      if (effect.do === 'report') {
        this.#report(id, effect);
      } else if (effect.do === 'journal') {
        await this.#journalFact(decision.row);
        this.announce(now, decision.row);
      } else if (row !== null && !(await this.#planeEffect(row, effect))) {
        // A region became dirty just before the gate was closed: the copy takes it, and reports again.
        this.#context.plane.copyStart(id);
        return;
      }
    }
  }

  /** @returns false if a switch that demands that nothing is dirty did not happen */
  async #planeEffect(row: PairRow, effect: PairEffect): Promise<boolean> {
    const { plane } = this.#context;
    switch (effect.do) {
      case 'attach':
        await plane.pairAttach({ ...row, fenceData: row.fence === 'data' }, { fresh: true });
        return true;
      case 'switch': {
        const { mode, dirty, onlyIfClean = false, isFenced = false } = effect;
        const { switched, pauseMs } = await plane.pairsSwitch([{ id: row.id, mode, dirty, onlyIfClean, isFenced }]);
        this.#context.log.debug({ pair: row.id, mode, dirty, switched, pauseMs }, 'the data plane was switched');
        return switched;
      }
      case 'flush':
        await plane.volumeFlush(row[effect.side]);
        return true;
      case 'mark-siblings':
        for (const sibling of this.#context.pairs.ofPrimary(row.primary))
          if (sibling.id !== row.id) await plane.pairMarkFrom(sibling.id, row.id);
        return true;
      case 'end-clients':
        for (const side of effect.sides) await plane.clientsEnd({ volume: row[side] });
        return true;
      case 'copy-start':
        plane.copyStart(row.id, { checksum: effect.checksum === true });
        return true;
      case 'copy-stop':
        await plane.copyStop(row.id);
        return true;
      case 'configure':
        plane.pairConfigure(row.id, { pace: row.pace, fenceData: row.fence === 'data' });
        return true;
      case 'detach':
        await plane.pairDetach(row.id);
        return true;
      case 'report':
        this.#report(row.id, effect);
        return true;
      default:
        throw new Error(`${effect.do} is no effect of the data plane`);
    }
  }

  #inquire({ task, row }: Run, sides: readonly PairSide[]): Promise<Permit> {
    const { store, gate, plane } = this.#context;
    const targets = sides.map((side) => {
      const volume = store.tables.volume(row[side]);
      return { number: volume.number, name: volume.name, destroys: destructionOf(volume, side, task.now, task.command, plane) };
    });
    const generation = task.now === null ? 'simplex' : generationOf(task.now);
    return gate.check({ command: task.text, targets, generation, ...(task.consent === undefined ? {} : { consent: task.consent }) });
  }

  async #journalCommand({ task, row, prepared }: Run): Promise<void> {
    const { store, pairs } = this.#context;
    await store.commit((tables) => [
      ...(prepared?.ops ?? []),
      ...(task.ops?.(tables) ?? []),
      ...(task.decision.row === null ? pairDeleteOps(tables, row) : [{ op: 'pair-put', row } as const]),
    ]);
    pairs.settle(row.id);
  }

  async #journalFact(row: PairRow | null): Promise<void> {
    if (row === null) throw new Error('no happening ends a pair');
    const { store, pairs, events, log } = this.#context;
    try {
      await store.commit([{ op: 'pair-put', row }]);
      pairs.settle(row.id);
    } catch (error) {
      pairs.runAhead(row);
      log.error({ err: error, pair: row.id }, 'the state of a pair could not be recorded; it holds, and is tried again');
      events.append('warning', 'pair', row.id, {
        text: 'the state of the pair could not be recorded yet',
        code: causeOf(error),
        state: row.state,
      });
      this.#settleLater();
    }
  }

  #settleLater(): void {
    if (this.#settleTimer !== null || this.#isClosing) return;
    this.#settleTimer = setTimeout(() => void this.#settle(), SETTLE_RETRY_MS).unref();
  }

  async #settle(): Promise<void> {
    this.#settleTimer = null;
    const { store, pairs, log } = this.#context;
    for (const row of pairs.unsettled()) {
      try {
        // The row of the moment at which it is written, or nothing if it was settled or released meanwhile.
        await store.commit(() =>
          pairs
            .unsettled()
            .filter((ahead) => ahead.id === row.id)
            .map((ahead) => ({ op: 'pair-put', row: ahead }) as const),
        );
        if (pairs.row(row.id) === row) pairs.settle(row.id);
      } catch (error) {
        log.debug({ err: error, pair: row.id }, 'still not recorded');
      }
    }
    if (pairs.unsettled().length > 0) this.#settleLater();
  }

  async #takeBack({ task, row, prepared, isAttached, isSwitched }: Run, cause: unknown): Promise<void> {
    try {
      if (isAttached) await this.#context.plane.pairDetach(row.id);
      if (task.now === null) await prepared?.undo();
      else if (isSwitched) await this.happening(row.id, { event: 'undone', command: task.command, code: causeOf(cause) });
    } catch (error) {
      this.#context.log.error({ err: error, pair: row.id }, `${task.text} failed, and taking it back failed too`);
    }
  }

  async #failedAfterJournal({ task, row }: Run, error: unknown): Promise<TwinvolError> {
    const code = causeOf(error);
    this.#context.log.error({ err: error, pair: row.id }, `${task.text} was recorded and could not be carried out`);
    if (task.decision.row !== null) await this.happening(row.id, { event: 'copy-failed', leg: 'secondary', code });
    const outcome = task.decision.row === null ? 'the pair is released' : 'see twinvol pair status for the state of the pair';
    return new TwinvolError(
      'INTERNAL',
      `${task.text} was recorded, but could not be carried out: ${error instanceof Error ? error.message : code}; ${outcome}`,
      {
        cause: error,
      },
    );
  }

  #report(id: number, effect: Extract<PairEffect, { do: 'report' }>): void {
    const { events, log } = this.#context;
    if (effect.level === 'debug') {
      log.debug({ pair: id }, effect.text);
      return;
    }
    log[effect.level === 'warning' ? 'warn' : 'info']({ pair: id }, effect.text);
    events.append(effect.level, 'pair', id, { text: effect.text });
  }
}

/** Changes with every state of the pair: a consent to one is none to the next. */
export const generationOf = ({ id, state, stateSinceMs }: PairRow): string => `${id}:${state}:${stateSinceMs}`;

const rowOf = (task: PairTask): PairRow => {
  const row = task.decision.row ?? task.now;
  if (row === null) throw new Error('a command on no pair');
  return row;
};

/** The refusal of a split whose pairs have dirty regions at the closed gate. `text` says what was refused. */
export const notClean = (plane: Pick<DataPlane, 'verifyProgress'>, text: string, pairs: readonly number[]): TwinvolError => {
  if (pairs.some((id) => (plane.verifyProgress(id)?.differingBytes ?? 0) > 0))
    return new TwinvolError('PAIR_STATE', `${text}: a verify has found regions that differ, which are copied again when it has ended`, {
      remedy: 'let the verify end or end it, wait for duplex, then repeat',
    });
  return new TwinvolError('PAIR_STATE', `${text}: an error on a leg is stopping the update copy at this moment`, {
    remedy: 'look at twinvol pair status; resync, wait for duplex, then repeat',
  });
};
