/**
 * Consistency groups: pairs that are split at one point in time.
 *
 * A group's split is one switch of the data plane for all its pairs, at one closed gate: no write that was acknowledged
 * before is missing from any secondary, none that was issued after is on any. All or nothing: if one pair cannot be
 * split, or the record cannot be written, none is. The images are durable before the record says that they are there.
 */
import { TwinvolError } from '../core/faults.ts';
import { requireName } from '../core/names.ts';
import { decide, refusalError } from '../core/pair-machine.ts';
import type { Moved } from '../core/pair-machine.ts';
import type { GroupRow, PairRow, TableOp } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { PairRef, Planned } from './api.ts';
import type { DeviceContext } from './context.ts';
import type { PairCommands } from './pair-commands.ts';
import { findPair, refText } from './pair-lookup.ts';
import { causeOf, notClean } from './pair-shell.ts';
import type { PairShell } from './pair-shell.ts';
import { planView } from './plan.ts';

type Member = { readonly now: PairRow; readonly row: PairRow; readonly decision: Moved };

export class GroupCommands {
  readonly #context: DeviceContext;
  readonly #shell: PairShell;
  readonly #pairs: PairCommands;

  constructor(context: DeviceContext, shell: PairShell, pairs: PairCommands) {
    this.#context = context;
    this.#shell = shell;
    this.#pairs = pairs;
  }

  list(): readonly GroupRow[] {
    return this.#context.store.tables.groups();
  }

  async create(input: Planned & { readonly name: string }): Promise<GroupRow | PlanView> {
    const { name } = input;
    requireName('group', name);
    const row: GroupRow = { name, pairs: [] };
    const change = (tables: Tables): readonly TableOp[] => {
      if (tables.group(name) !== undefined) throw new TwinvolError('GROUP_EXISTS', `group ${name} exists already`);
      return [{ op: 'group-put', row }];
    };
    if (input.plan === true) return this.#planned('group create', change, [`an empty group ${name} is made`]);
    await this.#context.store.commit(change);
    this.#context.events.append('create', 'group', name, { pairs: [] });
    return row;
  }

