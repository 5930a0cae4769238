/** A primary whose pair is split, against a volume in no pair: what the tracking of dirty regions costs. */
import { CELLS, valueOf } from './cells.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { medianOf, short, times } from './numbers.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const RATIO_MIN = 0.95;
const CELL_IDS = ['4k-write-1', '4k-write-16', '4k-read-16', '4k-write-4x16', '64k-write', '1m-write'];
/** A ratio near 1 needs more rounds than one near 3. */
const ROUNDS_FACTOR = 2;

export const splitPrimary = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  await using engine = await EngineProcess.start(place.path('store'), { cpus: SERVER_CPUS, main: settings.main });
  const file = place.path('full');
  writeFullFile(file, settings.volumeBytes);
  for (const name of ['plain', 'primary']) await engine.volume(name, settings.volumeBytes);
  await engine.volume('secondary', settings.volumeBytes, 'secondary');
  for (const name of ['plain', 'primary']) await engine.fill(name, file);
  await engine.pair('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  await engine.split('primary', 'secondary');
  const raw: Array<{ readonly cell: string; readonly unit: string; readonly plain: number[]; readonly split: number[] }> = [];
  const cells = CELLS.filter(({ id, isQuick }) => CELL_IDS.includes(id) && (isQuick || !settings.isQuick));
  for (const cell of cells) {
    const samples = { cell: cell.name, unit: cell.unit, plain: [] as number[], split: [] as number[] };
    for (let round = 0; round < settings.runs * ROUNDS_FACTOR; round += 1) {
      const order = round % 2 === 0 ? (['plain', 'split'] as const) : (['split', 'plain'] as const);
      for (const which of order) {
        const uris = [engine.uri(which === 'plain' ? 'plain' : 'primary')];
        const { rw, blockBytes, depth, jobs } = cell;
        const { volumeBytes: sizeBytes, runtimeMs } = settings;
        samples[which].push(valueOf(cell, await runFio({ uris, rw, blockBytes, depth, jobs, sizeBytes, runtimeMs, cpus: CLIENT_CPUS })));
      }
    }
    say(`${cell.name}: simplex ${short(medianOf(samples.plain))}, split ${short(medianOf(samples.split))} ${cell.unit}`);
    raw.push(samples);
  }
  // Within a round the two are a moment apart, so the ratio is taken there.
  const ratioOf = (one: (typeof raw)[number]): number => medianOf(one.split.map((value, index) => value / (one.plain[index] ?? value)));
  return {
    id: 'split',
    title: 'A split primary against a volume in no pair',
    text: ['Every write of a split primary finds its dirty bit and its intent. The ratio is taken round by round; medians.'],
    bars: raw.map((one) => ({
      what: `split primary, ${one.cell}`,
      target: `at least ${RATIO_MIN} of simplex`,
      measured: times(ratioOf(one)),
      isMet: ratioOf(one) >= RATIO_MIN,
    })),
    tables: [
      {
        title: `Server and client on a processor each (medians of ${settings.runs * ROUNDS_FACTOR})`,
        columns: ['cell', 'unit', 'simplex', 'split', 'ratio'],
        rows: raw.map((one) => [one.cell, one.unit, short(medianOf(one.plain)), short(medianOf(one.split)), times(ratioOf(one))]),
      },
    ],
    plots: [],
    raw,
  };
};
