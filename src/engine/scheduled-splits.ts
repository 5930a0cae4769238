/**
 * Splits at a moment of their own: of one pair, or of a consistency group.
 *
 * The moment is kept in the row of the pair or group, so it survives a restart, goes when the pair or group goes, and is
 * taken away by the same record that splits: it cannot happen twice. It is the engine's clock that counts.
 * A split that does not happen is never made up for at another moment: its image would not be the one that was asked
 * for. The row keeps why, until it is taken back or given another moment. So it is with one whose moment passed while no
 * engine ran; only within LATE_MS_MAX after it the split is still carried out, and the event says how late it was.
 */
import { TwinvolError } from '../core/faults.ts';
import { refusalError, refusalOf } from '../core/pair-machine.ts';
import type { GroupRow, PairRow, ScheduledSplit } from '../core/rows.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { PairRef, Planned } from './api.ts';
import type { DeviceContext } from './context.ts';
import { requireGroup } from './group-commands.ts';
import type { GroupCommands } from './group-commands.ts';
import type { PairCommands } from './pair-commands.ts';
import { findPair, refText } from './pair-lookup.ts';
import { planView } from './plan.ts';

/** So late a split may be, after a start or because other commands were on the pair, and still be what was asked for. */
export const LATE_MS_MAX: number = 60_000;
/** The clock may be set, and the machine may sleep: it is looked at this often. */
const LOOK_MS_MAX = 30_000;

/** null: takes the scheduled split back. */
type Moment = { readonly atMs: number | null };
type Due = {
  readonly key: string;
  readonly atMs: number;
  readonly carryOut: () => Promise<void>;
  readonly fail: (failure: string) => Promise<void>;
};

const momentText = (atMs: number): string => new Date(atMs).toISOString();
const withSchedule = <Row extends { readonly scheduledSplit?: ScheduledSplit }>(row: Row, scheduledSplit: ScheduledSplit | null): Row => {
  const { scheduledSplit: _before, ...rest } = row;
  return (scheduledSplit === null ? rest : { ...rest, scheduledSplit }) as Row;
};

export class ScheduledSplits {
  readonly #context: DeviceContext;
  readonly #pairs: PairCommands;
  readonly #groups: GroupCommands;
  /** What is being carried out, by key. */
  readonly #running = new Map<string, Promise<void>>();
  /** Key -> when to look at it again: it could not be recorded that a split did not happen. */
  readonly #putOff = new Map<string, number>();
  #timer: NodeJS.Timeout | null = null;
  #isClosing = false;

  constructor(context: DeviceContext, pairs: PairCommands, groups: GroupCommands) {
    this.#context = context;
    this.#pairs = pairs;
    this.#groups = groups;
  }

  /** Schedules the split of a pair, in whatever state it is now. @throws TwinvolError `PAIR_NOT_FOUND`, `USAGE`, `NOT_SCHEDULED` */
  async pair(input: Planned & PairRef & Moment): Promise<PairView | PlanView> {
    const { locks, pairs, views, store } = this.#context;
    const found = findPair(this.#context, input);
    const text = refText(this.#context, input);
    if (found === null) throw noPair(text);
    return locks.run([`pair:${found.id}`], `schedule of ${text}`, async () => {
      const row = pairs.row(found.id);
      if (row === undefined) throw noPair(text);
      const scheduledSplit = this.#checked(text, row, input.atMs);
      if (input.plan === true)
        return schedulePlan(text, [store.tables.volume(row.primary).name, store.tables.volume(row.secondary).name], scheduledSplit);
      const changed = await this.#putPair(row, scheduledSplit);
      this.look();
      return views.pair(changed);
    });
  }

  /** The same for a group; its members are those that it has when the moment comes. */
  async group(input: Planned & { readonly name: string } & Moment): Promise<readonly PairView[] | PlanView> {
    const { store, views, pairs } = this.#context;
    const { name } = input;
    const text = `group ${name}`;
    const before = requireGroup(store.tables.group(name), name);
    const scheduledSplit = this.#checked(text, before, input.atMs);
    const members = before.pairs.map((id) => pairs.row(id)).filter((row) => row !== undefined);
    if (input.plan === true) {
      const names = members.flatMap((row) => [store.tables.volume(row.primary).name, store.tables.volume(row.secondary).name]);
      return schedulePlan(text, names, scheduledSplit);
    }
    await this.#putGroup(name, (row) => {
      this.#checked(text, row, input.atMs);
      return scheduledSplit;
    });
    this.look();
    return members.map((row) => views.pair(row));
  }

