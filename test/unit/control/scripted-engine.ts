/**
 * An engine that does what a test scripts: a method that was not scripted fails loudly. With it the control socket and
 * the command line are tested for what they do themselves; the real engine runs under them in test/scenario.
 */
import type { ClientView, PairView, StatusView, VolumeView } from '../../../src/core/views.ts';
import type { Engine } from '../../../src/engine/api.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { GiB, MiB } from '../../../src/core/units.ts';

export const scriptedEngine = (script: Partial<Engine>): Engine => {
  return new Proxy({} as Engine, {
    get: (_target, name) => {
      const scripted = script[name as keyof Engine];
      if (scripted !== undefined) return scripted.bind(script);
      return () => {
        throw new Error(`engine.${String(name)} is not scripted in this test`);
      };
    },
  });
};

const CREATED_AT_MS = Date.UTC(2024, 4, 1, 12);

export const volumeView = (number: number, name: string, change: Partial<VolumeView> = {}): VolumeView => ({
  number,
  name,
  capacityBytes: 10 * GiB,
  attribute: 'normal',
  paired: false,
  role: null,
  inUse: 'invalid',
  protected: false,
  formerCapacityBytes: null,
  regions: 10_240,
  runs: [{ pv: 1, start: 0, count: 10_240 }],
  uuid: `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`,
  createdAtMs: CREATED_AT_MS,
  clients: 0,
  uri: `nbd+unix:///${name}?socket=/run/nbd.sock`,
  ...change,
});

export const pairView = (change: Partial<PairView> = {}): PairView => ({
  id: 1,
  primary: { number: 1, name: 'db' },
  secondary: { number: 2, name: 'db-copy' },
  state: 'duplex',
  copy: null,
  copyPointer: { region: 160, regions: 160, percent: 100 },
  dirtyRegionBytes: 65_536,
  dirtyBytes: { primary: 0, secondary: 0, union: 0 },
  copiedBytes: 10 * MiB,
  skippedBytes: 0,
  verify: null,
  rateBytesPerSecond: null,
  etaMs: null,
  fence: 'never',
  pace: 8,
  reason: null,
  group: null,
  scheduledSplit: null,
  createdAtMs: CREATED_AT_MS,
  stateSinceMs: CREATED_AT_MS,
  ...change,
});

export const clientView = (id: number, change: Partial<ClientView> = {}): ClientView => ({
  id,
  volume: { number: 1, name: 'db' },
  peer: 'unix',
  transport: 'unix',
  phase: 'transmission',
  readOnly: false,
  host: null,
  ref: null,
  lane: 0,
  connectedAtMs: CREATED_AT_MS,
  readBytes: 4096,
  writtenBytes: 3 * MiB,
  requests: 12,
  ...change,
});

export const statusView = (change: Partial<StatusView> = {}): StatusView => ({
  version: '0.1.0',
  pid: 4711,
  store: {
    directory: '/srv/store',
    gone: false,
    uuid: '00000000-0000-4000-8000-000000000000',
    formatVersion: 1,
    regionBytes: MiB,
    physicalVolumes: 1,
    regions: { total: 65_536, unassigned: 65_000, scrubbing: 0 },
  },
  sockets: { control: '/srv/store/control.sock', nbd: ['nbd+unix:///?socket=/srv/store/nbd.sock'] },
  startedAtMs: CREATED_AT_MS,
  volumes: 2,
  pairs: { simplex: 0, 'duplex-pending': 0, duplex: 1, split: 0, suspended: 0 },
  scheduledSplits: { pending: 0, failed: 0, nextAtMs: null },
  clients: 1,
  lanes: { count: 2, handover: 'descriptor' },
  native: { fsExt: true, fileLock: 'flock', holeSeek: 'lseek', spaceReclaim: 'fallocate', weaker: [] },
  durability: { level: 'power', resyncBoundBytes: 64 * MiB, lastRecoveryBytes: 0, wasCleanShutdown: true },
  settings: SETTINGS_DEFAULT,
  memory: { rssBytes: 80 * MiB },
  ...change,
});
