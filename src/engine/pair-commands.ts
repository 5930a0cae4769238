/**
 * Pairs: split, resync, restore, release, set, status. (create: `pair-create.ts`; wait and verify: `pair-wait.ts` and
 * `pair-verify.ts`.) Each looks the pair up, lets the machine decide, and has the shell carry it out.
 */
import { TwinvolError } from '../core/faults.ts';
import { fittingFor } from '../core/fitting.ts';
import type { Fitting } from '../core/fitting.ts';
import { decide, refusalError } from '../core/pair-machine.ts';
import type { Moved, PairEvent } from '../core/pair-machine.ts';
import type { PairRow, VolumeAttribute } from '../core/rows.ts';
import { formatSize } from '../core/units.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { PairCommandInput, PairRef, PairReleaseInput, Planned, Released, VolumeRef } from './api.ts';
import type { Engine } from './api.ts';
import type { DeviceContext } from './context.ts';
import { destructionOf } from './pair-destruction.ts';
import { onPair, requireNoRestore, requirePace } from './pair-lookup.ts';
import type { PairShell } from './pair-shell.ts';
import { endedClients, planView } from './plan.ts';
import type { PoolCommands } from './pool-commands.ts';
import { fittingText, plannedMoves } from './volume-support.ts';

type SetInput = Parameters<Engine['pairSet']>[0];

export class PairCommands {
  readonly #context: DeviceContext;
  readonly #shell: PairShell;
  readonly #pool: PoolCommands;

  constructor(context: DeviceContext, shell: PairShell, pool: PoolCommands) {
    this.#context = context;
    this.#shell = shell;
    this.#pool = pool;
  }

  /** All pairs, or those that a volume is in. */
  status(primary?: VolumeRef): readonly PairView[] {
    const { pairs, views, store } = this.#context;
    if (primary === undefined) return pairs.rows().map((row) => views.pair(row));
    const { number } = store.tables.volume(primary);
    const asSecondary = pairs.ofSecondary(number);
    return [...pairs.ofPrimary(number), ...(asSecondary === undefined ? [] : [asSecondary])].map((row) => views.pair(row));
  }

