/**
 * Volumes: create, list, show, rename, grow, delete, set.
 *
 * Orders that crashes depend on:
 * - create, grow: the row is durable before a lane knows the regions; a crash in between leaves an unwritten volume.
 * - delete: held and asked, then durable (the regions go to a scrub list in the same record), then the connections end
 *   and the lanes forget the region map, and only then the regions are cleared.
 */
import { randomUUID } from 'node:crypto';
import { TwinvolError } from '../core/faults.ts';
import { requireName } from '../core/names.ts';
import { isCapacity } from '../core/row-rules.ts';
import type { TableOp, VolumeRow } from '../core/rows.ts';
import { countRegions, mergeNeighbours, sameRuns } from '../core/runs.ts';
import { requireRegions, volumeDeleteOps } from '../core/table-changes.ts';
import type { Tables } from '../core/tables.ts';
import { formatSize, VOLUME_COUNT_MAX } from '../core/units.ts';
import type { PlanView, VolumeView } from '../core/views.ts';
import type { Engine, VolumeCreateInput, VolumeRef } from './api.ts';
import type { DeviceContext } from './context.ts';
import { wholeVolume } from './pair-destruction.ts';
import { endedClients, planView } from './plan.ts';
import { onceCleared, onVolume, requireUnpaired, volumeSpec } from './volume-support.ts';

type Input<K extends keyof Engine> = Engine[K] extends (input: infer I) => unknown ? I : never;

export class VolumeCommands {
  readonly #context: DeviceContext;
  readonly #onDeleted: (number: number) => void;

  /** @param onDeleted a number has no volume any more, and may be given to another one */
  constructor(context: DeviceContext, onDeleted: (number: number) => void) {
    this.#context = context;
    this.#onDeleted = onDeleted;
  }

  list(): readonly VolumeView[] {
    return this.#tables.volumes().map((row) => this.#context.views.volume(row));
  }

  show(volume: VolumeRef): VolumeView {
    return this.#context.views.volume(this.#tables.volume(volume));
  }