  async add(input: Planned & { readonly name: string } & PairRef): Promise<GroupRow | PlanView> {
    const pair = this.#requirePair(input);
    const change = (tables: Tables): readonly TableOp[] => {
      const group = requireGroup(tables.group(input.name), input.name);
      const other = tables.groupOfPair(pair.id);
      if (other !== undefined)
        throw new TwinvolError('PAIR_GROUPED', `${this.#context.views.pairText(pair)} is in the group ${other.name} already`, {
          details: { group: other.name },
        });
      return [{ op: 'group-put', row: { ...group, pairs: [...group.pairs, pair.id] } }];
    };
    if (input.plan === true)
      return this.#planned(
        'group add',
        change,
        [`${this.#context.views.pairText(pair)} is split with the group ${input.name} from then on`],
        pair,
      );
    await this.#context.store.commit(change);
    return this.#changed(input.name);
  }

  async remove(input: Planned & { readonly name: string } & Partial<PairRef>): Promise<GroupRow | PlanView | null> {
    const { name, primary, secondary } = input;
    const { pairs: members } = requireGroup(this.#context.store.tables.group(name), name);
    if (primary === undefined) {
      if (input.plan === true)
        return planView('group remove', { steps: [`the group ${name} is removed; its ${members.length} pairs stay as they are`] });
      await this.#context.store.commit((tables) => [{ op: 'group-delete', name: requireGroup(tables.group(name), name).name }]);
      this.#context.events.append('destroy', 'group', name, {});
      return null;
    }
    const pair = this.#requirePair({ primary, ...(secondary === undefined ? {} : { secondary }) });
    const change = (tables: Tables): readonly TableOp[] => {
      const group = requireGroup(tables.group(name), name);
      if (!group.pairs.includes(pair.id))
        throw new TwinvolError('PAIR_NOT_FOUND', `${this.#context.views.pairText(pair)} is not in the group ${name}`);
      return [{ op: 'group-put', row: { ...group, pairs: group.pairs.filter((id) => id !== pair.id) } }];
    };
    if (input.plan === true)
      return this.#planned(
        'group remove',
        change,
        [`${this.#context.views.pairText(pair)} leaves the group ${name}, and stays as it is`],
        pair,
      );
    await this.#context.store.commit(change);
    return this.#changed(name);
  }

  /** The split that was scheduled for that moment. @throws TwinvolError `CHANGED` when it was taken back meanwhile */
  async splitScheduled(name: string, atMs: number): Promise<void> {
    await this.split({ name }, atMs);
  }

  /** @param scheduledAtMs the split is the scheduled one, and takes its moment away */
  async split(input: Planned & { readonly name: string }, scheduledAtMs: number | null = null): Promise<readonly PairView[] | PlanView> {
    const { store, locks, pairs } = this.#context;
    const members = requireGroup(store.tables.group(input.name), input.name).pairs;
    const rows = members.map((id) => pairs.row(id)).filter((row) => row !== undefined);
    if (rows.length === 0)
      throw new TwinvolError('PAIR_NOT_FOUND', `group split refused: the group ${input.name} has no pairs`, {
        remedy: 'add pairs with twinvol group add',
      });
    const keys = rows.flatMap((row) => [`volume:${row.primary}`, `volume:${row.secondary}`, `pair:${row.id}`] as const);
    return locks.run(keys, `group split ${input.name}`, async () => {
      const present = requireGroup(store.tables.group(input.name), input.name).pairs;
      if (present.length !== members.length || present.some((id, index) => id !== members[index])) {
        throw new TwinvolError('CHANGED', `group split gave up: the members of ${input.name} changed meanwhile; nothing was split`);
      }
      const decided = this.#decideAll(input.name, present);
      if (input.plan === true)
        return this.#pairs.splitPlan(
          'group split',
          decided.map((member) => member.now),
        );
      await this.#splitAll(input.name, decided, scheduledAtMs);
      return decided.map((member) => this.#context.views.pair(member.row));
    });
  }

  /** Every member's split, or a refusal that names all that cannot. */
  #decideAll(name: string, ids: readonly number[]): readonly Member[] {
    const { pairs, nowMs, views } = this.#context;
    const atMs = nowMs();
    const members: Member[] = [];
    const refusals: { readonly pair: string; readonly error: TwinvolError }[] = [];
    for (const id of ids) {
      const now = pairs.row(id);
      if (now === undefined) throw new Error(`group ${name} has a member that is no pair`);
      const decision = decide(now, { event: 'split' }, atMs);
      if (decision.kind === 'refused') refusals.push({ pair: views.pairText(now), error: refusalError(decision, views.pairText(now)) });
      else if (decision.row !== null) members.push({ now, row: decision.row, decision });
    }
    const first = refusals[0]?.error;
    if (first === undefined) return members;
    const more = refusals.length > 1 ? ` (and ${refusals.length - 1} more)` : '';
    throw new TwinvolError(first.code, `group ${name} was not split, none of its pairs: ${first.message}${more}`, {
      remedy: first.remedy,
      details: { refused: refusals.map(({ pair, error }) => ({ pair, ...error.details })) },
    });
  }

  async #splitAll(name: string, members: readonly Member[], scheduledAtMs: number | null): Promise<void> {
    const { plane, store, pairs, log } = this.#context;
    const switches = members.map(({ row, decision }) => {
      const effect = decision.effects.find((one) => one.do === 'switch');
      if (effect?.do !== 'switch') throw new Error('a split switches the data plane');
      return { id: row.id, mode: effect.mode, dirty: effect.dirty, onlyIfClean: effect.onlyIfClean ?? false };
    });
    const { switched, pauseMs } = await plane.pairsSwitch(switches);
    if (!switched)
      throw notClean(
        plane,
        `group ${name} was not split, none of its pairs`,
        members.map(({ row }) => row.id),
      );
    try {
      await Promise.all(members.map(({ row }) => plane.volumeFlush(row.secondary)));
      await store.commit((tables) => [
        ...members.map(({ row }) => ({ op: 'pair-put', row }) as const),
        ...(scheduledAtMs === null
          ? []
          : [{ op: 'group-put', row: withoutSchedule(requireGroup(tables.group(name), name), scheduledAtMs) } as const]),
      ]);
    } catch (error) {
      for (const { row } of members) await this.#shell.happening(row.id, { event: 'undone', command: 'split', code: causeOf(error) });
      throw error;
    }
    log.info({ group: name, pairs: members.length, pauseMs }, 'group split at one point in time');
    for (const { now, row } of members) {
      pairs.settle(row.id);
      this.#shell.announce(now, row);
    }
  }

  /** What a change of the groups would do, or why it would be refused. */
  #planned(command: string, change: (tables: Tables) => readonly TableOp[], steps: readonly string[], pair?: PairRow): PlanView {
    const { tables } = this.#context.store;
    change(tables);
    return planView(command, {
      steps,
      ...(pair === undefined ? {} : { volumes: [tables.volume(pair.primary).name, tables.volume(pair.secondary).name] }),
    });
  }

  #requirePair(ref: PairRef): PairRow {
    const pair = findPair(this.#context, ref);
    if (pair === null) throw new TwinvolError('PAIR_NOT_FOUND', `${refText(this.#context, ref)} is simplex: there is no such pair`);
    return pair;
  }

  #changed(name: string): GroupRow {
    const group = requireGroup(this.#context.store.tables.group(name), name);
    this.#context.events.append('change', 'group', name, { pairs: group.pairs });
    return group;
  }
}

/** @throws TwinvolError `GROUP_NOT_FOUND` */
export const requireGroup = (group: GroupRow | undefined, name: string): GroupRow => {
  if (group === undefined) throw new TwinvolError('GROUP_NOT_FOUND', `there is no group ${name}`, { details: { group: name } });
  return group;
};

const withoutSchedule = (group: GroupRow, atMs: number): GroupRow => {
  const { scheduledSplit, ...rest } = group;
  if (scheduledSplit?.atMs !== atMs)
    throw new TwinvolError('CHANGED', `the scheduled split of the group ${group.name} was taken back meanwhile`);
  return rest;
};
