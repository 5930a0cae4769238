/** Micro-benchmarks of what happens for each command: allocator, journal, event log, the inquiry's verdict. */
import { UnassignedRegions } from '../../src/core/allocator.ts';
import { EventLog } from '../../src/core/event-log.ts';
import { verdictOf, type VerdictInput } from '../../src/core/inquiry.ts';
import type { HostAnswer } from '../../src/core/mount-facts.ts';
import { SETTINGS_DEFAULT, type TableOp } from '../../src/core/rows.ts';
import { GiB, MiB } from '../../src/core/units.ts';
import { encodePayload } from '../../src/store/journal-scan.ts';
import { MetadataLog } from '../../src/store/metadata-log.ts';
import { encodeFrame } from '../../src/wire/store-records.ts';
import { MemoryFiles } from './memory-files.ts';
import type { MicroCase } from './micro-case.ts';

const REGIONS = 1_000_000;

const allocatorCase = (name: string, step: number): MicroCase => ({
  name,
  version: 1,
  operations: 100,
  prepare: () => {
    const table = new UnassignedRegions();
    table.addPv(0, REGIONS);
    // Every second run of `step` regions is in use.
    for (let start = 0; start + step <= REGIONS; start += 2 * step) table.take([{ pv: 0, start, count: step }]);
    const free = table.freeRegions;
    return () => {
      for (let turn = 0; turn < 100; turn += 1) {
        const runs = table.allocate(10);
        if (runs === null) throw new Error('no regions');
        table.give(runs);
      }
      if (table.freeRegions !== free) throw new Error('regions were lost');
    };
  },
});

const volumeOp: TableOp = {
  op: 'volume-put',
  row: {
    number: 17,
    name: 'database-17',
    capacityBytes: 100 * GiB,
    attribute: 'normal',
    runs: Array.from({ length: 20 }, (_, index) => ({ pv: index % 3, start: index * 9000, count: 5120 })),
    isProtected: false,
    uuid: '6d1c7f3e-9a64-4a7e-9a3b-1f0f6f0b5c11',
    createdAtMs: 1_700_000_000_000,
  },
};

const encodeCase: MicroCase = {
  name: 'journal record of a volume in 20 runs, encode',
  version: 1,
  operations: 100,
  prepare: () => () => {
    for (let sequence = 1; sequence <= 100; sequence += 1) {
      const frame = encodeFrame(sequence, 1, encodePayload([JSON.stringify([volumeOp])], null));
      if (frame.length < 500) throw new Error('the record is too short');
    }
  },
};

const appendCase: MicroCase = {
  name: 'journal append, one change after another, without the disk',
  version: 1,
  operations: 20,
  prepare: async () => {
    const files = new MemoryFiles();
    await MetadataLog.create(files, '/bench', { uuid: volumeOp.row.uuid, regionBytes: 1 * MiB, pvBytes: 64 * GiB });
    const log = await MetadataLog.start(files, '/bench', await MetadataLog.read(files, '/bench'));
    return async () => {
      for (let turn = 0; turn < 20; turn += 1) await log.commit([{ op: 'settings-put', settings: SETTINGS_DEFAULT }]);
    };
  },
};

const eventCase: MicroCase = {
  name: 'event log, append',
  version: 1,
  operations: 1000,
  prepare: () => {
    let nowMs = 1_700_000_000_000;
    const log = new EventLog(() => (nowMs += 1));
    return () => {
      for (let index = 0; index < 1000; index += 1) log.append('change', 'pair', 5, { state: 'duplex', percent: index });
    };
  },
};

const VERDICT_HOSTS = 200;

const verdictInput = (): VerdictInput => {
  const hosts = Array.from({ length: VERDICT_HOSTS }, (_, index) => `host-${index}.example`);
  const answers = hosts.map((host, index): HostAnswer => {
    if (index % 10 === 9) return { host, volume: 1, outcome: 'no-answer', reason: 'deadline', text: 'no answer in 5 s' };
    if (index % 4 !== 0) return { host, volume: 1, outcome: 'answered', afterMs: 12, facts: [{ kind: 'not-mounted' }] };
    return {
      host,
      volume: 1,
      outcome: 'answered',
      afterMs: 12,
      facts: [
        {
          kind: 'mounted',
          device: '/dev/nbd0',
          mountPoint: `/srv/${index}`,
          fileSystem: 'ext4',
          access: 'rw',
          layers: [{ kind: 'nbd', name: '/dev/nbd0' }],
          namespace: null,
          connections: [`tcp:10.0.0.${index}:40000`],
        },
      ],
    };
  });
  return {
    targets: [{ volume: 1, name: 'db', uris: ['nbd://storage/db'] }],
    asked: hosts.map((host) => ({ host, volumes: [1] })),
    answers,
    connections: hosts.map((host, index) => ({
      id: index,
      volume: 1,
      host,
      peer: `10.0.0.${index}:40000`,
      refs: [`tcp:10.0.0.${index}:40000`],
    })),
  };
};

const verdictCase: MicroCase = {
  name: 'inquiry verdict of 200 hosts',
  version: 1,
  operations: 1,
  prepare: () => {
    const input = verdictInput();
    return () => {
      if (verdictOf(input).findings.length < VERDICT_HOSTS / 4) throw new Error('findings are missing');
    };
  },
};

export const CONTROL_CASES: readonly MicroCase[] = [
  allocatorCase('allocator, a million regions in 500,000 free runs', 1),
  allocatorCase('allocator, a million regions in 5,000 free runs', 100),
  encodeCase,
  appendCase,
  eventCase,
  verdictCase,
];
