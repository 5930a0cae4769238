/**
 * Pair create: the choice of a secondary, region fitting, and the start of the initial copy (specification 5).
 *
 * One journal record holds all of it: the pair's row, and with fitting the secondary's new row and the scrub list of
 * the regions that it gave away. Order: hold the secondary, ask its hosts, its new region map to the lanes, bitmap
 * files with every region dirty, the record, then the secondary's connections end and the copy starts. Before the
 * record everything can be taken back; a crash before it leaves bitmap files that belong to no pair, which the next
 * start removes; a crash after it finds a pair whose every region is dirty.
 *
 * The choice is made twice, before and after the volumes are ours; if another command was faster, it is made anew.
 */
import { TwinvolError } from '../core/faults.ts';
import { decide, refusalError } from '../core/pair-machine.ts';
import { requireDirtyRegion, requirePrimary } from '../core/pair-options.ts';
import type { PairRow, VolumeRow } from '../core/rows.ts';
import { chooseSecondary, nameSecondary } from '../core/selection.ts';
import type { Choice } from '../core/selection.ts';
import { dirtyRegionBytesFor, formatSize } from '../core/units.ts';
import type { PairView, PlanView } from '../core/views.ts';
import type { Consent, PairCreateInput } from './api.ts';
import type { DeviceContext } from './context.ts';
import { requireNoRestore, requirePace } from './pair-lookup.ts';
import { wholeVolume } from './pair-destruction.ts';
import type { PairShell, PairTask, Prepared } from './pair-shell.ts';
import { endedClients, planView } from './plan.ts';
import { poolOf } from './pool-commands.ts';
import { fittingText, plannedMoves, refitOps, volumeSpec } from './volume-support.ts';

const PACE_DEFAULT = 8;
/** How often another command may take the chosen secondary away before this one gives up. */
const CHOICE_ATTEMPTS_MAX = 16;

type CreateInput = PairCreateInput & { readonly consent?: Consent };

export class PairCreate {
  readonly #context: DeviceContext;
  readonly #shell: PairShell;

  constructor(context: DeviceContext, shell: PairShell) {
    this.#context = context;
    this.#shell = shell;
  }

  async run(input: CreateInput): Promise<PairView | PlanView> {
    requirePace(input.pace);
    requireDirtyRegion(input.dirtyRegionBytes, this.#context.store.regionBytes);
    for (let attempt = 1; attempt <= CHOICE_ATTEMPTS_MAX; attempt += 1) {
      const primary = this.#requirePrimary(input);
      const best = await this.#choose(primary, input);
      if (input.plan === true) return this.#plan(primary, best, input);
      // At once before the lock is asked for: of several commands each then takes another volume.
      const choice = this.#chooseFree(this.#requirePrimary(input), input);
      const text = `pair create ${primary.name} -> ${choice.volume.name}`;
      const view = await this.#context.locks.run([`volume:${primary.number}`, `volume:${choice.volume.number}`], text, () =>
        this.#create(input, choice, text),
      );
      if (view !== null) return view;
    }
    throw new TwinvolError(
      'CHANGED',
      `pair create gave up: ${CHOICE_ATTEMPTS_MAX} times another command took the chosen secondary; nothing was changed`,
    );
  }

