/**
 * Splits at a moment of their own, with a clock that the test moves: carried out when due, once, by the record that takes
 * the moment away; and what becomes of them when the pair cannot be split, the engine was not there, or somebody changes
 * his mind. The data plane is scripted, the store is real.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TwinvolError } from '../../../src/core/faults.ts';
import { MiB } from '../../../src/core/units.ts';
import type { EventView } from '../../../src/core/views.ts';
import type { DeviceEngine } from '../../../src/engine/device.ts';
import { openEngine } from '../../../src/engine/open-engine.ts';
import { initStore } from '../../../src/store/init.ts';
import { failure } from '../../support/pair-device.ts';
import { ScriptedPlane } from '../../support/scripted-plane.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../../support/temporary.ts';

const START_MS = Date.UTC(2025, 2, 1, 2);
const MINUTE_MS = 60_000;

let temporary: TemporaryDirectory;
let plane: ScriptedPlane;
let engine: DeviceEngine;
let nowMs = START_MS;

const start = async (): Promise<void> => {
  plane = new ScriptedPlane();
  engine = await openEngine({ store: temporary.path('store'), openPlane: plane.open, nowMs: () => nowMs });
};
const restart = async (pauseMs: number): Promise<void> => {
  await engine.close();
  nowMs += pauseMs;
  await start();
};
const pair = (primary = 'a') => engine.pairStatus({ primary })[0];
/** Lets the clock run; the engine looks at it at least every 30 seconds. */
const pass = async (ms: number): Promise<void> => {
  nowMs += ms;
  await vi.advanceTimersByTimeAsync(ms);
  await settled();
};
/** The clock of the test is not the machine's: what the engine writes takes real time. */
const realTimeout = setTimeout;
const later = (ms: number): Promise<void> => new Promise((resolve) => void realTimeout(resolve, ms));
const settled = (): Promise<void> => later(40);
const eventually = async (check: () => unknown): Promise<void> => {
  for (let round = 0; ; round += 1) {
    try {
      await check();
      return;
    } catch (error) {
      if (round === 400) throw error;
      await later(5);
    }
  }
};
const states = (): string[] => engine.pairStatus().map(({ state }) => state);
const warnings = async (): Promise<EventView[]> => {
  const found: EventView[] = [];
  for await (const event of engine.events({ since: START_MS, follow: false })) if (event.kind === 'warning') found.push(event);
  return found;
};
const duplex = async (name: string): Promise<void> => {
  await engine.volumeCreate({ name, sizeBytes: 2 * MiB });
  await engine.volumeCreate({ name: `${name}-copy`, sizeBytes: 2 * MiB, attribute: 'secondary' });
  await engine.pairCreate({ primary: name, secondary: `${name}-copy` });
  plane.emit('copyDone', { pair: pair(name)?.id ?? 0 });
  await eventually(() => expect(pair(name)?.state).toBe('duplex'));
};

