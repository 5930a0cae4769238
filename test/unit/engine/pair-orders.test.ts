/**
 * In which order the engine journals and switches, and what it takes back when a step fails: driven by a data plane
 * that moves no data (`scripted-plane.ts`) on a real store.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TwinvolError } from '../../../src/core/faults.ts';
import { MiB } from '../../../src/core/units.ts';
import type { ClientView } from '../../../src/core/views.ts';
import type { DeviceEngine } from '../../../src/engine/device.ts';
import { openEngine } from '../../../src/engine/open-engine.ts';
import { initStore } from '../../../src/store/init.ts';
import { ScriptedPlane } from '../../support/scripted-plane.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

let temporary: TemporaryDirectory;
let plane: ScriptedPlane;
let engine: DeviceEngine;

const start = async (): Promise<void> => {
  plane = new ScriptedPlane();
  engine = await openEngine({ store: temporary.path('store'), openPlane: plane.open });
};
const restart = async (): Promise<void> => {
  await engine.close();
  await start();
};
/** What the engine asked for during `work`; not that the clearing of freed regions, which goes on beside it, has ended. */
const callsOf = async (work: () => Promise<unknown>): Promise<string[]> => {
  plane.calls.length = 0;
  await work();
  return plane.calls.filter((call) => call !== 'commit scrub-delete');
};
/** Nothing was asked of the data plane for a while: what had begun has ended, also on a busy machine. */
const settled = async (): Promise<void> => {
  for (let seen = -1; seen !== plane.calls.length; ) {
    seen = plane.calls.length;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
};
const state = () => engine.pairStatus({ primary: 'db' })[0];
const copyDone = async (): Promise<void> => {
  plane.emit('copyDone', { pair: state()?.id ?? 0 });
  await settled();
};
const duplex = async (): Promise<void> => {
  await engine.pairCreate({ primary: 'db' });
  await copyDone();
};
const full = new TwinvolError('STORE_FULL', 'no space');
const client = (id: number, volume: number): ClientView => ({
  id,
  volume: { number: volume, name: `v${volume}` },
  peer: 'unix',
  transport: 'unix',
  phase: 'transmission',
  readOnly: false,
  host: null,
  ref: null,
  lane: 0,
  connectedAtMs: 0,
  readBytes: 0,
  writtenBytes: 0,
  requests: 0,
});

beforeEach(async () => {
  temporary = await temporaryDirectory();
  await initStore(temporary.path('store'), { pvBytes: 64 * MiB });
  await start();
  await engine.volumeCreate({ name: 'db', sizeBytes: 8 * MiB });
  await engine.volumeCreate({ name: 'copy', sizeBytes: 8 * MiB, attribute: 'secondary' });
});
afterEach(async () => {
  await engine.close();
  await temporary[Symbol.asyncDispose]();
});

describe('a command that goes well', () => {
  it('create: bits all dirty before the record, connections end and the copy starts after it', async () => {
    expect(await callsOf(() => engine.pairCreate({ primary: 'db' }))).toEqual([
      'hold 2',
      'clients',
      'attach 1 fresh',
      'switch 1 copying/all',
      'commit pair-put:duplex-pending',
      'end-clients 2',
      'copy-start 1',
      'unhold 2',
    ]);
  });

  it('create with fitting: the new region map before the files, one record for all of it', async () => {
    await engine.volumeDelete({ volume: 'copy' });
    await engine.volumeCreate({ name: 'big', sizeBytes: 20 * MiB, attribute: 'secondary' });
    await settled();
    expect((await callsOf(() => engine.pairCreate({ primary: 'db', fit: 'regions' }))).slice(0, 9)).toEqual([
      'hold 2',
      'clients',
      `replace 2 ${8 * MiB}`,
      'attach 1 fresh',
      'switch 1 copying/all',
      `commit volume-put:big:${8 * MiB} scrub-put pair-put:duplex-pending`,
      'end-clients 2',
      'copy-start 1',
      'unhold 2',
    ]);
  });

  it('split, resync, restore and release', async () => {
    await duplex();
    expect(await callsOf(() => engine.pairSplit({ primary: 'db' }))).toEqual([
      'switch 1 tracking/clear',
      'flush 2',
      'commit pair-put:split',
    ]);
    expect(await callsOf(() => engine.pairResync({ primary: 'db', pace: 3 }))).toEqual([
      'hold 2',
      'clients',
      'commit pair-put:duplex-pending',
      'configure 1 3 false',
      'end-clients 2',
      'switch 1 copying/merge',
      'copy-start 1',
      'unhold 2',
    ]);
    expect(await callsOf(copyDone)).toEqual(['switch 1 mirroring/keep', 'commit pair-put:duplex']);
    await engine.pairSplit({ primary: 'db' });
    expect(await callsOf(() => engine.pairRestore({ primary: 'db' }))).toEqual([
      'hold 1',
      'hold 2',
      'clients',
      'commit pair-put:duplex-pending',
      'configure 1 3 false',
      'end-clients 1',
      'end-clients 2',
      'switch 1 restoring/merge',
      'copy-start 1',
      'unhold 1',
      'unhold 2',
    ]);
    // The primary's hosts read the secondary's image up to here: they are gone before another one shows.
    expect(await callsOf(() => engine.pairRelease({ primary: 'db' }))).toEqual([
      'hold 1',
      'hold 2',
      'clients',
      'end-clients 1',
      'copy-stop 1',
      'switch 1 tracking/keep',
      'flush 2',
      `commit volume-put:copy:${8 * MiB} pair-delete`,
      'detach 1',
      'unhold 1',
      'unhold 2',
    ]);
  });

  it('release of a duplex pair', async () => {
    await duplex();
    expect(await callsOf(() => engine.pairRelease({ primary: 'db', then: 'normal' }))).toEqual([
      'copy-stop 1',
      'switch 1 tracking/keep',
      'flush 2',
      `commit volume-put:copy:${8 * MiB} pair-delete`,
      'detach 1',
    ]);
  });

  it('volume delete: the lanes forget the regions before they are cleared', async () => {
    expect((await callsOf(() => engine.volumeDelete({ volume: 'copy' }))).slice(0, 6)).toEqual([
      'hold 2',
      'clients',
      'commit volume-delete scrub-put',
      'end-clients 2',
      'unhold 2',
      'detach-volume 2',
    ]);
    await settled();
    expect(plane.calls.at(-1)).toBe('commit scrub-delete');
    expect(engine.status().store.regions).toEqual({ total: 64, unassigned: 56, scrubbing: 0 });
  });

  it('a plan asks nothing of the data plane', async () => {
    expect(await callsOf(() => engine.pairCreate({ primary: 'db', plan: true }))).toEqual([]);
    await duplex();
    expect(await callsOf(() => engine.pairSplit({ primary: 'db', plan: true }))).toEqual([]);
    expect(await callsOf(() => engine.pairRelease({ primary: 'db', plan: true }))).toEqual([]);
    await engine.pairSplit({ primary: 'db' });
    expect(await callsOf(() => engine.pairRestore({ primary: 'db', plan: true }))).toEqual([]);
    expect(await callsOf(() => engine.volumeCreate({ name: 'x', sizeBytes: MiB, plan: true }))).toEqual([]);
    expect(state()?.state).toBe('split');
  });
});

describe('a command that fails before its record is durable', () => {
  it('create: nothing is left of it, and the volumes are free again', async () => {
    for (const step of ['clients', 'attach 1', 'switch 1', 'commit']) {
      plane.failing.set(step, full);
      await expect(engine.pairCreate({ primary: 'db' }), step).rejects.toBe(full);
      plane.failing.clear();
      expect(engine.pairStatus()).toEqual([]);
      expect(plane.calls.at(-1)).toBe('unhold 2');
    }
    expect(plane.calls.filter((call) => call.startsWith('detach'))).toEqual(['detach 1', 'detach 1']);
    await duplex();
    expect(state()?.state).toBe('duplex');
  });

  it('create with fitting: the secondary has its old region map again', async () => {
    await engine.volumeDelete({ volume: 'copy' });
    await engine.volumeCreate({ name: 'small', sizeBytes: 2 * MiB, attribute: 'secondary' });
    plane.failing.set('attach 1', full);
    expect((await callsOf(() => engine.pairCreate({ primary: 'db', fit: 'regions' }).catch(() => undefined))).slice(-4)).toEqual([
      `replace 2 ${8 * MiB}`,
      'attach 1 fresh FAILED',
      `replace 2 ${2 * MiB}`,
      'unhold 2',
    ]);
    plane.failing.clear();
    expect(engine.volumeShow('small')).toMatchObject({ capacityBytes: 2 * MiB, formerCapacityBytes: null });
    // The reserved regions are free for others.
    await engine.volumeCreate({ name: 'other', sizeBytes: 40 * MiB });
  });

  it('split: mirroring starts again by a copy of what was written in between, and the reason is told', async () => {
    await duplex();
    plane.failing.set('commit', full);
    await expect(engine.pairSplit({ primary: 'db' })).rejects.toBe(full);
    expect(plane.calls.slice(-2)).toEqual(['commit pair-put:duplex-pending FAILED', 'copy-start 1']);
    expect(state()).toMatchObject({ state: 'duplex-pending', reason: 'split-undone: STORE_FULL' });
    plane.failing.clear();
    await copyDone();
    expect(state()).toMatchObject({ state: 'duplex', reason: null });
    await restart();
    expect(state()?.state).toBe('duplex');
  });

  it('resync: the pair stays split, nobody was thrown out', async () => {
    await duplex();
    await engine.pairSplit({ primary: 'db' });
    plane.failing.set('commit', full);
    expect(await callsOf(() => engine.pairResync({ primary: 'db' }).catch(() => undefined))).toEqual([
      'hold 2',
      'clients',
      'commit FAILED',
      'unhold 2',
    ]);
    expect(state()?.state).toBe('split');
  });

  it('split: refused when a leg fails at that very moment, so that no dirty bit is cleared', async () => {
    await duplex();
    plane.dirtyBytes = 65_536;
    await expect(engine.pairSplit({ primary: 'db' })).rejects.toMatchObject({ code: 'PAIR_STATE' });
    expect(plane.calls.at(-1)).toBe('switch 1 tracking/clear REFUSED');
    plane.emit('legFailed', { pair: 1, leg: 'secondary', code: 'EIO', message: 'x' });
    await settled();
    expect(state()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO' });
  });
});

describe('a command that fails after its record is durable', () => {
  it('is suspended with its reason, and a resync goes on from there', async () => {
    await duplex();
    await engine.pairSplit({ primary: 'db' });
    plane.failing.set('switch 1 copying', new Error('a lane is gone'));
    await expect(engine.pairResync({ primary: 'db' })).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('a lane is gone'),
    });
    expect(state()).toMatchObject({ state: 'suspended', reason: 'secondary-error: INTERNAL' });
    plane.failing.clear();
    await engine.pairResync({ primary: 'db' });
    await copyDone();
    expect(state()?.state).toBe('duplex');
  });
});

