/**
 * Region fitting, and giving a capacity back, cut off anywhere: between any two of the engine's steps (the store's
 * directory is copied at each of them, which is what `kill -9` leaves), and by real kills at random moments.
 *
 * What must hold for what is left, read past the engine: the tables are sound and every region has one owner; a region
 * that is unassigned is zero; a secondary holds its own old content, the primary's, or zeros, each at its place, and
 * nothing of any other volume; nobody else's content has changed. And after a restart: cleared regions are all back in
 * the table, and a pair becomes duplex with the primary's content.
 *
 * More, and other, kills: TWINVOL_CRASH_KILLS=200 TWINVOL_CRASH_SEED=7 npx vitest run test/fault/fitting-crash.test.ts --testTimeout 1e6
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import type { DataPlaneOptions } from '../../src/data/plane.ts';
import { openDataPlane } from '../../src/data/plane.ts';
import type { DataPlane } from '../../src/data/plane-api.ts';
import type { Engine } from '../../src/engine/api.ts';
import { openEngine } from '../../src/engine/open-engine.ts';
import { connect } from '../../src/nbd-client/nbd-client.ts';
import { HolePuncher } from '../../src/platform/hole-punch.ts';
import { checkStore } from '../../src/store/check.ts';
import { initStore } from '../../src/store/init.ts';
import type { Store } from '../../src/store/store.ts';
import { EngineProcess } from '../harness/engine-process.ts';
import { randomFrom } from '../support/crash-images.ts';
import { type Allowed, contentOf, findingsIn } from '../support/fitting-content.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const KILLS = Number(process.env['TWINVOL_CRASH_KILLS'] ?? 3);
const SEED = Number(process.env['TWINVOL_CRASH_SEED'] ?? 1);
/** After so many of the steps' copies an engine is started on one of them. */
const RESTART_EVERY = 16;

/** What each volume was made with; `old` is deleted on the way, and its regions go to others. */
const MEGABYTES: Readonly<Record<string, number>> = { db: 4, large: 10, db2: 9, small: 2, other: 3, old: 6 };
const POOL = ['large', 'small'];
const ROUNDS = { primaryOf: { large: 'db', small: 'db2' } as Readonly<Record<string, string>> };

const allowed: Allowed = (volume, offset, origin) => {
  if (origin === 'torn') return false;
  const primary = ROUNDS.primaryOf[volume.name];
  if (primary === undefined) return origin !== 'zero' && origin.volume === volume.name && origin.offset === offset;
  if (origin === 'zero') return true;
  if (origin.offset !== offset) return false;
  const isOwn = origin.volume === volume.name && offset < (MEGABYTES[volume.name] ?? 0) * MiB;
  return isOwn || (origin.volume === primary && offset < (MEGABYTES[primary] ?? 0) * MiB);
};

type Uris = (volume: string) => string;

const fill = async (uriOf: Uris, name: string): Promise<void> => {
  await using client = await connect(uriOf(name));
  for (let at = 0; at < (MEGABYTES[name] ?? 0); at += 1) await client.write(at * MiB, contentOf(name, at * MiB, MiB));
  await client.flush();
};

const makeVolumes = async (engine: Pick<Engine, 'volumeCreate'>, uriOf: Uris): Promise<void> => {
  for (const [name, megabytes] of Object.entries(MEGABYTES)) {
    await engine.volumeCreate({ name, sizeBytes: megabytes * MiB, attribute: POOL.includes(name) ? 'secondary' : 'normal' });
    await fill(uriOf, name);
  }
};

type Commands = Pick<Engine, 'pairCreate' | 'pairWait' | 'pairRelease' | 'poolRestoreSize' | 'volumeDelete'>;

/** Shrinks and regrows `large`, grows and shrinks `small` with the regions of a volume that is deleted just before. */
const everything = async (engine: Commands): Promise<void> => {
  const wait = (primary: string): Promise<unknown> => engine.pairWait({ primary, state: 'duplex', timeoutMs: 60_000 });
  await engine.pairCreate({ primary: 'db', secondary: 'large', fit: 'regions', pace: 15 });
  await engine.volumeDelete({ volume: 'old' });
  await engine.pairCreate({ primary: 'db2', secondary: 'small', fit: 'regions', pace: 15 });
  await wait('db');
  await wait('db2');
  await engine.pairRelease({ primary: 'db' });
  await engine.pairRelease({ primary: 'db2' });
  await engine.poolRestoreSize({ volume: 'small' });
  await engine.poolRestoreSize({ volume: 'large' });
};

/** An engine on what a crash has left: it clears, it copies, and then everything is as it should be. */
const recovers = async (directory: string): Promise<void> => {
  const engine = await openEngine({ store: directory, lanes: 1 });
  const primaries = engine.pairStatus().map(({ primary }) => primary.name);
  for (const primary of primaries) await engine.pairWait({ primary, state: 'duplex', timeoutMs: 60_000 });
  const regions = (): { readonly scrubbing: number } => engine.status().store.regions;
  for (let round = 0; round < 1000 && regions().scrubbing > 0; round += 1) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(regions().scrubbing).toBe(0);
  await engine.close();
  const isPaired = (name: string): boolean => primaries.includes(ROUNDS.primaryOf[name] ?? '');
  const settled: Allowed = (volume, offset, origin) => {
    if (!allowed(volume, offset, origin)) return false;
    if (!isPaired(volume.name)) return true;
    return origin !== 'zero' && origin !== 'torn' && origin.volume === ROUNDS.primaryOf[volume.name];
  };
  expect(await findingsIn(directory, settled)).toEqual([]);
  expect((await checkStore(directory)).findings).toEqual([]);
};

