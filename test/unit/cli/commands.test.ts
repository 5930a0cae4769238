/** Commands: what they send to the engine, and what they print for people and for programs. */
import { describe, expect, it } from 'vitest';
import { EventLog } from '../../../src/core/event-log.ts';
import { TwinvolError } from '../../../src/core/faults.ts';
import { SETTINGS_DEFAULT } from '../../../src/core/rows.ts';
import { GiB, MiB } from '../../../src/core/units.ts';
import type { PlanView } from '../../../src/core/views.ts';
import type { FaultRule } from '../../../src/engine/api.ts';
import { clientView, pairView, statusView, volumeView } from '../control/scripted-engine.ts';
import { device } from './command-line.ts';

const PLAN: PlanView = {
  command: 'pair create',
  plan: true,
  steps: ['form pair db -> db-copy', 'copy 3 GiB'],
  volumes: ['db', 'db-copy'],
  hosts: [],
  regions: 12,
  moves: [],
  bytes: 3 * GiB,
  destroysBytes: MiB,
  destroys: [{ volumeName: 'db-copy', regions: 16, bytes: MiB, firstAtMs: null, lastAtMs: null, since: 'since the split' }],
};
const FAULT: FaultRule = {
  id: 3,
  volume: 1,
  error: 'write',
  errno: 'EIO',
  offset: MiB,
  length: MiB,
  rate: 0.5,
  latencyMs: 0,
  count: 1,
  seed: 7,
  hits: 0,
  expired: false,
};

/** Goes with every command that may ask: who gave it, for the audit record. */
const consent = { by: 'op' };

/** A method that keeps what it was called with. */
const recorder = <Result>(result: Result): { calls: unknown[]; method: (input?: unknown) => Promise<Result> } => {
  const calls: unknown[] = [];
  return {
    calls,
    method: async (input) => {
      calls.push(input);
      return result;
    },
  };
};

