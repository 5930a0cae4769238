/** The initial copy of a pair against the tools that copy images, on the same data: a full volume, and one a quarter full. */
import { statSync } from 'node:fs';
import { findProgram } from '../../src/platform/program.ts';
import { EngineProcess } from './engine-process.ts';
import { medianOf, short, times } from './numbers.ts';
import { runProgram } from './owned-process.ts';
import type { Bar, Section } from './section.ts';
import type { Settings } from './settings.ts';
import { type Workplace, writeFullFile, writeSparseFile } from './workplace.ts';

const COPY_MS_MAX = 300_000;
const PACE_FAST = 15;
const OURS = 'twinvol pair create';
const QUARTER = 0.25;

type Tool = { readonly name: string; readonly program: string; readonly args: (from: string, to: string) => readonly string[] };
const TOOLS: readonly Tool[] = [
  { name: 'cp --sparse=always', program: 'cp', args: (from, to) => ['--sparse=always', from, to] },
  { name: 'qemu-img convert', program: 'qemu-img', args: (from, to) => ['convert', '-f', 'raw', '-O', 'raw', from, to] },
  { name: 'nbdcopy', program: 'nbdcopy', args: (from, to) => [from, to] },
];

type Timed = { readonly kind: string; readonly dataBytes: number; readonly elapsedMs: Readonly<Record<string, number[]>> };

const copyByEngine = async (engine: EngineProcess, source: string, target: string, sizeBytes: number): Promise<number> => {
  await engine.volume(target, sizeBytes, 'secondary');
  const startMs = performance.now();
  await engine.pair(source, target, PACE_FAST);
  await engine.until(source, target, 'duplex');
  return performance.now() - startMs;
};

const measureKind = async (
  settings: Settings,
  place: Workplace,
  engine: EngineProcess,
  kind: 'full' | 'a quarter written',
  say: (text: string) => void,
): Promise<Timed> => {
  const { copyBytes, runs } = settings;
  const file = place.path('source');
  if (kind === 'full') writeFullFile(file, copyBytes);
  else writeSparseFile(file, copyBytes, QUARTER);
  const source = `source-${kind === 'full' ? 'full' : 'sparse'}`;
  await engine.volume(source, copyBytes);
  await engine.fill(source, file, COPY_MS_MAX);
  const tools = TOOLS.filter(({ program }) => findProgram(program) !== null);
  const elapsedMs: Record<string, number[]> = Object.fromEntries([OURS, ...tools.map(({ name }) => name)].map((name) => [name, []]));
  for (let round = 0; round < runs; round += 1) {
    const target = `${source}-target-${round}`;
    elapsedMs[OURS]?.push(await copyByEngine(engine, source, target, copyBytes));
    if (round === 0) await engine.checkEqual(source, target);
    await engine.release(source, target);
    await engine.remove(target);
    await engine.settle();
    for (const { name, program, args } of tools) {
      const copied = await runProgram(program, args(file, place.path('target')), COPY_MS_MAX);
      elapsedMs[name]?.push(copied.elapsedMs);
      await place.remove('target');
    }
  }
  const dataBytes = statSync(file).blocks * 512;
  say(
    `${kind}: ${Object.entries(elapsedMs)
      .map(([name, of]) => `${name} ${Math.round(medianOf(of))} ms`)
      .join(', ')}`,
  );
  await engine.remove(source);
  await engine.settle();
  await place.remove('source');
  return { kind, dataBytes, elapsedMs };
};

const barOf = ({ kind, elapsedMs }: Timed): Bar[] => {
  const others = Object.entries(elapsedMs)
    .filter(([name]) => name !== OURS)
    .map(([name, of]) => ({ name, ms: medianOf(of) }))
    .sort((a, b) => a.ms - b.ms);
  const [best] = others;
  if (best === undefined) return [];
  const ratio = best.ms / medianOf(elapsedMs[OURS] ?? []);
  return [{ what: `initial copy, ${kind}`, target: `not slower than ${best.name}`, measured: times(ratio), isMet: ratio >= 1 }];
};

export const copying = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  await using engine = await EngineProcess.start(place.path('store'), { cpus: null, main: settings.main });
  const raw = [
    await measureKind(settings, place, engine, 'full', say),
    await measureKind(settings, place, engine, 'a quarter written', say),
  ];
  const names = Object.keys(raw[0]?.elapsedMs ?? {});
  return {
    id: 'copy',
    title: 'Initial copy',
    text: [
      `A volume of ${settings.copyBytes / 2 ** 20} MiB on tmpfs, to a new secondary (our time ends when the pair is duplex, which includes making it ` +
        'durable), and the same content as a file with the tools that copy images. Nothing is pinned; pace fast, no host at work.',
    ],
    bars: raw.flatMap(barOf),
    tables: [
      {
        title: `Milliseconds (medians of ${settings.runs})`,
        columns: ['content', ...names, 'MB/s of data, twinvol'],
        rows: raw.map(({ kind, dataBytes, elapsedMs }) => [
          kind,
          ...names.map((name) => short(medianOf(elapsedMs[name] ?? []))),
          short(dataBytes / 1e3 / medianOf(elapsedMs[OURS] ?? [])),
        ]),
      },
    ],
    plots: [
      {
        kind: 'bars',
        file: 'initial-copy.svg',
        title: `Copying ${settings.copyBytes / 2 ** 20} MiB, a shorter bar is better`,
        unit: 'milliseconds',
        groups: raw.map(({ kind }) => kind),
        series: names.map((name) => ({ name, values: raw.map(({ elapsedMs }) => medianOf(elapsedMs[name] ?? [])) })),
      },
    ],
    raw,
  };
};
