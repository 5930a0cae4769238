/**
 * The cells: every server on the same work, in turns, with one leg and with two. All servers run at once and only the one
 * that is measured is busy; the order of servers turns from round to round.
 */
import { type Cell, valueOf } from './cells.ts';
import { compiledProgram } from './compiled.ts';
import { EngineProcess } from './engine-process.ts';
import { type FioInput, runFio } from './fio.ts';
import { LEAN, runLean } from './lean-client.ts';
import { LIMITS, type LimitServer, NOTHING, ONLY_IO, startLimit } from './limit.ts';
import { medianOf, short, times } from './numbers.ts';
import { type PeerName, type PeerServer, PAIR_PEERS, SINGLE_PEERS, startPair, startSingle } from './peers.ts';
import { profiled, profileEnvironment, type ThreadShare } from './profile.ts';
import { Scope } from './scope.ts';
import type { Bar, Plot, Section, Table } from './section.ts';
import { CLIENT_CPUS, cpusOf, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

export const OURS_SINGLE = 'twinvol';
export const OURS_PAIR = 'twinvol pair';
/** At this depth and beyond a pair has to be so many times as fast as the better peer. */
const DEEP = 16;
const DEEP_FACTOR = 3;

/** Long beside the starting of fio and of the profiler. */
const PROFILE_MS = 2000;

type Target = { readonly name: string; readonly uri: string };
export type CellSamples = { readonly cell: Cell; readonly samples: Readonly<Record<string, readonly number[]>> };
type Pinning = 'pinned' | 'free';
type Legs = 'one' | 'two';

const WHERE: Readonly<Record<Pinning, string>> = { pinned: 'server and client on a processor each', free: 'not pinned' };

const startedPeers = async (
  names: readonly PeerName[],
  start: (name: PeerName) => Promise<PeerServer>,
  say: (text: string) => void,
): Promise<PeerServer[]> => {
  const peers: PeerServer[] = [];
  for (const name of names) {
    try {
      peers.push(await start(name));
    } catch (error) {
      say(`${name} is left out: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  return peers;
};

const inputOf = ({ rw, blockBytes, depth, jobs }: Cell, settings: Settings, pinning: Pinning): Omit<FioInput, 'uris'> => ({
  rw,
  blockBytes,
  depth,
  jobs,
  sizeBytes: settings.volumeBytes,
  runtimeMs: pinning === 'pinned' ? settings.runtimeMs : settings.freeRuntimeMs,
  cpus: cpusOf(pinning, CLIENT_CPUS),
});

/** How one cell is measured at one server. */
type Measure = (cell: Cell, uri: string) => Promise<{ readonly iops: number; readonly bytesPerSecond: number }>;

/** A peer that fails twice goes without this sample; twinvol must not fail. */
const measureOnce = async (measure: Measure, cell: Cell, { name, uri }: Target, say: (text: string) => void): Promise<number | null> => {
  const once = async (): Promise<number> => valueOf(cell, await measure(cell, uri));
  try {
    return await once();
  } catch (error) {
    if (name === OURS_SINGLE || name === OURS_PAIR) throw error;
  }
  try {
    return await once();
  } catch (error) {
    say(`${name} failed twice, without this sample: ${(error as Error).message.split('\n')[0]}`);
    return null;
  }
};

const measureCells = async (
  cells: readonly Cell[],
  runs: number,
  targets: readonly Target[],
  measure: Measure,
  say: (text: string) => void,
): Promise<CellSamples[]> => {
  const found: CellSamples[] = [];
  for (const cell of cells) {
    const samples: Record<string, number[]> = Object.fromEntries(targets.map(({ name }) => [name, []]));
    for (let round = 0; round < runs; round += 1) {
      for (let turn = 0; turn < targets.length; turn += 1) {
        const target = targets[(turn + round) % targets.length];
        const value = target === undefined ? null : await measureOnce(measure, cell, target, say);
        if (target !== undefined && value !== null) samples[target.name]?.push(value);
      }
    }
    say(`${cell.name}: ${targets.map(({ name }) => `${name} ${short(medianOf(samples[name] ?? []))}`).join(', ')} ${cell.unit}`);
    found.push({ cell, samples });
  }
  return found;
};

export type Rig = {
  readonly place: Workplace;
  readonly settings: Settings;
  readonly peers: readonly PeerName[];
  readonly say: (text: string) => void;
};

type CellProfile = { readonly name: string; readonly share: ThreadShare };
type Measured = {
  readonly single: CellSamples[];
  readonly pair: CellSamples[];
  /** The deep cells of the pair again, with a client that costs little. */
  readonly lean: CellSamples[];
  readonly profiles: readonly CellProfile[];
};

/** One run more of each cell, not counted, with a profile of every thread. */
const profileCells = async (settings: Settings, pinning: Pinning, directory: string, engine: EngineProcess): Promise<CellProfile[]> => {
  const found: CellProfile[] = [];
  for (const volume of ['one', 'primary']) {
    for (const cell of settings.cells) {
      const input = { uris: [engine.uri(volume)], ...inputOf(cell, settings, pinning), runtimeMs: PROFILE_MS };
      const share = await profiled(directory, `${pinning}-${volume}-${cell.id}`, () => runFio(input));
      if (share !== null) found.push({ name: `${volume === 'one' ? 'one leg' : 'pair'}, ${cell.name}, ${pinning}`, share });
    }
  }
  return found;
};

const profileTable = (profiles: readonly CellProfile[]): Table => ({
  title: "Where the engine's busiest thread spends its time (a profile slows it down a little)",
  columns: ['cell', 'busy', 'the largest shares'],
  rows: profiles.map(({ name, share }) => [
    name,
    `${Math.round(share.busyPercent)} %`,
    share.top.map((one) => `${one.name} ${Math.round(one.percent)} %`).join(', '),
  ]),
});

/** The deep cells once more, where the client has a processor of its own and may be what limits. */
const measureLean = async (
  place: Workplace,
  settings: Settings,
  runs: number,
  targets: readonly Target[],
  say: (text: string) => void,
): Promise<CellSamples[]> => {
  const cells = settings.cells.filter((cell) => targetOf(cell, 'two') > 1);
  const program = cells.length === 0 ? null : await compiledProgram(place, 'lean-client');
  if (program === null) return [];
  say(`two legs, pinned, ${LEAN}`);
  const measure: Measure = (cell, uri) => runLean(program, { uri, ...inputOf(cell, settings, 'pinned') });
  return measureCells(cells, runs, targets, measure, say);
};

type Servers = {
  readonly single: readonly Target[];
  readonly pair: readonly Target[];
};

/** The engine with a volume in no pair and a duplex pair, all full of data. */
const startOurs = async (scope: Scope, { place, settings }: Rig, file: string, pinning: Pinning): Promise<EngineProcess> => {
  const { volumeBytes, main, profile } = settings;
  const env = profile === undefined ? {} : profileEnvironment(profile);
  const engine = scope.use(await EngineProcess.start(place.path(`store-${pinning}`), { cpus: cpusOf(pinning, SERVER_CPUS), main, env }));
  for (const name of ['one', 'primary']) await engine.volume(name, volumeBytes);
  await engine.volume('secondary', volumeBytes, 'secondary');
  await engine.fill('one', file);
  await engine.fill('primary', file);
  await engine.pair('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  return engine;
};

/** The peers, and beside them the servers that show what there is room for. */
const startOthers = async (scope: Scope, { place, settings, peers, say }: Rig, pinning: Pinning): Promise<Servers> => {
  const cpus = cpusOf(pinning, SERVER_CPUS);
  const { volumeBytes } = settings;
  const copies = (count: number, name: string): string[] =>
    Array.from({ length: count }, (_, index) => {
      const path = place.path(`${name.replaceAll(/[^a-z]/g, '')}-${index}`);
      writeFullFile(path, volumeBytes);
      return path;
    });
  const limitOf = async (legs: readonly string[]): Promise<LimitServer[]> => {
    const limit = await startLimit(place, volumeBytes, legs, cpus);
    return limit === null ? [] : [scope.use(limit)];
  };
  const singles = await startedPeers(
    SINGLE_PEERS.filter((name) => peers.includes(name)),
    async (name) => scope.use(await startSingle(name, place, copies(1, name)[0] ?? '', cpus)),
    say,
  );
  const pairs = await startedPeers(
    PAIR_PEERS.filter((name) => peers.includes(name)),
    async (name) => {
      const [first = '', second = ''] = copies(2, name);
      return scope.use(await startPair(name, place, [first, second], cpus));
    },
    say,
  );
  return {
    single: singles.length === 0 ? [] : [...singles, ...(await limitOf(copies(1, 'bare one')))],
    pair: pairs.length === 0 ? [] : [...pairs, ...(await limitOf([])), ...(await limitOf(copies(2, 'bare two')))],
  };
};

/**
 * All servers of one pinning, and their cells. On tmpfs it makes some 5 % whether a server's files were there before those of the others; so
 * twinvol is started first in one sitting and last in the next.
 */
const runSitting = async (rig: Rig, pinning: Pinning, isFirst: boolean, runs: number): Promise<Measured> => {
  const { place, settings, say } = rig;
  await using scope = new Scope();
  const file = place.path('full');
  writeFullFile(file, settings.volumeBytes);
  const early = isFirst ? await startOurs(scope, rig, file, pinning) : null;
  const others = await startOthers(scope, rig, pinning);
  const engine = early ?? (await startOurs(scope, rig, file, pinning));
  const withFio: Measure = (cell, uri) => runFio({ uris: [uri], ...inputOf(cell, settings, pinning) });
  const title = `${pinning}, twinvol started ${isFirst ? 'first' : 'last'}`;
  say(`one leg, ${title}`);
  const ours = { name: OURS_SINGLE, uri: engine.uri('one') };
  const single = await measureCells(settings.cells, runs, [ours, ...others.single], withFio, say);
  say(`two legs, ${title}`);
  const both = [{ name: OURS_PAIR, uri: engine.uri('primary') }, ...others.pair];
  const pair = await measureCells(settings.cells, runs, both, withFio, say);
  const lean = pinning === 'pinned' && others.pair.length > 0 ? await measureLean(place, settings, runs, both, say) : [];
  await engine.checkEqual('primary', 'secondary');
  const { profile } = settings;
  const profiles = profile === undefined || !isFirst ? [] : await profileCells(settings, pinning, profile, engine);
  return { single, pair, lean, profiles };
};

const joined = (one: readonly CellSamples[], other: readonly CellSamples[]): CellSamples[] =>
  one.map(({ cell, samples }, index) => ({
    cell,
    samples: Object.fromEntries(Object.entries(samples).map(([name, of]) => [name, [...of, ...(other[index]?.samples[name] ?? [])]])),
  }));

const runPinning = async (rig: Rig, pinning: Pinning): Promise<Measured> => {
  const { runs } = rig.settings;
  const first = await runSitting(rig, pinning, true, Math.ceil(runs / 2));
  await rig.place.clear();
  if (runs < 2) return first;
  const second = await runSitting(rig, pinning, false, Math.floor(runs / 2));
  await rig.place.clear();
  const both = (kind: 'single' | 'pair' | 'lean'): CellSamples[] => joined(first[kind], second[kind]);
  return { single: both('single'), pair: both('pair'), lean: both('lean'), profiles: first.profiles };
};

const bestPeer = ({ samples }: CellSamples, ours: string): { readonly name: string; readonly value: number } | null => {
  const peers = Object.entries(samples).filter(([name]) => name !== ours && !LIMITS.includes(name));
  const values = peers.map(([name, of]) => ({ name, value: medianOf(of) }));
  return values.sort((a, b) => b.value - a.value)[0] ?? null;
};

const targetOf = (cell: Cell, legs: Legs): number =>
  legs === 'two' && cell.blockBytes <= 4096 && cell.depth * cell.jobs >= DEEP ? DEEP_FACTOR : 1;

const barOf = (one: CellSamples, legs: Legs, pinning: string, ours: string): Bar | null => {
  const best = bestPeer(one, ours);
  if (best === null) return null;
  const ratio = medianOf(one.samples[ours] ?? []) / best.value;
  const target = targetOf(one.cell, legs);
  const limits = LIMITS.filter((name) => one.samples[name] !== undefined).map(
    (name) => `${name}: ${times(medianOf(one.samples[name] ?? []) / best.value)}`,
  );
  return {
    what: `${legs === 'one' ? 'one leg' : 'pair'}, ${one.cell.name}, ${pinning}`,
    target: `${target === 1 ? 'at least' : `${target}x`} ${best.name}${ratio >= target || limits.length === 0 ? '' : ` (${limits.join(', ')})`}`,
    measured: times(ratio),
    isMet: ratio >= target,
  };
};

const tableOf = (found: readonly CellSamples[], legs: Legs, where: string, ours: string): Table => {
  const names = Object.keys(found[0]?.samples ?? {});
  return {
    title: `${legs === 'one' ? 'One leg' : 'Two legs'}, ${where} (medians of ${found[0]?.samples[ours]?.length ?? 0})`,
    columns: ['cell', 'unit', ...names, 'to the best peer'],
    rows: found.map((one) => {
      const best = bestPeer(one, ours);
      const values = names.map((name) => medianOf(one.samples[name] ?? []));
      const ratio = best === null ? '-' : `${times(medianOf(one.samples[ours] ?? []) / best.value)} of ${best.name}`;
      return [one.cell.name, one.cell.unit, ...values.map(short), ratio];
    }),
  };
};

const plotsOf = (found: readonly CellSamples[], legs: Legs, pinning: Pinning): Plot[] =>
  (['kIOPS', 'MB/s'] as const).flatMap((unit): Plot[] => {
    const own = found.filter(({ cell }) => cell.unit === unit);
    const names = Object.keys(own[0]?.samples ?? {});
    if (own.length === 0) return [];
    const where = WHERE[pinning];
    return [
      {
        kind: 'bars',
        file: `${legs === 'one' ? 'one-leg' : 'pair'}-${unit === 'kIOPS' ? 'iops' : 'bytes'}-${pinning}.svg`,
        title: `${legs === 'one' ? 'One leg' : 'Mirrored to two legs'}: ${unit === 'kIOPS' ? '4 KiB random' : 'sequential'}, ${where}`,
        unit: unit === 'kIOPS' ? 'thousand requests a second' : 'MB/s',
        groups: own.map(({ cell }) => cell.name),
        series: names.map((name) => ({ name, values: own.map(({ samples }) => medianOf(samples[name] ?? [])) })),
      },
    ];
  });

/** Cells of one table: how they were measured, and what is shown of them. */
type Found = {
  readonly pinning: Pinning;
  readonly client: 'fio' | typeof LEAN;
  readonly legs: Legs;
  readonly ours: string;
  readonly found: CellSamples[];
};

const whereOf = ({ pinning, client }: Found): string => (client === LEAN ? `${WHERE[pinning]}, ${LEAN}` : WHERE[pinning]);

/** The part `throughput`. */
export const throughput = async (rig: Rig): Promise<Section> => {
  const raw: Found[] = [];
  const profiles: CellProfile[] = [];
  for (const pinning of rig.settings.pinnings) {
    const { single, pair, lean, profiles: own } = await runPinning(rig, pinning);
    profiles.push(...own);
    raw.push({ pinning, client: 'fio', legs: 'one', ours: OURS_SINGLE, found: single });
    raw.push({ pinning, client: 'fio', legs: 'two', ours: OURS_PAIR, found: pair });
    if (lean.length > 0) raw.push({ pinning, client: LEAN, legs: 'two', ours: OURS_PAIR, found: lean });
  }
  return {
    id: 'throughput',
    title: 'Rate, side by side',
    text: [
      `fio's nbd engine over a unix socket, files on tmpfs and full of data, ${rig.settings.volumeBytes / 2 ** 20} MiB; every server on the same work in turns. ` +
        'twinvol has everything on that a user has on: locks, dirty bits, intents, access checks, logging.',
      `"${NOTHING}" and "${ONLY_IO}" are no peers: a small server in C that answers each request without doing anything, and the same one that reads ` +
        'and writes the files and does nothing else: no locks, no bitmap. What they reach shows how much of a cell is the client, the sockets and the system ' +
        'calls; it is no ceiling, since they poll less and answer in larger groups than twinvol does. They are shown with each target that was missed.',
      `"${LEAN}" is a second client, in C, for the deep cells of the pair on one processor: it sends and takes as much as it can with one call, so ` +
        'that the servers limit and not the client.',
    ],
    bars: raw.flatMap(({ pinning, client, legs, ours, found }) =>
      found.map((one) => barOf(one, legs, client === LEAN ? `${pinning}, ${LEAN}` : pinning, ours)).filter((bar) => bar !== null),
    ),
    tables: [
      ...raw.map((one) => tableOf(one.found, one.legs, whereOf(one), one.ours)),
      ...(profiles.length === 0 ? [] : [profileTable(profiles)]),
    ],
    plots: raw.filter(({ client }) => client === 'fio').flatMap(({ pinning, legs, found }) => plotsOf(found, legs, pinning)),
    raw,
  };
};