beforeEach(async () => {
  nowMs = START_MS;
  temporary = await temporaryDirectory();
  await initStore(temporary.path('store'), { pvBytes: 64 * MiB });
  await start();
  await duplex('a');
  await duplex('b');
  await engine.groupCreate({ name: 'nightly' });
  for (const primary of ['a', 'b']) await engine.groupAdd({ name: 'nightly', primary });
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(async () => {
  vi.useRealTimers();
  await engine.close();
  await temporary[Symbol.asyncDispose]();
});

describe('a scheduled split', () => {
  it('of a pair happens when its moment comes, and not before, and only once', async () => {
    const atMs = START_MS + 90 * MINUTE_MS;
    expect(await engine.pairSplit({ primary: 'a', atMs, plan: true })).toMatchObject({
      plan: true,
      steps: [expect.stringContaining('2025-03-01T03:30:00.000Z')],
    });
    expect(pair()?.scheduledSplit).toBeNull();
    expect(await engine.pairSplit({ primary: 'a', atMs })).toMatchObject({
      state: 'duplex',
      scheduledSplit: { atMs, failure: null, group: null },
    });
    expect(engine.status().scheduledSplits).toEqual({ pending: 1, failed: 0, nextAtMs: atMs });
    await pass(89 * MINUTE_MS);
    expect(states()).toEqual(['duplex', 'duplex']);
    await pass(MINUTE_MS);
    await eventually(() => expect(states()).toEqual(['split', 'duplex']));
    expect(pair()).toMatchObject({ scheduledSplit: null, stateSinceMs: atMs });
    expect(engine.status().scheduledSplits).toEqual({ pending: 0, failed: 0, nextAtMs: null });
    await engine.pairResync({ primary: 'a' });
    await pass(24 * 60 * MINUTE_MS);
    expect(pair()?.state).toBe('duplex-pending');
  });

  it('of a group splits all its pairs of that moment with one switch and one record', async () => {
    const atMs = START_MS + 10 * MINUTE_MS;
    await engine.groupSplit({ name: 'nightly', atMs });
    expect(pair('b')?.scheduledSplit).toEqual({ atMs, failure: null, group: 'nightly' });
    await duplex('c');
    await engine.groupAdd({ name: 'nightly', primary: 'c' });
    plane.calls.length = 0;
    await pass(10 * MINUTE_MS);
    await eventually(() => expect(states()).toEqual(['split', 'split', 'split']));
    expect(plane.calls.filter((call) => call.startsWith('switch') || call.startsWith('commit'))).toEqual([
      'switch 1 tracking/clear 2 tracking/clear 3 tracking/clear',
      'commit pair-put:split pair-put:split pair-put:split group-put',
    ]);
    expect(engine.groupList()).toEqual([{ name: 'nightly', pairs: [1, 2, 3] }]);
  });

  it('survives a restart; one whose moment passed meanwhile is not made up for, unless it is a matter of seconds', async () => {
    await engine.pairSplit({ primary: 'a', atMs: START_MS + 60 * MINUTE_MS });
    await engine.pairSplit({ primary: 'b', atMs: START_MS + 5 * MINUTE_MS });
    await restart(MINUTE_MS);
    expect(engine.status().scheduledSplits).toMatchObject({ pending: 2, failed: 0 });
    await restart(4 * MINUTE_MS + 30_000);
    await eventually(() => expect(states()).toEqual(['duplex', 'split']));
    await restart(24 * 60 * MINUTE_MS);
    await eventually(() => expect(engine.status().scheduledSplits).toEqual({ pending: 0, failed: 1, nextAtMs: null }));
    expect(pair()).toMatchObject({
      state: 'duplex',
      scheduledSplit: { atMs: START_MS + 60 * MINUTE_MS, failure: expect.stringMatching(/^SPLIT_MISSED: /) },
    });
    await restart(MINUTE_MS);
    expect(pair()).toMatchObject({ state: 'duplex', scheduledSplit: { failure: expect.stringMatching(/^SPLIT_MISSED: /) } });
    // A new moment takes the old one's place.
    await engine.pairSplit({ primary: 'a', atMs: nowMs + MINUTE_MS });
    await pass(MINUTE_MS);
    await eventually(() => expect(pair()).toMatchObject({ state: 'split', scheduledSplit: null }));
  });

  it('that cannot be carried out changes nothing, says why, and is not tried again', async () => {
    await engine.pairSplit({ primary: 'b' });
    await engine.groupSplit({ name: 'nightly', atMs: START_MS + MINUTE_MS });
    await pass(MINUTE_MS);
    expect(states()).toEqual(['duplex', 'split']);
    await eventually(() =>
      expect(pair()?.scheduledSplit).toMatchObject({ group: 'nightly', failure: expect.stringContaining('none of its pairs') }),
    );
    expect(await warnings()).toMatchObject([
      { object: 'group', id: 'nightly', data: { code: 'PAIR_STATE', text: expect.stringContaining('did not happen') } },
    ]);
    await pass(10 * MINUTE_MS);
    expect(await warnings()).toHaveLength(1);
    await engine.groupSplit({ name: 'nightly', atMs: null });
    expect(pair()?.scheduledSplit).toBeNull();
  });

  it('whose failure cannot be recorded is told once and looked at again without haste', async () => {
    await engine.pairSplit({ primary: 'b' });
    await engine.pairSplit({ primary: 'b', atMs: START_MS + MINUTE_MS });
    plane.failing.set('commit', new TwinvolError('STORE_FULL', 'no space'));
    await pass(MINUTE_MS);
    await eventually(async () => expect(await warnings()).toHaveLength(1));
    expect(engine.status().scheduledSplits).toMatchObject({ pending: 1, failed: 0 });
    plane.failing.clear();
    await pass(30_000);
    await eventually(async () => expect(await warnings()).toHaveLength(2));
    await eventually(() => expect(pair('b')?.scheduledSplit?.failure).toMatch(/^PAIR_STATE: /));
  });

  it('can be taken back, goes with its pair or group, and cannot lie in the past', async () => {
    expect((await failure(engine.pairSplit({ primary: 'a', atMs: null }))).code).toBe('NOT_SCHEDULED');
    expect((await failure(engine.pairSplit({ primary: 'a', atMs: START_MS }))).code).toBe('USAGE');
    expect((await failure(engine.groupSplit({ name: 'none', atMs: START_MS + 1 }))).code).toBe('GROUP_NOT_FOUND');
    await engine.volumeCreate({ name: 'alone', sizeBytes: MiB });
    expect((await failure(engine.pairSplit({ primary: 'alone', atMs: START_MS + 1 }))).code).toBe('PAIR_NOT_FOUND');
    await engine.pairSplit({ primary: 'a', atMs: START_MS + MINUTE_MS });
    expect(await engine.pairSplit({ primary: 'a', atMs: null })).toMatchObject({ scheduledSplit: null });
    await engine.pairSplit({ primary: 'b', atMs: START_MS + MINUTE_MS });
    await engine.pairRelease({ primary: 'b' });
    await engine.groupSplit({ name: 'nightly', atMs: START_MS + MINUTE_MS });
    await engine.groupRemove({ name: 'nightly' });
    expect(engine.status().scheduledSplits).toEqual({ pending: 0, failed: 0, nextAtMs: null });
    await pass(5 * MINUTE_MS);
    expect(states()).toEqual(['duplex']);
    expect(await warnings()).toEqual([]);
  });

  it('that is taken back while it is being carried out did not happen', async () => {
    let letGo = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    await engine.groupSplit({ name: 'nightly', atMs: START_MS + MINUTE_MS });
    plane.waiting.set('flush', held);
    await pass(MINUTE_MS);
    plane.waiting.clear();
    await engine.groupSplit({ name: 'nightly', atMs: null });
    letGo();
    await eventually(async () => expect(await warnings()).not.toEqual([]));
    await eventually(() => expect(states()).toEqual(['duplex-pending', 'duplex-pending']));
    expect(engine.status().scheduledSplits).toEqual({ pending: 0, failed: 0, nextAtMs: null });
  });
});