describe('what happens by itself', () => {
  it('a copy that is done while a region became dirty goes on', async () => {
    await engine.pairCreate({ primary: 'db' });
    plane.dirtyBytes = 4096;
    expect(await callsOf(copyDone)).toEqual(['switch 1 mirroring/keep REFUSED', 'copy-start 1']);
    expect(state()?.state).toBe('duplex-pending');
    plane.dirtyBytes = 0;
    await copyDone();
    expect(state()?.state).toBe('duplex');
  });

  it('a failed leg is a fact also when the journal is full: it holds, and is recorded when there is space again', async () => {
    await duplex();
    plane.failing.set('commit', full);
    plane.emit('legFailed', { pair: 1, leg: 'secondary', code: 'EIO', message: 'x' });
    await settled();
    expect(state()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO' });
    plane.failing.clear();
    const deadlineMs = Date.now() + 5000;
    while (!plane.calls.includes('commit pair-put:suspended') && Date.now() < deadlineMs) await settled();
    await restart();
    expect(state()).toMatchObject({ state: 'suspended', reason: 'secondary-error: EIO' });
  });

  it('news that comes late, of a pair that is gone, changes nothing', async () => {
    await duplex();
    await engine.pairRelease({ primary: 'db' });
    plane.emit('copyDone', { pair: 1 });
    plane.emit('copyFailed', { pair: 1, leg: 'target', code: 'EIO', message: 'x' });
    await settled();
    expect(engine.pairStatus()).toEqual([]);
  });

  it('a start finds duplex pairs that may differ, and resyncs them', async () => {
    await duplex();
    await engine.close();
    plane = new ScriptedPlane();
    plane.attachDirtyBytes = 4 * MiB;
    engine = await openEngine({ store: temporary.path('store'), openPlane: plane.open });
    expect(state()).toMatchObject({ state: 'duplex-pending', copy: 'resync', reason: 'crash-recovery' });
    expect(engine.status().durability.lastRecoveryBytes).toBe(4 * MiB);
    expect(plane.calls.slice(0, 6)).toEqual([
      'attach-volume 1',
      'attach-volume 2',
      'attach 1 kept',
      'switch 1 copying/merge',
      'commit pair-put:duplex-pending',
      'copy-start 1',
    ]);
  });
});

describe('two operators', () => {
  it('on the same pair: one wins, the other is told the state that it found', async () => {
    await duplex();
    const outcomes = await Promise.allSettled([engine.pairSplit({ primary: 'db' }), engine.pairSplit({ primary: 'db' })]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['fulfilled', 'rejected']);
    expect(outcomes[1]).toMatchObject({ reason: { code: 'PAIR_STATE', message: expect.stringContaining('split already') } });
  });

  it('while one is asking the hosts, news of the pair waits and a second command waits its turn', async () => {
    await duplex();
    await engine.pairSplit({ primary: 'db' });
    let answer = (): void => undefined;
    plane.waiting.set('clients', new Promise<void>((resolve) => (answer = resolve)));
    const first = engine.pairResync({ primary: 'db' });
    const second = engine.pairRelease({ primary: 'db' });
    await settled();
    expect(state()?.state).toBe('split');
    answer();
    await first;
    await second;
    expect(engine.pairStatus()).toEqual([]);
  });

  it('a refused inquiry lifts the hold and changes nothing', async () => {
    await duplex();
    await engine.pairSplit({ primary: 'db' });
    plane.clientViews = [client(5, 2)];
    expect(await callsOf(() => engine.pairResync({ primary: 'db' }).catch(() => undefined))).toEqual(['hold 2', 'clients', 'unhold 2']);
    expect(state()?.state).toBe('split');
  });
});

it('a group whose record cannot be written is not split, none of its pairs', async () => {
  await engine.volumeCreate({ name: 'db2', sizeBytes: 8 * MiB });
  await engine.volumeCreate({ name: 'copy2', sizeBytes: 8 * MiB, attribute: 'secondary' });
  await engine.pairCreate({ primary: 'db' });
  await engine.pairCreate({ primary: 'db2' });
  for (const pair of [1, 2]) plane.emit('copyDone', { pair });
  await settled();
  await engine.groupCreate({ name: 'g' });
  for (const primary of ['db', 'db2']) await engine.groupAdd({ name: 'g', primary });
  plane.failing.set('commit', full);
  await expect(engine.groupSplit({ name: 'g' })).rejects.toBe(full);
  expect(engine.pairStatus().map((pair) => pair.state)).toEqual(['duplex-pending', 'duplex-pending']);
  plane.failing.clear();
  for (const pair of [1, 2]) plane.emit('copyDone', { pair });
  await settled();
  expect(await callsOf(() => engine.groupSplit({ name: 'g' }))).toEqual([
    'switch 1 tracking/clear 2 tracking/clear',
    'flush 2',
    'flush 4',
    'commit pair-put:split pair-put:split',
  ]);
});

it.each(['pair', 'group'])('a resync of a %s counts what it destroys once the secondary is held', async (kind) => {
  await duplex();
  await engine.pairSplit({ primary: 'db' });
  await engine.groupCreate({ name: 'g' });
  await engine.groupAdd({ name: 'g', primary: 'db' });
  await engine.hostAdd({ name: 'web1' });
  let goOn = (): void => undefined;
  plane.waiting.set('hold 2', new Promise((resolve) => (goOn = resolve)));
  const refused = (kind === 'pair' ? engine.pairResync({ primary: 'db' }) : engine.groupResync({ name: 'g' })).catch((error) => error);
  await settled();
  plane.secondaryBytes = 3 * 65_536;
  goOn();
  expect(await refused).toMatchObject({ code: 'NO_ANSWER', details: { destroys: [{ volumeName: 'copy', bytes: 3 * 65_536 }] } });
});

it('a volume that the data plane cannot serve is taken back', async () => {
  plane.failing.set('attach-volume 3', new Error('no memory'));
  await expect(engine.volumeCreate({ name: 'third', sizeBytes: MiB })).rejects.toThrow('no memory');
  plane.failing.clear();
  await settled();
  expect(engine.volumeList().map((volume) => volume.name)).toEqual(['db', 'copy']);
  expect(engine.status().store.regions).toEqual({ total: 64, unassigned: 48, scrubbing: 0 });
});

it('a wait that its caller gives up ends at once', async () => {
  await engine.pairCreate({ primary: 'db' });
  const caller = new AbortController();
  const waiting = engine.pairWait({ primary: 'db', state: 'duplex', timeoutMs: 60_000 }, caller.signal);
  caller.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
  await expect(engine.pairWait({ primary: 'db', state: 'duplex', timeoutMs: 10 })).rejects.toMatchObject({
    code: 'TIMEOUT',
    exitStatus: 1,
  });
});

it('a stopping engine takes no more commands and gives up waits', async () => {
  await engine.pairCreate({ primary: 'db' });
  const waiting = engine.pairWait({ primary: 'db', state: 'duplex', timeoutMs: 60_000 });
  const closing = engine.close();
  await expect(waiting).rejects.toMatchObject({ code: 'ENGINE_STOPPING' });
  await expect(engine.volumeCreate({ name: 'late', sizeBytes: MiB })).rejects.toMatchObject({ code: 'ENGINE_STOPPING' });
  await closing;
});

describe('a fault', () => {
  it('is added or cleared when every lane knows it, not before: the next request of a host depends on it', async () => {
    const { number } = engine.volumeShow('db');
    let tell = (): void => {};
    const told = new Promise<void>((resolve) => {
      tell = resolve;
    });
    plane.waiting.set(`faults ${number}`, told);
    let isAdded = false;
    const adding = engine.faultAdd({ volume: 'db', error: 'write' }).then((rule) => {
      isAdded = true;
      return rule;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isAdded).toBe(false);
    tell();
    plane.waiting.clear();
    const { id } = await adding;
    expect(await callsOf(() => engine.faultClear({ id }))).toEqual([`faults ${number}`]);
  });
});