  /** Carries out what is due, and looks again when the next one is. */
  look(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#isClosing) return;
    const now = this.#context.nowMs();
    let next = Number.POSITIVE_INFINITY;
    for (const due of this.#pending()) {
      if (this.#running.has(due.key)) continue;
      const atMs = Math.max(due.atMs, this.#putOff.get(due.key) ?? 0);
      if (atMs > now) next = Math.min(next, atMs);
      else this.#start(due);
    }
    if (next === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(() => this.look(), Math.min(LOOK_MS_MAX, Math.max(1, next - now))).unref();
  }

  /** Starts nothing more, and waits for what is being carried out. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await Promise.allSettled(this.#running.values());
  }

  #pending(): readonly Due[] {
    const { pairs, store } = this.#context;
    const isPending = ({ scheduledSplit }: { readonly scheduledSplit?: ScheduledSplit }): boolean =>
      scheduledSplit !== undefined && scheduledSplit.failure === undefined;
    return [
      ...pairs
        .rows()
        .filter(isPending)
        .map((row) => this.#duePair(row)),
      ...store.tables
        .groups()
        .filter(isPending)
        .map((row) => this.#dueGroup(row)),
    ];
  }

  #duePair({ id, scheduledSplit }: PairRow): Due {
    const { locks, pairs } = this.#context;
    const atMs = scheduledSplit?.atMs ?? 0;
    return {
      key: `pair:${id}`,
      atMs,
      carryOut: () => this.#pairs.splitScheduled(id, atMs),
      fail: (failure) =>
        locks.runUnbounded([`pair:${id}`], 'the engine itself', async () => {
          const row = pairs.row(id);
          if (row?.scheduledSplit?.atMs === atMs) await this.#putPair(row, { atMs, failure });
        }),
    };
  }

  #dueGroup({ name, scheduledSplit }: GroupRow): Due {
    const atMs = scheduledSplit?.atMs ?? 0;
    return {
      key: `group:${name}`,
      atMs,
      carryOut: () => this.#groups.splitScheduled(name, atMs),
      fail: async (failure) => {
        if (this.#context.store.tables.group(name)?.scheduledSplit?.atMs !== atMs) return;
        await this.#putGroup(name, (row) => (row.scheduledSplit?.atMs === atMs ? { atMs, failure } : (row.scheduledSplit ?? null)));
      },
    };
  }

  #start(due: Due): void {
    const running = this.#carryOut(due).finally(() => {
      this.#running.delete(due.key);
      this.look();
    });
    this.#running.set(due.key, running);
  }

  /** Never throws: what fails is recorded, logged and reported. */
  async #carryOut({ key, atMs, carryOut, fail }: Due): Promise<void> {
    this.#putOff.delete(key);
    const { nowMs, events, log } = this.#context;
    const [object, id] = [key.startsWith('pair:') ? 'pair' : 'group', key.slice(key.indexOf(':') + 1)] as const;
    const lateMs = nowMs() - atMs;
    try {
      if (lateMs > LATE_MS_MAX) throw missed(atMs, lateMs);
      await carryOut();
      log.info({ [object]: id, atMs, lateMs: nowMs() - atMs }, 'split at the moment that was scheduled');
      events.append('notice', object, id, { text: 'split at the moment that was scheduled', atMs, lateMs: nowMs() - atMs });
    } catch (error) {
      const { code, message } = error instanceof TwinvolError ? error : { code: 'INTERNAL', message: String(error) };
      // At the end of the device nothing was decided about the split: the next start looks at it.
      if (this.#isClosing && code === 'ENGINE_STOPPING') return;
      log.warn({ err: error, [object]: id, atMs }, 'a scheduled split did not happen');
      events.append('warning', object, id, { text: `the split scheduled for ${momentText(atMs)} did not happen: ${message}`, code, atMs });
      await fail(`${code}: ${message}`).catch((failing: unknown) => {
        log.error({ err: failing, [object]: id }, 'that a scheduled split did not happen could not be recorded');
        this.#putOff.set(key, nowMs() + LOOK_MS_MAX);
      });
    }
  }

  /** @throws TwinvolError `USAGE`, `NOT_SCHEDULED` */
  #checked(text: string, row: { readonly scheduledSplit?: ScheduledSplit }, atMs: number | null): ScheduledSplit | null {
    if (atMs === null) {
      if (row.scheduledSplit === undefined)
        throw new TwinvolError('NOT_SCHEDULED', `no split of ${text} is scheduled; nothing was changed`);
      return null;
    }
    const now = this.#context.nowMs();
    if (Number.isSafeInteger(atMs) && atMs > now) return { atMs };
    throw new TwinvolError('USAGE', `a split cannot be scheduled for a moment that has passed: it is ${momentText(now)}`, {
      details: { atMs, nowMs: now },
    });
  }

  async #putPair(row: PairRow, scheduledSplit: ScheduledSplit | null): Promise<PairRow> {
    const { store, pairs, events } = this.#context;
    const changed = withSchedule(row, scheduledSplit);
    await store.commit([{ op: 'pair-put', row: changed }]);
    pairs.settle(row.id);
    events.append('change', 'pair', row.id, {
      primary: row.primary,
      secondary: row.secondary,
      old: row.state,
      new: row.state,
      scheduledSplit,
    });
    return changed;
  }

  async #putGroup(name: string, change: (row: GroupRow) => ScheduledSplit | null): Promise<void> {
    const { store, events } = this.#context;
    await store.commit((tables) => {
      const row = requireGroup(tables.group(name), name);
      return [{ op: 'group-put', row: withSchedule(row, change(row)) }];
    });
    const { pairs, scheduledSplit = null } = requireGroup(store.tables.group(name), name);
    events.append('change', 'group', name, { pairs, scheduledSplit });
  }
}

const missed = (atMs: number, lateMs: number): TwinvolError =>
  new TwinvolError(
    'SPLIT_MISSED',
    `its moment, ${momentText(atMs)}, passed ${Math.round(lateMs / 1000)} s before the engine could see to it`,
    { details: { atMs, lateMs } },
  );

const noPair = (text: string): TwinvolError => {
  const refusal = refusalOf(null, 'split');
  if (refusal === null) throw new Error('a split without a pair is refused');
  return refusalError(refusal, text);
};

const schedulePlan = (text: string, volumes: readonly string[], scheduledSplit: ScheduledSplit | null): PlanView =>
  planView('pair split', {
    steps: [
      scheduledSplit === null
        ? `the scheduled split of ${text} is taken back`
        : `${text} is split at ${momentText(scheduledSplit.atMs)}, if it is duplex then`,
    ],
    volumes,
  });
