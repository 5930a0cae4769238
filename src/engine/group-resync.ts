/**
 * The resync of all pairs of a group, with one inquiry about all of their secondaries (specification 6): one warning, one
 * decision. Nothing happens to any of them before every host has been asked about every member.
 *
 * All or none up to the decision. From there on each pair goes its own way, as after a resync by itself: if one cannot be
 * carried out, the others still are, and the error names it.
 */
import { TwinvolError } from '../core/faults.ts';
import type { Destruction } from '../core/inquiry-text.ts';
import { decide, refusalError } from '../core/pair-machine.ts';
import type { Moved } from '../core/pair-machine.ts';
import type { PairRow } from '../core/rows.ts';
import { formatSize } from '../core/units.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { Engine } from './api.ts';
import type { DeviceContext } from './context.ts';
import { requireGroup } from './group-commands.ts';
import type { InquiryTargetVolume, Permit } from './inquiry-gate.ts';
import { destructionOf } from './pair-destruction.ts';
import { requireNoRestore, requirePace } from './pair-lookup.ts';
import { generationOf } from './pair-shell.ts';
import type { PairShell } from './pair-shell.ts';
import { endedClients, planView } from './plan.ts';

type Input = Parameters<Engine['groupResync']>[0];
type Member = { readonly now: PairRow; readonly decision: Moved; readonly target: InquiryTargetVolume };

export class GroupResync {
  readonly #context: DeviceContext;
  readonly #shell: PairShell;

  constructor(context: DeviceContext, shell: PairShell) {
    this.#context = context;
    this.#shell = shell;
  }

  /** @throws TwinvolError as `pairResync`; `CHANGED` when the members changed while it waited for them */
  async run(input: Input): Promise<readonly PairView[] | PlanView> {
    requirePace(input.pace);
    const { store, locks, pairs } = this.#context;
    const text = `group resync ${input.name}`;
    const ids = requireGroup(store.tables.group(input.name), input.name).pairs;
    const rows = ids.map((id) => pairs.row(id)).filter((row) => row !== undefined);
    if (rows.length === 0) {
      throw new TwinvolError('PAIR_NOT_FOUND', `${text} refused: the group has no pairs`, { remedy: 'add pairs with twinvol group add' });
    }
    const keys = rows.flatMap((row) => [`volume:${row.primary}`, `volume:${row.secondary}`, `pair:${row.id}`] as const);
    return locks.run(keys, text, async () => {
      const present = requireGroup(store.tables.group(input.name), input.name).pairs;
      if (present.length !== ids.length || present.some((id, index) => id !== ids[index])) {
        throw new TwinvolError('CHANGED', `${text} gave up: its members changed meanwhile; nothing was resynced`);
      }
      const members = this.#decideAll(input, present);
      return input.plan === true ? this.#plan(members) : this.#resync(text, input, members);
    });
  }

  #decideAll({ name, pace }: Input, ids: readonly number[]): readonly Member[] {
    const { pairs, nowMs, views, store } = this.#context;
    const atMs = nowMs();
    const members: Member[] = [];
    const refusals: TwinvolError[] = [];
    for (const id of ids) {
      const now = pairs.row(id);
      if (now === undefined) throw new Error(`group ${name} has a member that is no pair`);
      requireNoRestore(this.#context, store.tables.volume(now.primary), now.id, 'resync');
      const decision = decide(now, { event: 'resync', ...(pace === undefined ? {} : { pace }) }, atMs);
      const volume = store.tables.volume(now.secondary);
      if (decision.kind === 'refused') refusals.push(refusalError(decision, views.pairText(now)));
      else {
        members.push({ now, decision, target: { number: volume.number, name: volume.name, destroys: this.#destruction(now) } });
      }
    }
    const [first] = refusals;
    if (first === undefined) return members;
    const more = refusals.length > 1 ? ` (and ${refusals.length - 1} more)` : '';
    throw new TwinvolError(first.code, `group ${name} was not resynced, none of its pairs: ${first.message}${more}`, {
      remedy: first.remedy,
      details: { refused: refusals.map((refusal) => refusal.details) },
    });
  }

  #destruction(now: PairRow): Destruction {
    const { store, plane } = this.#context;
    return destructionOf(store.tables.volume(now.secondary), 'secondary', now, 'resync', plane);
  }

  async #resync(text: string, { consent }: Input, members: readonly Member[]): Promise<readonly PairView[]> {
    const { plane, gate } = this.#context;
    const held: number[] = [];
    try {
      for (const { target } of members) {
        await plane.volumeHold(target.number);
        held.push(target.number);
      }
      // Counted again: until they were held, hosts may have written more.
      const targets = members.map(({ now, target }) => ({ ...target, destroys: this.#destruction(now) }));
      const permit = await gate.check({
        command: text,
        targets,
        generation: members.map(({ now }) => generationOf(now)).join(' '),
        ...(consent === undefined ? {} : { consent }),
      });
      return await this.#carryOut(text, members, permit);
    } finally {
      for (const volume of held) await plane.volumeUnhold(volume);
    }
  }

  async #carryOut(text: string, members: readonly Member[], permit: Permit): Promise<readonly PairView[]> {
    const { views } = this.#context;
    const done: PairView[] = [];
    const failures: Array<{ readonly pair: string; readonly error: unknown }> = [];
    for (const { now, decision } of members) {
      const pair = views.pairText(now);
      try {
        const row = await this.#shell.command({ command: 'resync', text: `${text} (${pair})`, now, decision, isCleared: true });
        done.push(views.pairById(row.id) ?? views.pair(row));
      } catch (error) {
        failures.push({ pair, error });
      }
    }
    const [first] = failures;
    await permit.ended(first?.error ?? null);
    if (first === undefined) return done;
    const cause = first.error instanceof TwinvolError ? first.error : null;
    throw new TwinvolError(
      cause?.code ?? 'INTERNAL',
      `${text}: ${failures.length} of ${members.length} pairs were not resynced: ${failures.map((one) => one.pair).join(', ')}; the first: ${cause?.message ?? String(first.error)}`,
      { cause: first.error, ...(cause === null ? {} : { remedy: cause.remedy }) },
    );
  }

  #plan(members: readonly Member[]): PlanView {
    const { plane, gate, store } = this.#context;
    const secondaries = members.map(({ target }) => target.number);
    const bytesOf = ({ now }: Member): number => plane.pairProgress(now.id).dirtyBytes.union;
    const clients = secondaries.reduce((sum, number) => sum + plane.clientCount(number), 0);
    const copies = members.map((member) => {
      return `${formatSize(bytesOf(member))} are copied from ${store.tables.volume(member.now.primary).name} to ${member.target.name}`;
    });
    return planView('group resync', {
      steps: ['the hosts of all secondaries are asked whether they use one', ...endedClients(clients), ...copies],
      volumes: members.flatMap(({ now, target }) => [store.tables.volume(now.primary).name, target.name]),
      hosts: gate.hostsFor(secondaries),
      regions: members.reduce((sum, member) => sum + Math.ceil(bytesOf(member) / member.now.dirtyRegionBytes), 0),
      bytes: members.reduce((sum, member) => sum + bytesOf(member), 0),
      destroys: members.map(({ target }) => target.destroys),
    });
  }
}
