/**
 * What the tables say about hosts and volumes, in the form that agents are asked in.
 *
 * The lists are made anew only when the volumes, the host's row or the addresses have changed: a device with many hosts
 * hands them out often. A list that has not changed is the same object.
 */
import type { EventLog } from '../core/event-log.ts';
import { accessOf } from '../core/host-access.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';
import type { HostRow, VolumeRow } from '../core/rows.ts';
import type { Tables } from '../core/tables.ts';
import type { EventView } from '../core/views.ts';
import type { HostDirectory } from './agent-desk.ts';
import type { ExportAddresses } from './export-addresses.ts';

type OwnList = { readonly all: readonly InquiryTarget[]; readonly own: readonly InquiryTarget[]; readonly follows: boolean };

export class TableDirectory implements HostDirectory {
  readonly #tables: Tables;
  readonly #addresses: ExportAddresses;
  readonly #events: EventLog;
  #volumes: readonly VolumeRow[] | null = null;
  #generation = -1;
  #all: readonly InquiryTarget[] = [];
  readonly #own = new WeakMap<HostRow, OwnList>();

  constructor(tables: Tables, addresses: ExportAddresses, events: EventLog) {
    this.#tables = tables;
    this.#addresses = addresses;
    this.#events = events;
  }

  hosts(): readonly HostRow[] {
    return this.#tables.hosts();
  }

  watchOf(host: string): readonly InquiryTarget[] {
    const row = this.#tables.host(host);
    if (row === undefined) return [];
    const all = this.#targets();
    const { settings } = this.#tables;
    const known = this.#own.get(row);
    if (known !== undefined && known.all === all && known.follows === settings.exportsFollowGrants) return known.own;
    const own = settings.exportsFollowGrants ? all.filter(({ volume }) => accessOf(row, volume, settings) !== null) : all;
    this.#own.set(row, { all, own, follows: settings.exportsFollowGrants });
    return own;
  }

  nameOf(volume: number): string | null {
    return this.#tables.findVolume(volume)?.name ?? null;
  }

  /** A volume with every URI by which hosts reach it, by its name and by its number. */
  target({ number, name }: Pick<VolumeRow, 'number' | 'name'>): InquiryTarget {
    return { volume: number, name, uris: [...this.#addresses.urisOf(name), ...this.#addresses.urisOf(String(number))] };
  }

  tell(kind: Extract<EventView['kind'], 'notice' | 'warning'>, host: string, data: EventView['data']): void {
    this.#events.append(kind, 'host', host, data);
  }

  #targets(): readonly InquiryTarget[] {
    const volumes = this.#tables.volumes();
    const { generation } = this.#addresses;
    if (volumes !== this.#volumes || generation !== this.#generation) {
      this.#all = volumes.map((row) => this.target(row));
      this.#volumes = volumes;
      this.#generation = generation;
    }
    return this.#all;
  }
}
