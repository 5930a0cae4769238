/** `twinvol status`, `settings`, `client`, `explain`: the device and its connections. */
import type { Command } from 'commander';
import { type FaultCode, FAULTS, TwinvolError } from '../../core/faults.ts';
import { nearest } from '../../core/nearest.ts';
import type { DeviceSettings } from '../../core/rows.ts';
import { SETTINGS_DEFAULT } from '../../core/rows.ts';
import { formatSize } from '../../core/units.ts';
import type { ClientView, StatusView } from '../../core/views.ts';
import { flagArgument, numberArgument } from '../arguments.ts';
import { addCommand, addGroup, withPlan } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { formatDuration, formatMoment } from '../duration.ts';
import { isPlan, planText } from '../plan-text.ts';
import type { Column } from '../text-table.ts';
import { textFields, textTable } from '../text-table.ts';

const statusFields = (status: StatusView, nowMs: number): Array<readonly [string, string]> => {
  const { store, native, durability } = status;
  const { total, unassigned, scrubbing } = store.regions;
  const pairs = Object.entries(status.pairs).filter(([state, count]) => state !== 'simplex' && count > 0);
  return [
    ['twinvol', `${status.version}, process ${status.pid}, up ${formatDuration(nowMs - status.startedAtMs)}`],
    ['store', `${store.directory} (${store.uuid}, format ${store.formatVersion})`],
    [
      'regions',
      `${total} of ${formatSize(store.regionBytes)} in ${store.physicalVolumes} physical volumes, ${unassigned} unassigned, ${scrubbing} being cleared`,
    ],
    ['control', status.sockets.control],
    ...status.sockets.nbd.map((uri, index) => [index === 0 ? 'nbd' : '', uri] as const),
    ...(status.store.gone ? [['', 'DELETED OR MOVED: flushes fail; move it back, or copy the volumes elsewhere over NBD'] as const] : []),
    ['volumes', String(status.volumes)],
    ['pairs', pairs.length === 0 ? 'none' : pairs.map(([state, count]) => `${count} ${state}`).join(', ')],
    ...scheduleFields(status.scheduledSplits),
    ['clients', String(status.clients)],
    [
      'lanes',
      `${status.lanes.count}, ${status.lanes.handover === 'descriptor' ? 'connections handed over' : 'each with its own listener'}`,
    ],
    [
      'native',
      `fs-ext ${native.fsExt ? 'in use' : 'absent'}; lock ${native.fileLock}, holes ${native.holeSeek}, space given back by ${native.spaceReclaim}`,
    ],
    ...native.weaker.map((weaker) => ['', weaker] as const),
    ['durability', durabilityText(durability)],
    ['memory', formatSize(status.memory.rssBytes)],
  ];
};

const durabilityText = ({ level, resyncBoundBytes, lastRecoveryBytes }: StatusView['durability']): string => {
  const bound = `resync at most ${formatSize(resyncBoundBytes)}`;
  const crash = level === 'power' ? `a crash now would ${bound}` : `a kill -9 now would ${bound}, a power loss everything`;
  return `${level}; ${crash}; the last start resynced ${formatSize(lastRecoveryBytes)}`;
};

const scheduleFields = ({ pending, failed, nextAtMs }: StatusView['scheduledSplits']): Array<readonly [string, string]> => {
  if (pending + failed === 0) return [];
  const next = nextAtMs === null ? '' : `, the next at ${formatMoment(nextAtMs)}`;
  return [['splits', `${pending} scheduled${next}${failed === 0 ? '' : `; ${failed} did not happen (see pair status)`}`]];
};

const SETTING_NAMES = Object.keys(SETTINGS_DEFAULT) as readonly (keyof DeviceSettings)[];
const settingsText = (settings: DeviceSettings, context: CommandContext): string => {
  return textFields(
    SETTING_NAMES.map((name) => [name, String(settings[name])] as const),
    context.paint,
  );
};

/** A text as what the setting is: on or off, a number, or a word that the engine checks. */
const settingValue = (like: string | boolean | number, text: string): string | boolean | number => {
  if (typeof like === 'boolean') return flagArgument(text);
  return typeof like === 'number' ? numberArgument('number', 0, Number.MAX_SAFE_INTEGER)(text) : text;
};

/** `name=value` words to settings; the engine checks the values of those that are words. */
const settingsOf = (assignments: readonly string[]): Record<string, string | boolean | number> => {
  const changes: Record<string, string | boolean | number> = {};
  for (const assignment of assignments) {
    const [, name = '', value = ''] = /^([^=]*)=(.*)$/s.exec(assignment) ?? [];
    const known = SETTING_NAMES.find((setting) => setting.toLowerCase() === name.replaceAll('-', '').toLowerCase());
    if (known === undefined) {
      const near = nearest(name, SETTING_NAMES);
      throw new TwinvolError('USAGE', `"${assignment}" sets nothing`, {
        remedy: `${near === null ? '' : `did you mean ${near}? `}give NAME=VALUE with one of: ${SETTING_NAMES.join(', ')}`,
      });
    }
    changes[known] = settingValue(SETTINGS_DEFAULT[known], value);
  }
  return changes;
};