  /** @returns null if the choice is another one now that the volumes are ours */
  async #create(input: CreateInput, chosen: Choice, text: string): Promise<PairView | null> {
    const { tables } = this.#context.store;
    const primary = this.#requirePrimary(input);
    const choice = this.#stillChosen(primary, input, chosen);
    if (choice === null) return null;
    // The id is given when the pair's files are made (`pair-shell.ts`).
    const pair = {
      id: tables.nextPairId,
      primary: primary.number,
      secondary: choice.volume.number,
      dirtyRegionBytes: input.dirtyRegionBytes ?? dirtyRegionBytesFor(primary.capacityBytes, tables.regionBytes),
      fence: input.fence ?? 'never',
      pace: input.pace ?? PACE_DEFAULT,
    };
    const decision = decide(null, { event: 'create', pair }, this.#context.nowMs());
    if (decision.kind === 'refused') throw refusalError(decision, text);
    const row = await this.#shell.command({
      command: 'create',
      text,
      now: null,
      decision,
      ...(input.consent === undefined ? {} : { consent: input.consent }),
      ...this.#fittingPart(choice),
    });
    return this.#context.views.pair(row);
  }

  /**
   * The secondary's new capacity. The lanes get its new region map before the pair's files are made, which are as long
   * as it is; it is held, so nobody writes through either map. Regions that it gets are reserved until the record names
   * them, regions that it gives away are cleared when the record is durable.
   */
  #fittingPart({ volume, fitting }: Choice): Pick<PairTask, 'prepare'> {
    if (fitting === null) return {};
    const { store, plane, regions, events } = this.#context;
    const prepare = async (): Promise<Prepared> => {
      await regions.clearBehind(volume, fitting.capacityBytes);
      const release = await regions.reserve();
      try {
        const { ops, row, scrubId } = refitOps(store.tables, store.tables.volume(volume.number), fitting);
        await plane.volumeReplace(volumeSpec(row));
        const done = (): void => {
          if (scrubId !== null) regions.ready(scrubId);
          const { name, capacityBytes, formerCapacityBytes } = row;
          events.append('change', 'volume', row.number, { name, capacityBytes, formerCapacityBytes });
        };
        return { ops, undo: () => plane.volumeReplace(volumeSpec(volume)), done, release };
      } catch (error) {
        release();
        throw error;
      }
    };
    return { prepare };
  }

  #requirePrimary(input: CreateInput): VolumeRow {
    const { pairs, store, views } = this.#context;
    const primary = store.tables.volume(input.primary);
    const asSecondary = pairs.ofSecondary(primary.number);
    requireNoRestore(this.#context, primary, null, 'create');
    requirePrimary(primary, {
      secondaryOf: asSecondary === undefined ? null : views.pairText(asSecondary),
      pairs: pairs.ofPrimary(primary.number),
    });
    return primary;
  }

  /** Chooses; if only regions that are being cleared are lacking, waits for them. */
  async #choose(primary: VolumeRow, input: CreateInput): Promise<Choice> {
    try {
      return this.#chooseNow(primary, input);
    } catch (error) {
      const { regions, store } = this.#context;
      const isWorthWaiting =
        error instanceof TwinvolError && error.code === 'REGIONS_MISSING' && regions.scrubbingRegions > 0 && input.plan !== true;
      if (!isWorthWaiting) throw error;
      await regions.waitForCleared(Number(error.details.missingRegions) + store.tables.unassigned.freeRegions);
      return this.#chooseNow(primary, input);
    }
  }

  /** The choice, or one just as good that no other command has in its hands. */
  #chooseFree(primary: VolumeRow, input: CreateInput): Choice {
    const best = this.#chooseNow(primary, input);
    const { locks, store } = this.#context;
    if (input.secondary !== undefined || locks.holderOf(`volume:${best.volume.number}`) === null) return best;
    const equals = [...store.tables.volumes()].filter(
      ({ number, capacityBytes }) => capacityBytes === best.volume.capacityBytes && locks.holderOf(`volume:${number}`) === null,
    );
    try {
      return this.#chooseNow(primary, input, equals);
    } catch {
      return best;
    }
  }

  /** Now that the volumes are ours; null if it is no candidate any more. */
  #stillChosen(primary: VolumeRow, input: CreateInput, { volume, how }: Choice): Choice | null {
    if (input.secondary !== undefined) return this.#chooseNow(primary, input);
    const row = this.#context.store.tables.findVolume(volume.number);
    try {
      const choice = this.#chooseNow(primary, input, row === undefined ? [] : [row]);
      return choice.how === how ? choice : null;
    } catch {
      return null;
    }
  }

  /** @param among what may be chosen; default: all volumes */
  #chooseNow(primary: VolumeRow, input: CreateInput, among?: readonly VolumeRow[]): Choice {
    const { tables } = this.#context.store;
    const pool = { ...poolOf(this.#context), ...(among === undefined ? {} : { volumes: among }) };
    const fit = input.fit ?? tables.settings.fit;
    if (input.secondary === undefined)
      return chooseSecondary(primary, pool, { condition: input.condition ?? tables.settings.condition, fit });
    const named = tables.volume(input.secondary);
    this.#requireNotPaired(primary, named);
    return nameSecondary(primary, named, pool, { condition: input.condition ?? 'any', fit });
  }

  /** The cell of the matrix, where this very pair exists. */
  #requireNotPaired(primary: VolumeRow, named: VolumeRow): void {
    const pair: PairRow | undefined = this.#context.pairs.ofPrimary(primary.number).find((row) => row.secondary === named.number);
    if (pair === undefined) return;
    const decision = decide(pair, { event: 'create', pair }, this.#context.nowMs());
    if (decision.kind === 'refused') throw refusalError(decision, this.#context.views.pairText(pair));
  }

  #plan(primary: VolumeRow, { volume, how, fitting }: Choice, input: CreateInput): PlanView {
    const { plane, gate, store } = this.#context;
    const clients = plane.clientCount(volume.number);
    const chosen =
      input.secondary === undefined
        ? `the device chooses ${volume.name} (${how === 'same' ? 'same capacity' : `${how}: ${formatSize(volume.capacityBytes)}`})`
        : `${volume.name} was named`;
    const steps = [
      chosen,
      'the hosts of the secondary are asked whether they use it',
      ...(fitting === null ? [] : [fittingText(volume, fitting)]),
      ...endedClients(clients, volume.name),
      `up to ${formatSize(primary.capacityBytes)} are copied from ${primary.name} to ${volume.name} (holes are skipped), and every write from then on goes to both`,
    ];
    return planView('pair create', {
      steps,
      volumes: [primary.name, volume.name],
      hosts: gate.hostsFor([volume.number]),
      regions: fitting === null ? 0 : fitting.surplusRegions + fitting.missingRegions,
      moves: fitting === null ? [] : plannedMoves(store.tables, volume, fitting),
      bytes: primary.capacityBytes,
      destroys: [wholeVolume(volume)],
    });
  }
}
