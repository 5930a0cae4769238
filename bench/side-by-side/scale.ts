/** The rate over many volumes: 1, 4, 16 and 100 of them, a connection each, under load at once. */
import { MiB } from '../../src/core/units.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { medianOf, short } from './numbers.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const COUNTS = [1, 4, 16, 100];
const KINDS = ['randwrite', 'randread'] as const;
const VOLUME_BYTES = 16 * MiB;
const DEPTH = 4;

type Measured = { readonly count: number; readonly rw: (typeof KINDS)[number]; readonly kiops: number[]; readonly fairness: number[] };

export const scale = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  await using engine = await EngineProcess.start(place.path('store'), { cpus: SERVER_CPUS, main: settings.main });
  const file = place.path('full');
  writeFullFile(file, VOLUME_BYTES);
  const uris: string[] = [];
  for (let index = 0; index < Math.max(...COUNTS); index += 1) {
    uris.push(await engine.volume(`v${index}`, VOLUME_BYTES));
    await engine.fill(`v${index}`, file);
  }
  const raw: Measured[] = COUNTS.flatMap((count) => KINDS.map((rw) => ({ count, rw, kiops: [], fairness: [] })));
  for (let round = 0; round < settings.runs; round += 1) {
    for (const { count, rw, kiops, fairness } of raw) {
      const result = await runFio({
        uris: uris.slice(0, count),
        rw,
        blockBytes: 4096,
        depth: DEPTH,
        jobs: 1,
        sizeBytes: VOLUME_BYTES,
        runtimeMs: settings.runtimeMs,
        cpus: CLIENT_CPUS,
      });
      kiops.push(result.iops / 1000);
      fairness.push(Math.min(...result.jobIops) / (result.iops / count));
    }
  }
  for (const { count, rw, kiops, fairness } of raw)
    say(`${count} volumes, ${rw}: ${short(medianOf(kiops))} kIOPS, least share ${short(medianOf(fairness))}`);
  return {
    id: 'scale',
    title: 'Many volumes under load',
    text: [
      `4 KiB random, a connection of depth ${DEPTH} to each volume; server and client on a processor each. The least share is that of the slowest volume of the mean.`,
    ],
    bars: [],
    tables: [
      {
        title: `Medians of ${settings.runs}`,
        columns: ['volumes', 'write, kIOPS', 'least share', 'read, kIOPS', 'least share'],
        rows: COUNTS.map((count) => [
          String(count),
          ...KINDS.flatMap((rw) => {
            const one = raw.find((candidate) => candidate.count === count && candidate.rw === rw);
            return [short(medianOf(one?.kiops ?? [])), short(medianOf(one?.fairness ?? []))];
          }),
        ]),
      },
    ],
    plots: [
      {
        kind: 'bars',
        file: 'volumes.svg',
        title: 'Volumes under load at once',
        unit: 'thousand requests a second',
        groups: COUNTS.map((count) => `${count} ${count === 1 ? 'volume' : 'volumes'}`),
        series: KINDS.map((rw) => ({
          name: rw === 'randwrite' ? '4k write' : '4k read',
          values: COUNTS.map((count) => medianOf(raw.find((one) => one.count === count && one.rw === rw)?.kiops ?? [])),
        })),
      },
    ],
    raw,
  };
};