  async create(input: VolumeCreateInput): Promise<VolumeView | PlanView> {
    const { name, sizeBytes, attribute = 'normal', protected: isProtected = false } = input;
    const { store, regions, plane, locks, nowMs } = this.#context;
    requireName('volume', name);
    requireCapacity(sizeBytes);
    const count = store.regionsFor(sizeBytes);
    const number = this.#freeNumber();
    requireFreeName(this.#tables, name);
    if (input.plan === true) return this.#createPlan(name, sizeBytes, count);
    return locks.run([`volume:${number}`], `volume create ${name}`, async () => {
      const row = { number, name, capacityBytes: sizeBytes, attribute, isProtected, uuid: randomUUID(), createdAtMs: nowMs() };
      await regions.commitGrowing(count, (tables) => {
        requireFreeName(tables, name);
        if (tables.findVolume(number) !== undefined) throw new Error(`the number ${number} was reserved and is taken`);
        return [{ op: 'volume-put', row: { ...row, runs: requireRegions(tables, count) } }];
      });
      const made = this.#tables.volume(number);
      try {
        await plane.volumeAttach(volumeSpec(made));
      } catch (error) {
        await this.#takeBack(made, error);
        throw error;
      }
      return this.#report('create', made);
    });
  }

  async rename(input: Input<'volumeRename'>): Promise<VolumeView | PlanView> {
    const { name } = input;
    requireName('volume', name);
    return onVolume(this.#context, input.volume, 'volume rename', async (row) => {
      if (name !== row.name) requireFreeName(this.#tables, name);
      if (input.plan === true)
        return planView('volume rename', {
          steps: [`${row.name} gets the name ${name}; its number ${row.number} stays`],
          volumes: [row.name],
        });
      if (name === row.name) return this.#context.views.volume(row);
      return this.#change(row, (tables, present) => {
        requireFreeName(tables, name);
        return [{ op: 'volume-put', row: { ...present, name } }];
      });
    });
  }

  async grow(input: Input<'volumeGrow'>): Promise<VolumeView | PlanView> {
    const { sizeBytes } = input;
    requireCapacity(sizeBytes);
    return onVolume(this.#context, input.volume, 'volume grow', async (row) => {
      requireUnpaired(this.#context, row, 'volume grow');
      requireLarger(row, sizeBytes);
      const more = this.#context.store.regionsFor(sizeBytes) - countRegions(row.runs);
      if (input.plan === true) {
        const growth = this.#growthText(more);
        return planView('volume grow', {
          steps: [...growth, `${row.name} gets ${more} regions and ${formatSize(sizeBytes)}`],
          volumes: [row.name],
          regions: more,
          bytes: sizeBytes - row.capacityBytes,
        });
      }
      await this.#context.regions.clearBehind(row, sizeBytes);
      const grown = (tables: Tables, present: VolumeRow): readonly TableOp[] => {
        const { formerCapacityBytes: _former, ...rest } = present;
        const runs = mergeNeighbours([...present.runs, ...requireRegions(tables, more, present.runs.at(-1))]);
        return [{ op: 'volume-put', row: { ...rest, capacityBytes: sizeBytes, runs } }];
      };
      return this.#change(row, grown, more);
    });
  }

  async delete(input: Input<'volumeDelete'>): Promise<VolumeView | PlanView> {
    return onVolume(this.#context, input.volume, 'volume delete', async (row) => {
      requireUnpaired(this.#context, row, 'volume delete');
      if (input.plan === true) return this.#deletePlan(row);
      const { plane, regions } = this.#context;
      const view = this.#context.views.volume(row);
      let scrubId = 0;
      await onceCleared(this.#context, row, 'volume delete', input.consent, async () => {
        // A fitting that is being prepared has given its list of regions to clear a number: not the same one again.
        await regions.commitTaking((tables) => {
          scrubId = tables.nextScrubId;
          return volumeDeleteOps(tables, tables.volume(row.number));
        });
        await plane.clientsEnd({ volume: row.number });
      });
      await plane.volumeDetach(row.number);
      regions.ready(scrubId);
      this.#onDeleted(row.number);
      this.#context.events.append('destroy', 'volume', row.number, { name: row.name, capacityBytes: row.capacityBytes });
      this.#context.log.info({ volume: row.number, name: row.name }, 'volume deleted');
      return view;
    });
  }

  async set(input: Input<'volumeSet'>): Promise<VolumeView | PlanView> {
    return onVolume(this.#context, input.volume, 'volume set', async (row) => {
      const attribute = input.attribute ?? row.attribute;
      const isProtected = input.protected ?? row.isProtected;
      if (attribute !== row.attribute) requireUnpaired(this.#context, row, 'volume set');
      if (input.plan === true) return this.#setPlan(row, attribute, isProtected);
      if (attribute === row.attribute && isProtected === row.isProtected) return this.#context.views.volume(row);
      const change = (): Promise<VolumeView> =>
        this.#change(row, (_tables, present) => [{ op: 'volume-put', row: { ...present, attribute, isProtected } }]);
      if (attribute !== 'secondary' || row.attribute === 'secondary') return change();
      // Into the pool, where the device may choose it for overwriting: who uses it is asked now, while it is held.
      return onceCleared(this.#context, row, 'volume set', input.consent, change);
    });
  }

  get #tables(): Tables {
    return this.#context.store.tables;
  }

  /** The lowest number that no volume has and no command is giving out or taking back. */
  #freeNumber(): number {
    for (let number = this.#tables.nextVolumeNumber; number <= VOLUME_COUNT_MAX; number += 1) {
      if (this.#tables.findVolume(number) === undefined && this.#context.locks.holderOf(`volume:${number}`) === null) return number;
    }
    throw new TwinvolError('LIMIT', `a device has at most ${VOLUME_COUNT_MAX} volumes`);
  }

  /** Commits a new row, tells the lanes and the operators. */
  async #change(row: VolumeRow, change: (tables: Tables, present: VolumeRow) => readonly TableOp[], regions = 0): Promise<VolumeView> {
    await this.#context.regions.commitGrowing(regions, (tables) => change(tables, tables.volume(row.number)));
    const changed = this.#tables.volume(row.number);
    const isServedAlike = changed.name === row.name && changed.capacityBytes === row.capacityBytes && sameRuns(changed.runs, row.runs);
    if (!isServedAlike) await this.#context.plane.volumeReplace(volumeSpec(changed));
    return this.#report('change', changed);
  }

  #report(kind: 'create' | 'change', row: VolumeRow): VolumeView {
    const { events, log, views } = this.#context;
    const { number, name, capacityBytes, attribute, isProtected } = row;
    events.append(kind, 'volume', number, { name, capacityBytes, attribute, protected: isProtected });
    log.info({ volume: number, name, capacityBytes, attribute }, kind === 'create' ? 'volume created' : 'volume changed');
    return views.volume(row);
  }

  async #takeBack(row: VolumeRow, cause: unknown): Promise<void> {
    const { regions, log } = this.#context;
    log.error({ err: cause, volume: row.number }, 'a new volume could not be served and is taken back');
    let scrubId = 0;
    await regions.commitTaking((tables) => {
      scrubId = tables.nextScrubId;
      return volumeDeleteOps(tables, row);
    });
    regions.ready(scrubId);
  }

  #growthText(regions: number): readonly string[] {
    const { store, regions: supply } = this.#context;
    const added = supply.plannedGrowth(regions);
    return added === 0 ? [] : [`${added} physical volumes of ${formatSize(store.pvBytes)} are added (sparse files)`];
  }

  #createPlan(name: string, sizeBytes: number, regions: number): PlanView {
    const steps = [
      ...this.#growthText(regions),
      `volume ${name} of ${formatSize(sizeBytes)} is made of ${regions} regions; it reads as zeros`,
    ];
    return planView('volume create', { steps, volumes: [name], regions, bytes: sizeBytes });
  }

  #deletePlan(row: VolumeRow): PlanView {
    const { plane, gate } = this.#context;
    const regions = countRegions(row.runs);
    const clients = plane.clientCount(row.number);
    const steps = [
      ...endedClients(clients),
      `volume ${row.name} and its content are gone`,
      `${regions} regions are cleared and go to the unassigned-region table`,
    ];
    return planView('volume delete', {
      steps,
      volumes: [row.name],
      hosts: gate.hostsFor([row.number]),
      regions,
      bytes: row.capacityBytes,
      destroys: [wholeVolume(row)],
    });
  }

  #setPlan(row: VolumeRow, attribute: VolumeRow['attribute'], isProtected: boolean): PlanView {
    const steps = [
      ...(attribute === row.attribute
        ? []
        : [
            `${row.name} becomes ${attribute === 'secondary' ? 'a volume of the pool: its content may be overwritten' : 'a normal volume'}`,
          ]),
      ...(isProtected === row.isProtected
        ? []
        : [`${row.name} is ${isProtected ? 'kept out of every automatic choice' : 'open to automatic choice'}`]),
    ];
    if (steps.length === 0) steps.push(`nothing: ${row.name} is so already`);
    const intoPool = attribute === 'secondary' && row.attribute !== 'secondary';
    return planView('volume set', { steps, volumes: [row.name], hosts: intoPool ? this.#context.gate.hostsFor([row.number]) : [] });
  }
}

const requireCapacity = (bytes: number): void => {
  if (!isCapacity(bytes)) throw new TwinvolError('CAPACITY_INVALID', `${bytes} bytes are no capacity`, { details: { sizeBytes: bytes } });
};

const requireFreeName = (tables: Tables, name: string): void => {
  const holder = tables.findVolume(name);
  if (holder !== undefined)
    throw new TwinvolError('VOLUME_EXISTS', `volume ${name} exists already (number ${holder.number})`, {
      details: { volume: holder.number },
    });
};

const requireLarger = (row: VolumeRow, sizeBytes: number): void => {
  if (sizeBytes > row.capacityBytes) return;
  const why = sizeBytes === row.capacityBytes ? 'it has that capacity already' : 'a volume cannot be made smaller';
  throw new TwinvolError('CAPACITY_INVALID', `volume grow refused: ${row.name} has ${formatSize(row.capacityBytes)}, and ${why}`, {
    remedy: `give more than ${row.capacityBytes} bytes`,
    details: { capacityBytes: row.capacityBytes, sizeBytes },
  });
};
