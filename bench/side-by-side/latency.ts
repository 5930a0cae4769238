/** Latency and rate of 4 KiB writes to a pair: alone, during its initial copy, during a resync, across a split. */
import { EngineProcess } from './engine-process.ts';
import { type FioResult, runFio } from './fio.ts';
import { latency as us, medianOf, medians, short, times } from './numbers.ts';
import type { Bar, Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const DEPTHS = [1, 16];
const SITUATIONS = ['alone', 'initial copy', 'resync', 'across a split'] as const;
type Situation = (typeof SITUATIONS)[number];
/** Longer than a cell, so that p99.9 has requests behind it, and shorter than the copies. */
const RUNTIME_FACTOR = 1.5;
/** The host keeps at least this of its rate at medium pace. */
const HOST_SHARE_MIN = 0.5;
const KEYS = ['iops', 'p50Us', 'p99Us', 'p999Us', 'maxUs', 'copyShare'] as const;

type Sample = Omit<FioResult, 'jobIops' | 'bytesPerSecond'> & {
  /** Share of the run in which the copy was under way. */
  readonly copyShare: number;
};

class LatencyRig {
  readonly #engine: EngineProcess;
  readonly #sizeBytes: number;
  readonly #runtimeMs: number;

  constructor(engine: EngineProcess, sizeBytes: number, runtimeMs: number) {
    this.#engine = engine;
    this.#sizeBytes = sizeBytes;
    this.#runtimeMs = runtimeMs;
  }

  /** The pair is duplex before and after. */
  async measure(situation: Situation, depth: number): Promise<Sample> {
    switch (situation) {
      case 'alone':
        return this.#load(depth, () => Promise.resolve());
      case 'initial copy':
        await this.#engine.release('primary', 'secondary');
        await this.#engine.pair('primary', 'secondary');
        return this.#load(depth, () => this.#duplex());
      case 'resync':
        // Everything is dirty on both sides of a split that was written to in full.
        await this.#engine.split('primary', 'secondary');
        await runFio({ ...this.#input(4), rw: 'write', blockBytes: 2 ** 20, runtimeMs: this.#runtimeMs });
        await this.#engine.resync('primary', 'secondary');
        return this.#load(depth, () => this.#duplex());
      case 'across a split': {
        const sample = await this.#load(depth, async () => {
          await new Promise((resolve) => setTimeout(resolve, this.#runtimeMs / 2));
          await this.#engine.split('primary', 'secondary');
        });
        await this.#engine.resync('primary', 'secondary');
        await this.#duplex();
        return { ...sample, copyShare: 0 };
      }
    }
  }

  #duplex(): Promise<void> {
    return this.#engine.until('primary', 'secondary', 'duplex');
  }

  #input(depth: number) {
    return {
      uris: [this.#engine.uri('primary')],
      rw: 'randwrite' as const,
      blockBytes: 4096,
      depth,
      jobs: 1,
      sizeBytes: this.#sizeBytes,
      runtimeMs: this.#runtimeMs,
      cpus: CLIENT_CPUS,
    };
  }

  /** Writes while something else goes on, and waits for both. */
  async #load(depth: number, meanwhile: () => Promise<void>): Promise<Sample> {
    const startMs = performance.now();
    const other = meanwhile().then(() => performance.now() - startMs);
    const result = await runFio(this.#input(depth));
    const otherMs = await other;
    const { iops, p50Us, p99Us, p999Us, maxUs } = result;
    return { iops, p50Us, p99Us, p999Us, maxUs, copyShare: Math.min(1, otherMs / this.#runtimeMs) };
  }
}

type Measured = { readonly depth: number; readonly situation: Situation; readonly samples: Sample[] };

const barsOf = (raw: readonly Measured[]): Bar[] =>
  DEPTHS.map((depth) => {
    const rate = (situation: Situation): number =>
      medianOf(raw.find((one) => one.depth === depth && one.situation === situation)?.samples.map(({ iops }) => iops) ?? []);
    const share = rate('initial copy') / rate('alone');
    return {
      what: `host at depth ${depth} during an initial copy, medium pace`,
      target: 'keeps at least half of its rate',
      measured: times(share),
      isMet: share >= HOST_SHARE_MIN,
    };
  });

export const latencies = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  const runtimeMs = settings.runtimeMs * RUNTIME_FACTOR;
  const sizeBytes = settings.copyBytes;
  await using engine = await EngineProcess.start(place.path('store'), { cpus: SERVER_CPUS, main: settings.main });
  const file = place.path('full');
  writeFullFile(file, sizeBytes);
  await engine.volume('primary', sizeBytes);
  await engine.volume('secondary', sizeBytes, 'secondary');
  await engine.fill('primary', file);
  await place.remove('full');
  await engine.pair('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  const rig = new LatencyRig(engine, sizeBytes, runtimeMs);
  const raw: Measured[] = DEPTHS.flatMap((depth) => SITUATIONS.map((situation) => ({ depth, situation, samples: [] })));
  for (let round = 0; round < settings.runs; round += 1) {
    for (const { depth, situation, samples } of raw) samples.push(await rig.measure(situation, depth));
  }
  await engine.checkEqual('primary', 'secondary');
  const rows = raw.map(({ depth, situation, samples }) => ({ depth, situation, ...medians(samples, KEYS) }));
  for (const row of rows)
    say(
      `depth ${row.depth}, ${row.situation}: ${short(row.iops / 1000)} kIOPS, p50 ${us(row.p50Us)}, p99 ${us(row.p99Us)}, p99.9 ${us(row.p999Us)}`,
    );
  return {
    id: 'latency',
    title: 'Latency of 4 KiB writes to a pair',
    text: [
      `fio at depth 1 and 16 on a pair of ${sizeBytes / 2 ** 20} MiB; server and copy on one processor, the client on the other; pace medium. ` +
        'A copy that ends before the run does is said (share of the run with a copy).',
    ],
    bars: barsOf(raw),
    tables: [
      {
        title: `Medians of ${settings.runs} runs of ${runtimeMs / 1000} s`,
        columns: ['depth', 'situation', 'kIOPS', 'p50', 'p99', 'p99.9', 'max', 'share with a copy'],
        rows: rows.map((row) => [
          String(row.depth),
          row.situation,
          short(row.iops / 1000),
          us(row.p50Us),
          us(row.p99Us),
          us(row.p999Us),
          us(row.maxUs),
          row.situation === 'initial copy' || row.situation === 'resync' ? `${Math.round(row.copyShare * 100)} %` : '-',
        ]),
      },
    ],
    plots: DEPTHS.map((depth) => ({
      kind: 'bars' as const,
      file: `latency-depth-${depth}.svg`,
      title: `Latency of 4 KiB writes to a pair, depth ${depth}`,
      unit: 'microseconds',
      groups: [...SITUATIONS],
      series: (['p50Us', 'p99Us', 'p999Us'] as const).map((key) => ({
        name: { p50Us: 'p50', p99Us: 'p99', p999Us: 'p99.9' }[key],
        values: rows.filter((row) => row.depth === depth).map((row) => row[key]),
      })),
    })),
    raw,
  };
};