const CLIENT_COLUMNS: readonly Column<ClientView>[] = [
  { heading: 'ID', align: 'right', text: ({ id }) => String(id) },
  { heading: 'VOLUME', text: ({ volume }) => volume?.name ?? '' },
  { heading: 'PEER', text: ({ peer }) => peer },
  { heading: 'OVER', text: ({ transport }) => transport },
  { heading: 'PHASE', text: ({ phase }) => phase },
  { heading: 'ACCESS', text: ({ readOnly }) => (readOnly ? 'ro' : 'rw') },
  { heading: 'HOST', isOptional: true, text: ({ host }) => host ?? '' },
  { heading: 'READ', align: 'right', text: ({ readBytes }) => formatSize(readBytes) },
  { heading: 'WRITTEN', align: 'right', text: ({ writtenBytes }) => formatSize(writtenBytes) },
  { heading: 'REQUESTS', align: 'right', text: ({ requests }) => String(requests) },
  { heading: 'SINCE', text: ({ connectedAtMs }) => formatMoment(connectedAtMs) },
];

export const registerStatus = (program: Command, context: CommandContext): void => {
  addCommand(program, 'status', 'the device: store, sockets, counts, what is native, durability', ['status', 'status --json']).action(
    async () => {
      const status = await context.call('device.status', {});
      context.print(status, () => textFields(statusFields(status, context.io.nowMs()), context.paint));
    },
  );
};

export const registerSettings = (program: Command, context: CommandContext): void => {
  const settings = addGroup(program, 'settings', "the device's settings");
  const show = async (): Promise<void> => {
    const shown = await context.call('settings.show', {});
    context.print(shown, () => settingsText(shown, context));
  };
  settings.action(show);
  addCommand(settings, 'show', 'all settings', ['settings show']).action(show);
  withPlan(
    addCommand(settings, 'set', 'change settings; they hold from then on and survive a restart', [
      'settings set condition=same fit=regions',
      'settings set exportsFollowGrants=on',
    ]),
  )
    .argument('<NAME=VALUE...>', `one or more of: ${SETTING_NAMES.join(', ')}`)
    .action(async (assignments: readonly string[], plan: { plan?: boolean }) => {
      const changed = await context.call('settings.set', { ...settingsOf(assignments), ...plan });
      context.print(changed, () => (isPlan(changed) ? planText(changed, context.paint) : settingsText(changed, context)));
    });
};

export const registerClient = (program: Command, context: CommandContext): void => {
  const client = addGroup(program, 'client', 'NBD connections: list and end them');
  addCommand(client, 'list', 'the NBD connections', ['client list', 'client list --json']).action(async () => {
    const clients = await context.call('client.list', {});
    context.print(clients, () => textTable(clients, CLIENT_COLUMNS, context.paint, 'no NBD connections'));
  });
  addCommand(client, 'end', 'end an NBD connection', ['client end 12'])
    .argument('<ID>', 'its number in client list', numberArgument('connection number', 0, 2 ** 31))
    .action(async (id: number) => {
      const ended = await context.call('client.end', { id });
      context.print(ended, () => `connection ${ended.id}${ended.volume === null ? '' : ` to ${ended.volume.name}`} ended`);
    });
};

export const registerExplain = (program: Command, context: CommandContext): void => {
  addCommand(program, 'explain', 'what an error code means, and what to do', ['explain PAIR_STATE', 'explain'])
    .argument('[CODE]', 'the code of an error; left out: all of them')
    .action((typed: string | undefined) => {
      const codes = Object.keys(FAULTS) as FaultCode[];
      const wanted = typed?.toUpperCase();
      if (wanted !== undefined && !codes.includes(wanted as FaultCode)) {
        const near = nearest(wanted, codes);
        throw new TwinvolError('USAGE', `there is no error code ${wanted}`, near === null ? {} : { remedy: `did you mean ${near}?` });
      }
      const shown = codes.filter((code) => wanted === undefined || code === wanted).map((code) => ({ code, ...FAULTS[code] }));
      const columns: readonly Column<(typeof shown)[number]>[] = [
        { heading: 'CODE', text: ({ code }) => code },
        { heading: 'EXIT', align: 'right', text: ({ exit }) => String(exit) },
        { heading: 'MEANING', text: ({ means }) => means },
      ];
      const one = shown[0];
      context.print(wanted === undefined ? shown : one, () => {
        if (wanted === undefined || one === undefined) return textTable(shown, columns, context.paint, '');
        return textFields(
          [
            ['code', one.code],
            ['meaning', one.means],
            ['remedy', one.remedy],
            ['exit status', String(one.exit)],
          ],
          context.paint,
        );
      });
    });
};
