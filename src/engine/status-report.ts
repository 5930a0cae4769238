/** The device as a whole: `status`, and the records of what is there with which an event stream begins. */
import type { ExistsRecord } from '../core/event-log.ts';
import { PAIR_STATES } from '../core/rows.ts';
import type { PairState } from '../core/rows.ts';
import type { StatusView } from '../core/views.ts';
import { nativeReport } from '../platform/native.ts';
import type { DeviceParts } from './device-parts.ts';
import { VERSION } from './version.ts';

export class StatusReport {
  readonly #parts: DeviceParts;

  constructor(parts: DeviceParts) {
    this.#parts = parts;
  }

  status(): StatusView {
    const { context, addresses, controlPath, startedAtMs, recoveryBytes } = this.#parts;
    const { store, plane, regions } = context;
    const { tables } = store;
    return {
      version: VERSION,
      pid: process.pid,
      store: {
        directory: store.directory,
        gone: store.isGone,
        uuid: store.uuid,
        formatVersion: store.formatVersion,
        regionBytes: store.regionBytes,
        physicalVolumes: tables.pvs().length,
        regions: { total: tables.unassigned.totalRegions, unassigned: tables.unassigned.freeRegions, scrubbing: regions.scrubbingRegions },
      },
      sockets: { control: controlPath, nbd: addresses.bases() },
      startedAtMs,
      volumes: tables.volumeCount,
      pairs: this.#pairCounts(),
      scheduledSplits: this.#scheduledSplits(),
      clients: plane.clientCount(),
      lanes: { count: plane.laneCount, handover: plane.handover },
      native: nativeReport(),
      durability: {
        level: tables.settings.durability,
        resyncBoundBytes: plane.resyncBoundBytes(),
        lastRecoveryBytes: recoveryBytes,
        wasCleanShutdown: store.wasCleanShutdown,
      },
      settings: tables.settings,
      memory: { rssBytes: process.memoryUsage.rss() },
    };
  }

  exists(): readonly ExistsRecord[] {
    const { context, happenings } = this.#parts;
    const { tables } = context.store;
    return [
      {
        object: 'device',
        id: context.store.uuid,
        data: { directory: context.store.directory, version: VERSION, settings: tables.settings },
      },
      ...tables.volumes().map((row): ExistsRecord => {
        const { runs: _runs, ...data } = context.views.volume(row);
        return { object: 'volume', id: String(row.number), data };
      }),
      ...context.pairs.rows().map((row): ExistsRecord => ({ object: 'pair', id: String(row.id), data: context.views.pair(row) })),
      ...tables.groups().map(
        (row): ExistsRecord => ({
          object: 'group',
          id: row.name,
          data: { pairs: row.pairs, scheduledSplit: row.scheduledSplit ?? null },
        }),
      ),
      ...tables.hosts().map((row): ExistsRecord => ({ object: 'host', id: row.name, data: { grants: row.grants } })),
      ...happenings.clients().map(({ id, ...data }): ExistsRecord => ({ object: 'client', id: String(id), data })),
    ];
  }

  #scheduledSplits(): StatusView['scheduledSplits'] {
    const { context } = this.#parts;
    const all = [...context.pairs.rows(), ...context.store.tables.groups()].flatMap(({ scheduledSplit }) => scheduledSplit ?? []);
    const ahead = all.filter(({ failure }) => failure === undefined).map(({ atMs }) => atMs);
    return { pending: ahead.length, failed: all.length - ahead.length, nextAtMs: ahead.length === 0 ? null : Math.min(...ahead) };
  }

  #pairCounts(): Readonly<Record<PairState, number>> {
    const { tables } = this.#parts.context.store;
    const counts = Object.fromEntries(PAIR_STATES.map((state) => [state, 0])) as Record<PairState, number>;
    for (const row of this.#parts.context.pairs.rows()) counts[row.state] += 1;
    for (const volume of tables.volumes()) if (volume.attribute === 'normal' && !tables.isPaired(volume.number)) counts.simplex += 1;
    return counts;
  }
}
