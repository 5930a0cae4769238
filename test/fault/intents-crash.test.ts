/**
 * Wherever a crash leaves the legs of a pair different, a bitmap or a mark on disk says so, and what a flush has promised
 * is there. Checked at any moment of a pair's life, for a killed process and for a power loss.
 *
 * Threads write to both sides, a copy runs, marks are dropped all the time, and the pair goes through all its modes, with
 * legs that fail. Every write and sync of the two volumes, the two bitmaps and the two files of marks is recorded; after
 * that the trace is cut at many moments, and recovery is done on what the cut leaves (fault model: plane-trace.ts).
 */
// First: it replaces functions that the others keep references to.
import { type CrashImage, record, Recorder, Replay, type TraceEvent } from '../support/plane-trace.ts';
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { INTENT_EXTENT_BYTES, MiB } from '../../src/core/units.ts';
import { IntentCleaner } from '../../src/data/intent-cleaner.ts';
import type { PairMode } from '../../src/data/plane-api.ts';
import { contentOf, CrashedPair, filesOf, FlushPromises, traceOf } from '../support/plane-crash.ts';
import { type LegPair, legPair, legStore, PRIMARY, SECONDARY } from '../support/plane-legs.ts';
import { later, PlaneLoad } from '../support/plane-load.ts';
import { randomFrom } from '../support/plane-thread.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const legIn = (image: CrashImage, leg: string): Buffer => {
  const file = image.get(leg);
  if (file === undefined) throw new Error(`the image has no ${leg}`);
  return file.content;
};

const REGIONS = 16;

type Level = 'power' | 'process';
type Life = {
  readonly events: readonly TraceEvent[];
  readonly initial: ReadonlyMap<string, Buffer>;
  readonly visited: ReadonlySet<PairMode>;
};

/** Both legs full of data, and different, so that nothing is equal by being a hole. */
const fill = ({ store }: LegPair): void => {
  for (const [number, byte] of [
    [PRIMARY, 1],
    [SECONDARY, 2],
  ] as const) {
    const fd = store.pvFd(number * 2);
    for (let region = 0; region < REGIONS; region += 1)
      fs.writeSync(fd, Buffer.alloc(MiB, byte * 16 + (region % 13)), 0, MiB, region * MiB);
  }
};

const live = async (legs: LegPair, level: Level, seed: number, lifeMs: number): Promise<Life> => {
  fill(legs);
  const { primary, secondary, pair } = legs;
  secondary.setFaults([
    {
      id: 1,
      volume: SECONDARY,
      error: 'write',
      errno: 'EIO',
      offset: 0,
      length: REGIONS * MiB,
      rate: 1,
      latencyMs: 0,
      count: 0,
      seed: 1,
      hits: 0,
      expired: false,
    },
  ]);
  primary.setFaults([
    {
      id: 2,
      volume: PRIMARY,
      error: 'write',
      errno: 'EIO',
      offset: 0,
      length: REGIONS * MiB,
      rate: 1,
      latencyMs: 0,
      count: 0,
      seed: 1,
      hits: 0,
      expired: false,
    },
  ]);
  const initial = contentOf(legs);
  const trace = traceOf(legs);
  const recorder = new Recorder(trace);
  const survivesPowerLoss = level === 'power';
  const load = new PlaneLoad(legs, { trace, survivesPowerLoss });
  const random = randomFrom(seed);
  const between = (least: number, most: number): Promise<void> => later(least + random() * (most - least));
  const visited = new Set<PairMode>();
  const flushLegs = async (): Promise<void> => {
    if (survivesPowerLoss)
      await Promise.all(
        filesOf(legs)
          .slice(0, 2)
          .map(([fd]) => new Promise((done) => fs.fdatasync(fd, done))),
      );
  };
  const cleaner = new IntentCleaner(
    { volumes: () => [primary, secondary], pairsOf: () => [pair], flushLegs, survivesPowerLoss: () => survivesPowerLoss },
    load.gate,
    8,
  );
  const strike = (volume: typeof primary): void => {
    Atomics.store(new Int32Array((volume.faults[0] as { counters: SharedArrayBuffer }).counters), 2, 1);
  };
  const become = async (mode: PairMode, dirty: 'keep' | 'all' | 'clear' | 'merge', onlyIfClean = false): Promise<boolean> => {
    const isDone = await load.switch(mode, dirty, onlyIfClean);
    if (isDone) {
      visited.add(mode);
      recorder.note(`mode ${mode}`);
    }
    return isDone;
  };
  /** Copies until the pair mirrors, or a leg has failed. A restore is not made to fail: hosts would read half an image. */
  const copyToEnd = async (): Promise<boolean> => {
    for (;;) {
      const result = await load.copy();
      if (pair.mode === 'tracking') return false;
      if (result.end === 'done' && (await become('mirroring', 'keep', true))) return true;
    }
  };
  record(recorder);
  try {
    await load.write(1, { where: 'wide', lengthMax: 16 * 1024, restMs: 1, burst: 25, flushEvery: 12 });
    await load.write(2, { where: 'hot', lengthMax: 16 * 1024, restMs: 1, flushEvery: 30, zerosEvery: 9, burst: 40 });
    await load.write(3, { volume: SECONDARY, where: 'wide', lengthMax: 8 * 1024, restMs: 1, burst: 10 });
    const endMs = performance.now() + lifeMs;
    await become('copying', 'all');
    let isMirroring = await copyToEnd();
    while (performance.now() < endMs) {
      if (isMirroring) {
        await between(5, 60);
        const dice = random();
        if (dice < 0.25) {
          strike(secondary);
          await between(10, 30);
          isMirroring = pair.mode === 'mirroring';
        } else if (dice < 0.45) {
          strike(primary);
          await between(5, 20);
          await become('copying', 'keep');
          isMirroring = await copyToEnd();
        } else {
          // An error just before leaves bits, and then it is no image of one moment.
          isMirroring = !(await become('tracking', 'clear', true));
          if (isMirroring) isMirroring = (await become('copying', 'keep')) && (await copyToEnd());
          else await flushLegs();
        }
      } else {
        await between(5, 60);
        const isRestore = random() < 0.3;
        await become(isRestore ? 'restoring' : 'copying', 'merge');
        if (!isRestore && random() < 0.3) strike(secondary);
        isMirroring = await copyToEnd();
      }
    }
    await cleaner.stop();
    await load.stop();
  } finally {
    record(null);
    await load.stop();
  }
  const events = [...load.events, ...recorder.events].sort((one, other) => one.seq - other.seq);
  return { events, initial, visited };
};