describe('volume', () => {
  it('prints a list with aligned columns, and says so when there is none', async () => {
    const volumes = [
      volumeView(1, 'db'),
      volumeView(12, 'db-copy', { attribute: 'secondary', inUse: 'in-use', role: 'secondary', clients: 3 }),
    ];
    const { line } = await device({ volumeList: () => volumes });
    expect((await line('volume list')).out).toBe(
      [
        'NUMBER  NAME       SIZE  ATTRIBUTE  IN-USE   ROLE       CLIENTS',
        '     1  db       10 GiB  normal     invalid  -                0',
        '    12  db-copy  10 GiB  secondary  in-use   secondary        3',
        '',
      ].join('\n'),
    );
    expect(JSON.parse((await line('volume list --json')).out)).toEqual(volumes);
    const empty = await device({ volumeList: () => [] });
    expect((await empty.line('volume list')).out).toContain('no volumes');
    expect((await empty.line('--json volume list')).out).toBe('[]\n');
  });

  it('shows one by name or number, escaping what could move the cursor', async () => {
    const { line } = await device({ volumeShow: (ref) => volumeView(7, `v\u001b[2J${ref}`, { formerCapacityBytes: 20 * GiB }) });
    const shown = await line('volume show 7');
    expect(shown.out).toContain('former size  20 GiB');
    expect(shown.out).not.toContain('\u001b');
    expect(JSON.parse((await line('volume show 7 --json')).out)).toMatchObject({ number: 7, name: 'v\u001b[2J7' });
    expect(JSON.parse((await line('volume show db --json')).out).name).toContain('db');
  });

  it('sends sizes in bytes and numbers as numbers', async () => {
    const create = recorder(volumeView(1, 'db'));
    const grow = recorder(volumeView(1, 'db', { capacityBytes: 20 * GiB }));
    const set = recorder(volumeView(1, 'db', { attribute: 'secondary' }));
    const rename = recorder(volumeView(1, 'new'));
    const { line } = await device({
      volumeCreate: create.method,
      volumeGrow: grow.method,
      volumeSet: set.method,
      volumeRename: rename.method,
    });
    expect((await line('volume create db --size 1.5G --attribute secondary')).exit).toBe(0);
    expect(create.calls).toEqual([{ name: 'db', sizeBytes: 1.5 * GiB, attribute: 'secondary' }]);
    expect((await line('volume grow 1 --size 20G')).out).toBe('volume db is now 20 GiB\n');
    expect((await line('volume grow db 20G')).exit).toBe(0);
    expect(grow.calls).toEqual([
      { volume: 1, sizeBytes: 20 * GiB },
      { volume: 'db', sizeBytes: 20 * GiB },
    ]);
    await line('volume set db --attribute secondary');
    await line('volume protect db');
    expect(set.calls).toEqual([
      { volume: 'db', attribute: 'secondary', consent },
      { volume: 'db', protected: true, consent },
    ]);
    expect((await line('volume rename db new')).out).toBe('volume 1 is now called new\n');
    expect(await line('volume set db')).toMatchObject({ exit: 64 });
    expect(await line('volume grow db')).toMatchObject({ exit: 64 });
  });

  it('asks before a deletion on a terminal, and not in scripts or with --yes', async () => {
    const remove = recorder(volumeView(1, 'db'));
    const { line } = await device({ volumeDelete: remove.method, volumeShow: () => volumeView(1, 'db') });
    const no = await line('volume delete db', { answers: [''] });
    expect(no).toMatchObject({ exit: 10, asked: ['delete volume db (10 GiB) and its data? [y/N] '] });
    expect(no.err).toContain('volume db was not deleted [NOT_CONFIRMED]');
    expect(remove.calls).toEqual([]);
    expect((await line('volume delete db', { answers: ['y'] })).out).toBe('volume db deleted\n');
    expect(await line('volume delete db --yes', { answers: [] })).toMatchObject({ exit: 0, asked: [] });
    expect(await line('volume delete db')).toMatchObject({ exit: 0, asked: [] });
    expect(remove.calls).toHaveLength(3);
  });

  it('prints the URI', async () => {
    const { line } = await device({ uri: () => 'nbd+unix:///db?socket=/s' });
    expect((await line('uri db')).out).toBe('nbd+unix:///db?socket=/s\n');
    expect(JSON.parse((await line('uri db --json')).out)).toEqual({ uri: 'nbd+unix:///db?socket=/s' });
  });
});

