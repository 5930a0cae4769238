/**
 * What the intent log costs writes whose extents are hot: a duplex pair, written at random over 1 GiB, by the engine as
 * it is and by one in which marking an extent does nothing.
 *
 * No engine can be told to leave its marks out: such a switch would be a way to lose data. So the second one is a copy of
 * the build with one function changed, made here and removed with the other files of the run.
 */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { GiB } from '../../src/core/units.ts';
import { CELLS, type Cell, valueOf } from './cells.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { medianOf, short, times } from './numbers.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const RATIO_MIN = 0.9;
const CELL_IDS = ['4k-write-1', '4k-write-16', '4k-write-4x16'];
/** Marked whole in a moment: 256 extents. */
export const INTENT_VOLUME_BYTES: number = 1 * GiB;
/** A ratio near 1 needs more rounds than one near 3. */
const ROUNDS_MIN = 7;
const MARK = 'mark(offset, length) {';

type Which = 'with' | 'without';

/**
 * A copy of a build whose `Intents.mark` does nothing.
 * @param main the command line of the build
 * @returns that of the copy
 * @throws Error when the function is not found, so that nobody compares an engine with itself
 */
export const buildWithoutIntents = (main: string, folder: string): string => {
  const dist = resolve(dirname(main), '../..');
  cpSync(dist, join(folder, 'dist'), { recursive: true, filter: (path) => !path.endsWith('.map') });
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n');
  symlinkSync(join(dirname(dist), 'node_modules'), join(folder, 'node_modules'));
  const file = join(folder, 'dist/src/data/intents.js');
  const text = readFileSync(file, 'utf8');
  if (text.split(MARK).length !== 2) throw new Error(`${file} does not have one "${MARK}": this build cannot be compared with itself`);
  writeFileSync(file, text.replace(MARK, `${MARK} return true;`));
  return join(folder, 'dist/src/cli/main.js');
};

/** A duplex pair full of data. */
const startPair = async (place: Workplace, which: Which, main: string, file: string): Promise<EngineProcess> => {
  const engine = await EngineProcess.start(place.path(`${which}-store`), { cpus: SERVER_CPUS, main });
  try {
    await engine.volume('primary', INTENT_VOLUME_BYTES);
    await engine.volume('secondary', INTENT_VOLUME_BYTES, 'secondary');
    await engine.fill('primary', file);
    await engine.pair('primary', 'secondary', 15);
    await engine.until('primary', 'secondary', 'duplex');
    return engine;
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
};

/** `cpuUs`: the engine's processor time for each request. */
type Sample = { readonly value: number; readonly cpuUs: number };

const measured = async (engine: EngineProcess, cell: Cell, runtimeMs: number): Promise<Sample> => {
  const { rw, blockBytes, depth, jobs } = cell;
  const input = { uris: [engine.uri('primary')], rw, blockBytes, depth, jobs, sizeBytes: INTENT_VOLUME_BYTES, cpus: CLIENT_CPUS };
  // While the other one was measured its extents became cold, and their marks were dropped.
  await runFio({ ...input, runtimeMs });
  const before = await engine.cpuSeconds();
  const result = await runFio({ ...input, runtimeMs });
  const requests = (result.iops * runtimeMs) / 1000;
  return { value: valueOf(cell, result), cpuUs: (((await engine.cpuSeconds()) - before) * 1e6) / requests };
};

const medianFor = (samples: readonly Sample[], key: keyof Sample): number => medianOf(samples.map((sample) => sample[key]));

export const intentLog = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  const file = place.path('full');
  writeFullFile(file, INTENT_VOLUME_BYTES);
  const without = buildWithoutIntents(settings.main, place.path('without'));
  await using engineWith = await startPair(place, 'with', settings.main, file);
  await using engineWithout = await startPair(place, 'without', without, file);
  await place.remove('full');
  const rounds = Math.max(settings.runs, settings.isQuick ? 1 : ROUNDS_MIN);
  const raw: Array<{ readonly cell: string; readonly unit: string; readonly with: Sample[]; readonly without: Sample[] }> = [];
  for (const cell of CELLS.filter(({ id, isQuick }) => CELL_IDS.includes(id) && (isQuick || !settings.isQuick))) {
    const samples = { cell: cell.name, unit: cell.unit, with: [] as Sample[], without: [] as Sample[] };
    for (let round = 0; round < rounds; round += 1) {
      const order: readonly Which[] = round % 2 === 0 ? ['with', 'without'] : ['without', 'with'];
      for (const which of order)
        samples[which].push(await measured(which === 'with' ? engineWith : engineWithout, cell, settings.runtimeMs));
    }
    say(
      `${cell.name}: with ${short(medianFor(samples.with, 'value'))}, without ${short(medianFor(samples.without, 'value'))} ${cell.unit}`,
    );
    raw.push(samples);
  }
  await engineWith.checkEqual('primary', 'secondary');
  // Within a round the two are a moment apart, so the ratio is taken there.
  const ratioOf = (one: (typeof raw)[number]): number =>
    medianOf(one.with.map(({ value }, index) => value / (one.without[index]?.value ?? value)));
  return {
    id: 'intents',
    title: 'A duplex pair with its intent log and without',
    text: [
      'Random writes over 1 GiB, all of whose 256 extents are hot after a warm-up before each measurement. "Without" is the same build with a mark that does nothing: it would lose its place after a crash. The ratio is taken round by round; medians. The processor time is that of the engine for each write: it says more than the rate where the machine has other work.',
    ],
    bars: raw.map((one) => ({
      what: `the intent log, ${one.cell} over 1 GiB`,
      target: `at least ${RATIO_MIN} of the rate without`,
      measured: times(ratioOf(one)),
      isMet: ratioOf(one) >= RATIO_MIN,
    })),
    tables: [
      {
        title: `Server and client on a processor each (medians of ${rounds})`,
        columns: ['cell', 'unit', 'without', 'with', 'ratio', 'processor time without', 'with'],
        rows: raw.map((one) => [
          one.cell,
          one.unit,
          short(medianFor(one.without, 'value')),
          short(medianFor(one.with, 'value')),
          times(ratioOf(one)),
          `${short(medianFor(one.without, 'cpuUs'))} us`,
          `${short(medianFor(one.with, 'cpuUs'))} us`,
        ]),
      },
    ],
    plots: [],
    raw,
  };
};