  async split(input: Planned & PairRef): Promise<PairView | PlanView> {
    return onPair(this.#context, input, 'split', async (row, text) => {
      if (input.plan === true) return this.#splitPlan([row]);
      return this.#view(await this.#shell.command({ command: 'split', text, now: row, decision: this.#decide(row, { event: 'split' }) }));
    });
  }

  /** The split that was scheduled for that moment; the same record takes the moment away. @throws TwinvolError `CHANGED` when it was taken back meanwhile */
  async splitScheduled(id: number, atMs: number): Promise<void> {
    const { primary, secondary } = this.#context.pairs.row(id) ?? {};
    if (primary === undefined || secondary === undefined) throw new TwinvolError('CHANGED', `pair ${id} was released meanwhile`);
    await onPair(this.#context, { primary, secondary }, 'split', async (row, text) => {
      const { scheduledSplit, ...rest } = row;
      if (row.id !== id || scheduledSplit?.atMs !== atMs)
        throw new TwinvolError('CHANGED', `the scheduled split of ${text} was taken back meanwhile`);
      await this.#shell.command({ command: 'split', text, now: row, decision: this.#decide(rest, { event: 'split' }) });
    });
  }

  async resync(input: PairCommandInput): Promise<PairView | PlanView> {
    requirePace(input.pace);
    return onPair(this.#context, input, 'resync', async (row, text) => {
      requireNoRestore(this.#context, this.#context.store.tables.volume(row.primary), row.id, 'resync');
      if (input.plan === true) return this.#copyPlan('resync', row);
      return this.#copyAgain('resync', row, text, input);
    });
  }

  async restore(input: PairCommandInput): Promise<PairView | PlanView> {
    requirePace(input.pace);
    return onPair(this.#context, input, 'restore', async (row, text) => {
      requireNoRestore(this.#context, this.#context.store.tables.volume(row.primary), row.id, 'restore');
      this.#requireQuietSiblings(row);
      if (input.plan === true) return this.#copyPlan('restore', row);
      return this.#copyAgain('restore', row, text, input);
    });
  }

  async release(input: PairReleaseInput): Promise<Released | PlanView> {
    const { store, views } = this.#context;
    let attribute = input.then ?? store.tables.settings.attributeAfterRelease;
    const released = await onPair(this.#context, input, 'release', async (row, text) => {
      // The one whole image of a restore is the secondary's: without a word it does not go where it may be overwritten.
      if (input.then === undefined && row.copy === 'restore') attribute = 'normal';
      if (input.plan === true) return this.#releasePlan(row, attribute);
      const view = views.pair(row);
      await this.#shell.command({
        command: 'release',
        text,
        now: row,
        decision: this.#decide(row, { event: 'release' }),
        ...(input.consent === undefined ? {} : { consent: input.consent }),
        ops: (tables) => (attribute === 'secondary' ? [] : [{ op: 'volume-put', row: { ...tables.volume(row.secondary), attribute } }]),
      });
      return { released: view };
    });
    return 'released' in released ? this.#afterRelease(released.released, attribute, input) : released;
  }

  async set(input: SetInput): Promise<PairView | PlanView> {
    requirePace(input.pace);
    return onPair(this.#context, input, 'set', async (row, text) => {
      const { pace = row.pace, fence = row.fence } = input;
      if (input.plan === true)
        return planView('pair set', {
          steps: [`pace ${row.pace} -> ${pace}`, `fence ${row.fence} -> ${fence}`],
          volumes: this.#names(row),
        });
      if (pace === row.pace && fence === row.fence) return this.#view(row);
      return this.#view(
        await this.#shell.command({ command: 'set', text, now: row, decision: this.#decide(row, { event: 'set', pace, fence }) }),
      );
    });
  }

  /** What a split of these pairs would do. */
  splitPlan(command: string, rows: readonly PairRow[]): PlanView {
    return { ...this.#splitPlan(rows), command };
  }

  async #copyAgain(command: 'resync' | 'restore', row: PairRow, text: string, input: PairCommandInput): Promise<PairView> {
    const { pace, checksum } = input;
    const decision = this.#decide(row, {
      event: command,
      ...(pace === undefined ? {} : { pace }),
      ...(checksum === undefined ? {} : { checksum }),
    });
    return this.#view(
      await this.#shell.command({ command, text, now: row, decision, ...(input.consent === undefined ? {} : { consent: input.consent }) }),
    );
  }

  /** The other pairs of a primary that is overwritten must not be copying from it or mirroring it. */
  #requireQuietSiblings(row: PairRow): void {
    const { pairs, views } = this.#context;
    const busy = pairs
      .ofPrimary(row.primary)
      .find((other) => other.id !== row.id && other.state !== 'split' && other.state !== 'suspended');
    if (busy === undefined) return;
    throw new TwinvolError(
      'PAIR_STATE',
      `restore refused: ${views.pairText(busy)} of the same primary is ${busy.state}; every other pair must be split or suspended`,
      {
        remedy: 'split the other pairs of the primary first',
        details: { pair: busy.id, state: busy.state },
      },
    );
  }

  /** What comes after a release without belonging to it: a refusal of it is told, and the release stands. */
  async #afterRelease(released: PairView, attribute: VolumeAttribute, input: PairReleaseInput): Promise<Released> {
    const { events, log } = this.#context;
    const { number, name } = released.secondary;
    if (this.#formerFitting(number, attribute) === null) return { released };
    try {
      await this.#pool.restoreSize({ volume: number, ...(input.consent === undefined ? {} : { consent: input.consent }) });
      return { released };
    } catch (error) {
      log.warn({ err: error, volume: number }, 'the former capacity could not be restored after the release');
      const { code, message } = error instanceof TwinvolError ? error : { code: 'INTERNAL' as const, message: String(error) };
      events.append('warning', 'volume', number, { text: `${name} keeps its fitted capacity: ${message}`, code });
      return { released, sizeKept: { code, message } };
    }
  }

  /** What giving a released secondary its former capacity back takes; null where the setting does not say so, or there is none. */
  #formerFitting(number: number, attribute: VolumeAttribute): Fitting | null {
    const { tables, regionBytes } = this.#context.store;
    const row = tables.findVolume(number);
    if (row?.formerCapacityBytes === undefined || attribute === 'normal' || !tables.settings.restoreSizeOnRelease) return null;
    return fittingFor(row, row.formerCapacityBytes, regionBytes);
  }

  #decide(row: PairRow, event: PairEvent): Moved {
    const decision = decide(row, event, this.#context.nowMs());
    if (decision.kind === 'refused') throw refusalError(decision, this.#context.views.pairText(row));
    return decision;
  }

  #view(row: PairRow): PairView {
    return this.#context.views.pairById(row.id) ?? this.#context.views.pair(row);
  }

  #names(row: PairRow): readonly string[] {
    const { tables } = this.#context.store;
    return [tables.volume(row.primary).name, tables.volume(row.secondary).name];
  }

  #splitPlan(rows: readonly PairRow[]): PlanView {
    const steps = rows.map((row) => {
      const [primary, secondary] = this.#names(row);
      return `${secondary} keeps the image that ${primary} has at the moment of the split, and becomes read-write for hosts`;
    });
    const together = rows.length > 1 ? ['all of them at one point in time'] : [];
    return planView('pair split', { steps: [...steps, ...together], volumes: rows.flatMap((row) => this.#names(row)) });
  }

  #copyPlan(command: 'resync' | 'restore', row: PairRow): PlanView {
    const { plane, gate, store } = this.#context;
    const [primary = '', secondary = ''] = this.#names(row);
    const { dirtyBytes } = plane.pairProgress(row.id);
    const side = command === 'resync' ? 'secondary' : 'primary';
    const overwritten = store.tables.volume(row[side]);
    const destroys = destructionOf(overwritten, side, row, command, plane);
    const asked = command === 'resync' ? [row.secondary] : [row.primary, row.secondary];
    const clients = asked.reduce((sum, number) => sum + plane.clientCount(number), 0);
    const steps = [
      `the hosts of ${command === 'resync' ? secondary : `${primary} and ${secondary}`} are asked whether they use it`,
      ...endedClients(clients),
      `${formatSize(dirtyBytes.union)} are copied from ${command === 'resync' ? `${primary} to ${secondary}` : `${secondary} to ${primary}`}`,
    ];
    return planView(`pair ${command}`, {
      steps,
      volumes: [primary, secondary],
      hosts: gate.hostsFor(asked),
      regions: Math.ceil(dirtyBytes.union / row.dirtyRegionBytes),
      bytes: dirtyBytes.union,
      destroys: [destroys],
    });
  }

  #releasePlan(row: PairRow, attribute: VolumeAttribute): PlanView {
    const [primary = '', secondary = ''] = this.#names(row);
    const { plane, gate, store } = this.#context;
    const isRestoring = row.copy === 'restore';
    const clients = isRestoring ? plane.clientCount(row.primary) : 0;
    const steps = [
      ...(isRestoring ? [`the hosts of ${primary} are asked whether they use it: what they wrote is on ${secondary} in part`] : []),
      ...endedClients(clients),
      ...(row.state === 'duplex-pending' ? ['the copy ends; its target is left with a part of the image'] : []),
      `${primary} and ${secondary} are no longer a pair; the record of what differs is gone`,
      attribute === 'secondary'
        ? `${secondary} goes back to the pool, where it may be chosen and overwritten`
        : `${secondary} becomes a normal volume and keeps its data`,
    ];
    const fitting = this.#formerFitting(row.secondary, attribute);
    const { tables } = store;
    const asked = isRestoring
      ? { hosts: gate.hostsFor([row.primary]), destroys: [destructionOf(tables.volume(row.primary), 'primary', row, 'release', plane)] }
      : {};
    if (fitting === null) return planView('pair release', { steps, volumes: [primary, secondary], ...asked });
    const volume = tables.volume(row.secondary);
    return planView('pair release', {
      steps: [...steps, `${fittingText(volume, fitting)}: its former capacity is given back`],
      volumes: [primary, secondary],
      ...asked,
      regions: fitting.surplusRegions + fitting.missingRegions,
      moves: plannedMoves(tables, volume, fitting),
    });
  }
}