/** Everything but the physical volumes first: what is in them may be newer than what the rest says, and never older. */
const copyStore = (from: string, to: string): void => {
  fs.mkdirSync(to, { mode: 0o700 });
  const names = fs.readdirSync(from).filter((name) => name !== 'pv' && !name.endsWith('.sock'));
  execFileSync('cp', ['-a', ...names.map((name) => join(from, name)), to]);
  execFileSync('cp', ['-a', '--sparse=always', join(from, 'pv'), to]);
};

/** Calls `step` before everything that the engine has the store, the data plane and the puncher do. */
const watched = (step: (what: string) => void): ((options: DataPlaneOptions) => Promise<DataPlane>) => {
  return async (options) => {
    const store = options.store as Store;
    const commit = store.commit.bind(store);
    store.commit = async (change) => {
      step('commit');
      await commit(change);
      step('committed');
    };
    const plane = await openDataPlane(options);
    return new Proxy(plane, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') return value;
        return (...input: unknown[]): unknown => {
          if (/^(volume|pairs?[A-Z]|copy|clientsEnd)/.test(String(name)) && name !== 'pairProgress') step(String(name));
          return Reflect.apply(value, target, input);
        };
      },
    });
  };
};

it('[fitting-crash] a crash between any two steps leaves every region with one owner, and no old data where it does not belong', async () => {
  await using temporary = await temporaryDirectory();
  const store = temporary.path('store');
  await initStore(store, { regionBytes: 256 * 1024, pvBytes: 64 * MiB });
  let count = -1;
  const steps: string[] = [];
  const failures: string[] = [];
  const copies: string[] = [];
  const step = (what: string): void => {
    if (count < 0) return;
    count += 1;
    steps.push(what);
    const copy = temporary.path(`step-${count}`);
    copyStore(store, copy);
    copies.push(copy);
  };
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its own puncher below
  const punch = HolePuncher.prototype.punch;
  HolePuncher.prototype.punch = function watchedPunch(path, offset, length) {
    step('punch');
    return punch.call(this, path, offset, length);
  };
  try {
    const engine = await openEngine({ store, lanes: 1, openPlane: watched(step) });
    await makeVolumes(engine, (name) => engine.uri(name));
    count = 0;
    await everything(engine);
    await new Promise((resolve) => setTimeout(resolve, 100));
    count = -1;
    await engine.close();
  } finally {
    HolePuncher.prototype.punch = punch;
  }
  for (const [index, copy] of copies.entries()) {
    for (const finding of await findingsIn(copy, allowed)) failures.push(`before step ${index} (${steps[index]}): ${finding}`);
    if (index % RESTART_EVERY === 0) await recovers(copy);
    fs.rmSync(copy, { recursive: true });
  }
  expect(failures).toEqual([]);
  expect(steps.length).toBeGreaterThan(50);
  expect(new Set(steps)).toEqual(
    new Set([...steps, 'commit', 'committed', 'punch', 'volumeHold', 'volumeReplace', 'pairAttach', 'pairsSwitch', 'copyStart']),
  );
}, 300_000);

it(
  'kills at random moments do no harm either',
  async () => {
    await using temporary = await temporaryDirectory();
    const fresh = temporary.path('fresh');
    await initStore(fresh, { regionBytes: 256 * 1024, pvBytes: 64 * MiB });
    {
      const engine = await openEngine({ store: fresh, lanes: 1 });
      await makeVolumes(engine, (name) => engine.uri(name));
      await engine.close();
    }
    const random = randomFrom(SEED);
    for (let kill = 0; kill < KILLS; kill += 1) {
      const store = temporary.path(`kill-${kill}`);
      copyStore(fresh, store);
      const engine = await EngineProcess.start(store);
      const commands: Commands = {
        // oxlint-disable-next-line typescript/no-unnecessary-type-assertion -- a plan was not asked for
        pairCreate: (input) => engine.call('pair.create', input) as ReturnType<Commands['pairCreate']>,
        pairWait: (input) => engine.call('pair.wait', input),
        // oxlint-disable-next-line typescript/no-unnecessary-type-assertion -- a plan was not asked for
        pairRelease: (input) => engine.call('pair.release', input) as ReturnType<Commands['pairRelease']>,
        poolRestoreSize: (input) => engine.call('pool.restoreSize', input),
        volumeDelete: (input) => engine.call('volume.delete', input),
      };
      const atMs = random() * 400;
      const running = everything(commands).catch(() => undefined);
      await Promise.race([running, new Promise((resolve) => setTimeout(resolve, atMs))]);
      await engine.kill();
      await running;
      expect({ seed: SEED, kill, atMs, findings: await findingsIn(store, allowed) }).toEqual({ seed: SEED, kill, atMs, findings: [] });
      await recovers(store);
      fs.rmSync(store, { recursive: true });
    }
  },
  120_000 + KILLS * 20_000,
);