describe('pair', () => {
  it('shows state, progress and what differs', async () => {
    const copying = pairView({
      state: 'duplex-pending',
      copy: 'resync',
      copyPointer: { region: 16, regions: 160, percent: 10 },
      rateBytesPerSecond: 100 * MiB,
      etaMs: 61_000,
      dirtyBytes: { primary: MiB, secondary: MiB, union: 2 * MiB },
    });
    const { line } = await device({
      pairStatus: () => [copying, pairView({ id: 2, state: 'suspended', reason: 'secondary-error: ENOSPC' })],
    });
    expect((await line('pair status')).out).toBe(
      [
        'PRIMARY  SECONDARY  STATE                    COPIED  DIRTY       RATE   ETA  PACE  FENCE  REASON',
        'db       db-copy    duplex-pending (resync)   10.0%  2 MiB  100 MiB/s  1:01     8  never  -',
        'db       db-copy    suspended                100.0%    0 B          -     -     8  never  secondary-error: ENOSPC',
        '',
      ].join('\n'),
    );
    const json = JSON.parse((await line('pair status db --json')).out);
    expect(json[0]).toEqual(copying);
  });

  it('colours states on a terminal only, and not with NO_COLOR', async () => {
    const { line } = await device({ pairStatus: () => [pairView()] });
    expect((await line('pair status', { isTerminal: true })).out).toContain('\u001b[32mduplex');
    expect((await line('pair status', { isTerminal: true, env: { NO_COLOR: '1' } })).out).not.toContain('\u001b');
    expect((await line('pair status')).out).not.toContain('\u001b');
  });

  it('creates with what was given and nothing else', async () => {
    const create = recorder(pairView({ state: 'duplex-pending', copy: 'initial' }));
    const { line } = await device({ pairCreate: create.method });
    expect((await line('pair create db')).out).toBe('pair db -> db-copy formed, now duplex-pending\n');
    await line('pair create 1 2 --condition same --fit regions --pace fast --fence data --dirty-region-size 4K');
    expect(create.calls).toEqual([
      { primary: 'db', consent },
      { primary: 1, secondary: 2, condition: 'same', fit: 'regions', pace: 15, fence: 'data', dirtyRegionBytes: 4096, consent },
    ]);
  });

  it('prints a plan, and changes nothing', async () => {
    const create = recorder(PLAN);
    const { line } = await device({ pairCreate: create.method });
    const { out } = await line('pair create db --plan --wait');
    expect(create.calls).toEqual([{ primary: 'db', plan: true, consent }]);
    expect(out).toBe(
      [
        'plan of pair create',
        'would     form pair db -> db-copy',
        '          copy 3 GiB',
        'volumes   db, db-copy',
        'regions   12',
        'bytes     3 GiB',
        'destroys  what was written on db-copy since the split: 1 MiB in 16 regions',
        'nothing was changed',
        '',
      ].join('\n'),
    );
    expect(JSON.parse((await line('pair create db --plan --json')).out)).toEqual(PLAN);
  });

  it('waits for the end of the copy: a bar on a terminal, plain lines elsewhere, nothing with --json', async () => {
    const pending = pairView({
      state: 'duplex-pending',
      copy: 'initial',
      copyPointer: { region: 80, regions: 160, percent: 50 },
      rateBytesPerSecond: 1.5 * GiB,
      etaMs: 2000,
    });
    const wait = async (): Promise<ReturnType<typeof pairView>> => {
      await new Promise((resolve) => setTimeout(resolve, 60));
      return pairView();
    };
    const { line } = await device({ pairCreate: async () => pending, pairStatus: () => [pending], pairWait: wait });
    const bar = await line('pair create db --wait', { isTerminal: true });
    expect(bar.out).toBe('pair db -> db-copy is duplex\n');
    expect(bar.err).toContain('copying db -> db-copy [============>           ] 50.0 %  1.5 GiB/s  ETA 0:02');
    expect(bar.err.endsWith('\r\u001b[K')).toBe(true);
    const plain = await line('pair create db --wait');
    expect(plain.err).toBe('pair db -> db-copy formed\ncopying db -> db-copy 50.0 %  1.5 GiB/s  ETA 0:02\n');
    const json = await line('pair create db --wait --json', { isTerminal: true });
    expect(json.err).toBe('');
    expect(JSON.parse(json.out)).toMatchObject({ state: 'duplex' });
  });

  it('waits with a deadline: 1 when it is over, 2 when the state cannot come', async () => {
    const inputs: unknown[] = [];
    const { line } = await device({
      pairStatus: () => [],
      pairWait: async (input) => {
        inputs.push(input);
        if (input.state === 'simplex') return null;
        throw new TwinvolError(input.state === 'duplex' ? 'TIMEOUT' : 'WAIT_IMPOSSIBLE', 'no');
      },
    });
    expect(await line('pair wait db --state duplex --timeout 1.5s')).toMatchObject({ exit: 1, out: '' });
    expect(await line('pair wait db 2 --state split')).toMatchObject({ exit: 2 });
    expect(await line('pair wait db --state simplex')).toMatchObject({ exit: 0, out: 'volume db is simplex\n' });
    expect((await line('pair wait db --state simplex --json')).out).toBe('null\n');
    expect(inputs[0]).toEqual({ primary: 'db', state: 'duplex', timeoutMs: 1500 });
    expect(inputs[1]).toMatchObject({ secondary: 2, timeoutMs: 2 ** 31 - 1 });
  });

  it('splits, releases, sets and verifies', async () => {
    const split = recorder(pairView({ state: 'split' }));
    const release = recorder({ released: pairView() });
    const set = recorder(pairView({ pace: 3 }));
    const verify = recorder({
      checkedBytes: GiB,
      differingBytes: 4096,
      differing: [{ offset: 8192, length: 4096 }],
      dirtyBytes: 65_536,
      durationMs: 1200,
      repaired: false,
    });
    const groupSplit = recorder([pairView({ state: 'split' })]);
    const { line } = await device({
      pairSplit: split.method,
      pairRelease: release.method,
      pairSet: set.method,
      pairVerify: verify.method,
      groupSplit: groupSplit.method,
    });
    expect((await line('pair split db')).out).toBe('pair db -> db-copy split\n');
    expect((await line('pair split --group nightly')).out).toBe('group nightly: 1 pair split at one point in time\n');
    expect(await line('pair split')).toMatchObject({ exit: 64 });
    expect(await line('pair split db --group x')).toMatchObject({ exit: 64 });
    expect((await line('pair release db --then normal')).out).toBe('pair db -> db-copy released\n');
    expect(release.calls).toEqual([{ primary: 'db', then: 'normal', consent }]);
    expect((await line('pair set db --pace slow')).out).toBe('pair db -> db-copy: pace 3, fence never\n');
    const verified = await line('pair verify db');
    expect(verified.exit).toBe(3);
    expect(verified.out).toBe(
      'pair of db: 4 KiB differ, 1 GiB compared in 0:02; 64 KiB are dirty and were not judged\n  at 8192, 4096 bytes\nnothing was changed; --repair makes them equal\n',
    );
    expect((await line('pair verify db --repair')).out).toBe(
      'pair of db: 4 KiB differ, 1 GiB compared in 0:02\n  at 8192, 4096 bytes\nmarked dirty; the next resync copies them\n',
    );
  });

  it('lets the operator choose a secondary with the arrow keys', async () => {
    const create = recorder(pairView());
    const candidate = (number: number) =>
      ({ number, name: `spare${number}`, capacityBytes: GiB, fit: 'same', candidate: true, reason: null }) as const;
    const { line } = await device({
      pairCreate: create.method,
      poolCandidates: () => [candidate(4), candidate(5), candidate(6)],
    });
    expect(await line('pair create db --choose', { keys: ['down', 'down', 'down', 'up', 'enter'] })).toMatchObject({ exit: 0 });
    expect(create.calls).toEqual([{ primary: 'db', secondary: 5, consent }]);
    expect(await line('pair create db --choose', { keys: ['down', 'cancel'] })).toMatchObject({ exit: 10 });
    expect(await line('pair create db --choose')).toMatchObject({ exit: 64 });
    expect(create.calls).toHaveLength(1);
  });
});

