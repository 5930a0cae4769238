/**
 * How long a split holds the host up: every write of a host at depth 1 is logged while pairs are split again and again, and
 * the longest write around each split is compared with the longest one in a moment of the same length without a split.
 * One pair, and a group of 100 that are split at one point in time.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { MiB } from '../../src/core/units.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { latency as us, medianOf } from './numbers.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import type { Workplace } from './workplace.ts';

const GROUP_PAIRS = 100;
/** Volumes of the group that a host writes to meanwhile. */
const GROUP_LOADED = 4;
const VOLUME_BYTES = 16 * MiB;
const QUIET_MS = 250;
/** fio's log tells a request's end in whole milliseconds. */
const MARGIN_MS = 3;
const PAUSE_US_MAX = { one: 5000, group: 20_000 } as const;

/** A moment, milliseconds since 1970. */
type Window = { readonly fromMs: number; readonly toMs: number };
type Logged = { readonly atMs: number; readonly latencyUs: number };
type Measured = { readonly what: 'one' | 'group'; readonly splitUs: number[]; readonly quietUs: number[]; readonly commandMs: number[] };

/** Lines of fio's latency log: `time in ms, latency in ns, direction, block size, offset, priority`. */
export const parseLatencyLog = (text: string): Logged[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [at = '0', latency = '0'] = line.split(',');
      return { atMs: Number(at), latencyUs: Number(latency) / 1000 };
    });

/** The longest request that ended in the window; 0 when none did. */
export const longestIn = (log: readonly Logged[], { fromMs, toMs }: Window): number =>
  log.reduce((longest, { atMs, latencyUs }) => (atMs >= fromMs && atMs <= toMs ? Math.max(longest, latencyUs) : longest), 0);

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const logsIn = (place: Workplace, prefix: string): Logged[] =>
  readdirSync(place.root)
    .filter((name) => name.startsWith(`${prefix}_lat.`) && name.endsWith('.log'))
    .flatMap((name) => parseLatencyLog(readFileSync(place.path(name), 'utf8')));

type Splitting = {
  readonly what: 'one' | 'group';
  readonly uris: readonly string[];
  readonly split: () => Promise<void>;
  readonly rejoin: () => Promise<void>;
};

const measure = async (place: Workplace, { what, uris, split, rejoin }: Splitting, rounds: number, roundMs: number): Promise<Measured> => {
  const windows: Window[] = [];
  const commandMs: number[] = [];
  const prefix = `pause-${what}`;
  let isDone = false;
  const splitting = (async () => {
    await pause(800);
    for (let round = 0; round < rounds; round += 1) {
      await pause(QUIET_MS);
      const fromMs = Date.now();
      await split();
      const toMs = Date.now();
      windows.push({ fromMs, toMs });
      commandMs.push(toMs - fromMs);
      await pause(QUIET_MS);
      await rejoin();
    }
    isDone = true;
  })();
  const load = runFio({
    uris,
    rw: 'randwrite',
    blockBytes: 4096,
    depth: 1,
    jobs: 1,
    sizeBytes: VOLUME_BYTES,
    runtimeMs: 1500 + rounds * roundMs,
    cpus: CLIENT_CPUS,
    latencyLog: place.path(prefix),
  });
  await Promise.all([load, splitting]);
  if (!isDone) throw new Error('the splits took longer than the load');
  const log = logsIn(place, prefix);
  const [last] = log.slice(-1);
  const seen = windows.filter(({ toMs }) => last !== undefined && toMs < last.atMs);
  const around = seen.map(({ fromMs, toMs }) => ({ fromMs: fromMs - MARGIN_MS, toMs: toMs + MARGIN_MS }));
  // The moment before, as long as the split's own, and ended well before it.
  const before = around.map(({ fromMs, toMs }) => ({ fromMs: fromMs - (toMs - fromMs) - 50, toMs: fromMs - 50 }));
  return {
    what,
    commandMs,
    splitUs: around.map((window) => longestIn(log, window)),
    quietUs: before.map((window) => longestIn(log, window)),
  };
};

const onePair = async (engine: EngineProcess): Promise<Splitting> => {
  await engine.volume('primary', VOLUME_BYTES);
  await engine.volume('secondary', VOLUME_BYTES, 'secondary');
  await engine.pair('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  return {
    what: 'one',
    uris: [engine.uri('primary')],
    split: () => engine.split('primary', 'secondary'),
    rejoin: async () => {
      await engine.resync('primary', 'secondary');
      await engine.until('primary', 'secondary', 'duplex');
    },
  };
};

const group = async (engine: EngineProcess): Promise<Splitting> => {
  const pairs = Array.from({ length: GROUP_PAIRS }, (_, index) => [`p${index}`, `s${index}`] as const);
  await engine.client.call('group.create', { name: 'all' });
  for (const [primary, secondary] of pairs) {
    await engine.volume(primary, VOLUME_BYTES);
    await engine.volume(secondary, VOLUME_BYTES, 'secondary');
    await engine.pair(primary, secondary);
    await engine.client.call('group.add', { name: 'all', primary, secondary });
  }
  for (const [primary, secondary] of pairs) await engine.until(primary, secondary, 'duplex');
  return {
    what: 'group',
    uris: pairs.slice(0, GROUP_LOADED).map(([primary]) => engine.uri(primary)),
    split: async () => {
      await engine.client.call('group.split', { name: 'all' });
    },
    rejoin: async () => {
      for (const [primary, secondary] of pairs) await engine.resync(primary, secondary);
      for (const [primary, secondary] of pairs) await engine.until(primary, secondary, 'duplex');
    },
  };
};

export const splitPause = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  const raw: Measured[] = [];
  for (const [prepare, roundMs] of [[onePair, 1000] as const, [group, 2500] as const]) {
    await using engine = await EngineProcess.start(place.path(`store-${raw.length}`), { cpus: SERVER_CPUS, main: settings.main });
    const rounds = settings.isQuick ? 3 : 10;
    const found = await measure(place, await prepare(engine), rounds, roundMs);
    raw.push(found);
    say(`${found.what}: longest write around a split ${us(medianOf(found.splitUs))}, without ${us(medianOf(found.quietUs))} (medians)`);
  }
  const name = (what: Measured['what']): string => (what === 'one' ? 'one pair' : `a group of ${GROUP_PAIRS} pairs`);
  return {
    id: 'pause',
    title: 'The pause of a split',
    text: [
      'The longest 4 KiB write (depth 1) that ended within the command and a few milliseconds around it, against the moment of equal length before. ' +
        `For the group, ${GROUP_LOADED} of the ${GROUP_PAIRS} volumes are written to.`,
    ],
    bars: raw.map(({ what, splitUs }) => ({
      what: `split of ${name(what)}, longest write`,
      target: `under ${us(PAUSE_US_MAX[what])}`,
      measured: us(medianOf(splitUs)),
      isMet: medianOf(splitUs) < PAUSE_US_MAX[what],
    })),
    tables: [
      {
        title: `Of ${raw.map(({ splitUs }) => splitUs.length).join(' and ')} splits`,
        columns: ['split of', 'longest write, median', 'worst', 'without a split, median', 'worst', 'the command, median'],
        rows: raw.map(({ what, splitUs, quietUs, commandMs }) => [
          name(what),
          us(medianOf(splitUs)),
          us(Math.max(0, ...splitUs)),
          us(medianOf(quietUs)),
          us(Math.max(0, ...quietUs)),
          `${Math.round(medianOf(commandMs))} ms`,
        ]),
      },
    ],
    plots: [],
    raw,
  };
};