type Checked = { readonly moments: number; readonly unmarked: string[]; readonly broken: string[]; readonly different: number };

/** Cuts the trace at `moments` places and looks what a start after that would not know. */
const check = (legs: LegPair, directory: string, life: Life, level: Level, moments: number, seed: number): Checked => {
  const random = randomFrom(seed);
  const replay = new Replay(life.initial);
  const crashed = new CrashedPair(legs, directory);
  const promises = new FlushPromises(replay, PRIMARY, life.events);
  const cuts = new Set(Array.from({ length: moments }, () => Math.floor(random() * life.events.length)));
  const unmarked: string[] = [];
  const broken: string[] = [];
  let different = 0;
  let mode = '';
  for (const [index, event] of life.events.entries()) {
    replay.apply(event);
    promises.after(event);
    if (event.kind === 'note' && event.text.startsWith('mode ')) mode = event.text;
    if (!cuts.has(index)) continue;
    const images = [
      ['killed', replay.killed()] as const,
      ...(level === 'power' ? [['power loss', replay.poweredOff(random)] as const] : []),
    ];
    for (const [how, image] of images) {
      const regions = crashed.unmarked(image);
      if (regions.length > 0) unmarked.push(`${how} after ${index} (${event.kind}), ${mode}: regions ${regions.slice(0, 5).join(', ')}`);
      const offsets = level === 'power' || how === 'killed' ? promises.broken(image) : [];
      if (offsets.length > 0) broken.push(`${how} after ${index} (${event.kind}), ${mode}: ${offsets.length} sectors from ${offsets[0]}`);
      if (legIn(image, 'primary').compare(legIn(image, 'secondary')) !== 0) different += 1;
    }
  }
  return { moments: cuts.size, unmarked, broken, different };
};

const run = async (
  level: Level,
  seed: number,
  dirtyRegionBytes: number,
  lifeMs: number,
  moments: number,
): Promise<{ life: Life; checked: Checked }> => {
  await using temporary = await temporaryDirectory();
  const legs = legPair(legStore(temporary.root, MiB, 'contiguous'), REGIONS, { dirtyRegionBytes });
  try {
    const life = await live(legs, level, seed, lifeMs);
    return { life, checked: check(legs, temporary.path('crash'), life, level, moments, seed) };
  } finally {
    legs.close();
  }
};

describe("after a crash at any moment of a pair's life", () => {
  it.each([
    ['power', 1, 64 * 1024],
    ['power', 3, 4 * 1024],
    ['power', 4, 2 * INTENT_EXTENT_BYTES],
    ['process', 5, 64 * 1024],
  ] as const)(
    '[marks-cut] every difference of the legs is marked and every flushed write is there: level %s, seed %i, dirty regions of %i bytes',
    async (level, seed, dirtyRegionBytes) => {
      const { life, checked } = await run(level, seed, dirtyRegionBytes, 3000, 100);
      expect(checked.unmarked).toEqual([]);
      expect(checked.broken).toEqual([]);
      expect(checked.different).toBeGreaterThan(checked.moments / 4);
      expect([...life.visited]).toEqual(expect.arrayContaining(['copying', 'mirroring', 'tracking']));
    },
  );
});