describe('pool, group, fault, client, settings, status, events', () => {
  it('lists candidates and the reasons of the others', async () => {
    const { line } = await device({
      poolCandidates: ({ explain }) => [
        { number: 2, name: 'spare', capacityBytes: GiB, fit: 'same', candidate: true, reason: null },
        ...(explain === true
          ? [{ number: 1, name: 'db', capacityBytes: GiB, fit: 'none', candidate: false, reason: 'it is the primary' } as const]
          : []),
      ],
    });
    expect((await line('pool candidates db')).out).toBe('NUMBER  NAME    SIZE  FIT\n     2  spare  1 GiB  same\n');
    expect((await line('pool candidates db --explain')).out).toContain('     1  db     1 GiB  none  no         it is the primary');
  });

  it('shows groups with their pairs', async () => {
    const { line } = await device({
      groupList: () => [{ name: 'nightly', pairs: [1] }],
      pairStatus: () => [pairView()],
      groupRemove: async () => null,
      groupAdd: async ({ name }) => ({ name, pairs: [1, 2] }),
    });
    expect((await line('group show')).out).toBe('GROUP    PAIRS  STATES  MEMBERS\nnightly      1  duplex  db -> db-copy\n');
    expect((await line('group show nightly')).out).toContain('db-copy');
    expect(await line('group show monthly')).toMatchObject({ exit: 10 });
    expect((await line('group remove nightly')).out).toBe('group nightly removed\n');
    expect((await line('group add nightly db')).out).toBe('group nightly has 2 pairs\n');
  });

  it('adds, lists and clears faults', async () => {
    const add = recorder(FAULT);
    const clear = recorder(2);
    const { line } = await device({ faultAdd: add.method, faultList: () => [FAULT], faultClear: clear.method });
    await line('fault add db --error write --range 1M-2M --rate 50% --once --seed 7');
    await line('fault add db --latency 20ms');
    await line('fault add db --error any --errno enospc --range 1M- --count 3');
    expect(add.calls).toEqual([
      { volume: 'db', error: 'write', errno: 'EIO', offset: MiB, length: MiB, rate: 0.5, count: 1, seed: 7 },
      { volume: 'db', error: 'any', errno: 'none', latencyMs: 20 },
      { volume: 'db', error: 'any', errno: 'ENOSPC', offset: MiB, count: 3 },
    ]);
    expect((await line('fault list')).out).toContain(' 3       1  write    EIO    1 MiB + 1 MiB   50%     1     7     0');
    expect(await line('fault add db')).toMatchObject({ exit: 64 });
    expect(await line('fault clear')).toMatchObject({ exit: 64 });
    expect((await line('fault clear --all')).out).toBe('2 faults cleared\n');
    expect((await line('fault clear db')).exit).toBe(0);
    expect(clear.calls).toEqual([{}, { volume: 'db' }]);
  });

  it('lists and ends connections', async () => {
    const { line } = await device({ clientList: async () => [clientView(4)], clientEnd: async ({ id }) => clientView(id) });
    expect((await line('client list')).out).toMatch(/^ID {2}VOLUME .*\n 4 {2}db .*rw {6}4 KiB {4}3 MiB/);
    expect((await line('client end 4')).out).toBe('connection 4 to db ended\n');
    expect(await line('client end four')).toMatchObject({ exit: 64 });
  });

  it('shows the status and changes settings', async () => {
    const set = recorder({ ...SETTINGS_DEFAULT, fit: 'regions' as const });
    const { line } = await device({
      status: () =>
        statusView({
          native: {
            fsExt: false,
            fileLock: 'lock file',
            holeSeek: 'zero check',
            spaceReclaim: 'none',
            weaker: ['holes are found by reading'],
          },
        }),
      settings: () => SETTINGS_DEFAULT,
      settingsSet: set.method,
    });
    const { out } = await line('status');
    expect(out).toContain('twinvol     0.1.0, process 4711, up 1:00:00');
    expect(out).toContain('holes are found by reading');
    expect(JSON.parse((await line('status --json')).out)).toMatchObject({ pid: 4711 });
    expect((await line('settings')).out).toMatch(/^condition +any$/m);
    expect((await line('settings set fit=regions exports-follow-grants=on')).out).toMatch(/^fit +regions$/m);
    expect((await line('settings set inquiry-deadline-ms=1500')).exit).toBe(0);
    expect((await line('settings set inquiryDeadlineMs=soon')).exit).toBe(64);
    expect(set.calls).toEqual([{ fit: 'regions', exportsFollowGrants: true }, { inquiryDeadlineMs: 1500 }]);
    expect(await line('settings set fits=regions')).toMatchObject({ exit: 64, err: expect.stringContaining('did you mean fit?') });
    expect(await line('settings set fit=snug')).toMatchObject({ exit: 64 });
  });

  it('prints events, one JSON document a line with --json, until it is interrupted', async () => {
    const log = new EventLog(() => 5000);
    const exists = () => [{ object: 'device', id: 'd', data: { volumes: 1 } } as const];
    const { line } = await device({ events: (options) => log.subscribe({ ...options, exists }) });
    expect((await line('events')).out).toMatch(/ 4999 exists {2}device d volumes=1\n$/);
    const controller = new AbortController();
    const following = line('events --follow --json', { interrupted: controller.signal });
    await expect.poll(() => log.readers).toBe(1);
    log.append('change', 'volume', 3, { name: 'x' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    controller.abort();
    const { out, exit } = await following;
    expect(exit).toBe(0);
    expect(
      out
        .trimEnd()
        .split('\n')
        .map((text) => JSON.parse(text)),
    ).toMatchObject([{ kind: 'exists' }, { seq: 5000, kind: 'change', data: { name: 'x' } }]);
    expect(await line('events --since 17')).toMatchObject({ exit: 3, err: expect.stringContaining('EVENTS_GONE') });
  });
});
