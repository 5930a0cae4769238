/** How long a resync takes, over what is dirty: 0.1, 1, 10 and 50 per cent, as scattered single regions and in one piece. */
import { connect } from '../../src/nbd-client/nbd-client.ts';
import { EngineProcess } from './engine-process.ts';
import { medianOf, short } from './numbers.ts';
import type { Section } from './section.ts';
import type { Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const SHARES = [0.001, 0.01, 0.1, 0.5];
const PATTERNS = ['scattered', 'in one piece'] as const;
type Pattern = (typeof PATTERNS)[number];
const BLOCK_BYTES = 4096;
const WRITES_AT_ONCE = 256;
/** What 1 per cent may cost of a full copy, beside what a resync of nothing costs. */
const ONE_PERCENT_MAX = 0.02;
/** Larger than what is copied elsewhere, so that fixed costs show as what they are. */
const SIZE_FACTOR = 2;

type Point = { readonly pattern: Pattern; readonly share: number; readonly dirtyBytes: number; readonly elapsedMs: number[] };

/** Writes a block into each of `count` dirty regions. */
const dirty = async (uri: string, regionBytes: number, regions: number, count: number, pattern: Pattern): Promise<void> => {
  await using client = await connect({ uri });
  const block = Buffer.alloc(BLOCK_BYTES, 0xd1);
  const step = pattern === 'scattered' ? regions / count : 1;
  for (let first = 0; first < count; first += WRITES_AT_ONCE) {
    const writes = Array.from({ length: Math.min(WRITES_AT_ONCE, count - first) }, (_, index) =>
      client.write(Math.floor((first + index) * step) * regionBytes, block),
    );
    await Promise.all(writes);
  }
};

const resyncOnce = async (engine: EngineProcess): Promise<number> => {
  const startMs = performance.now();
  await engine.resync('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  return performance.now() - startMs;
};

export const resyncCurve = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  const sizeBytes = settings.copyBytes * SIZE_FACTOR;
  await using engine = await EngineProcess.start(place.path('store'), { cpus: null, main: settings.main });
  const file = place.path('full');
  writeFullFile(file, sizeBytes);
  const uri = await engine.volume('primary', sizeBytes);
  await engine.volume('secondary', sizeBytes, 'secondary');
  await engine.fill('primary', file);
  await place.remove('full');
  const startMs = performance.now();
  await engine.pair('primary', 'secondary', 15);
  await engine.until('primary', 'secondary', 'duplex');
  const fullMs = performance.now() - startMs;
  const regionBytes = (await engine.pairView('primary'))?.dirtyRegionBytes ?? 0;
  const regions = Math.ceil(sizeBytes / regionBytes);
  const points: Point[] = [];
  const nothingMs: number[] = [];
  for (let round = 0; round < settings.runs; round += 1) {
    await engine.split('primary', 'secondary');
    nothingMs.push(await resyncOnce(engine));
  }
  for (const pattern of PATTERNS) {
    for (const share of SHARES) {
      const count = Math.max(1, Math.round(regions * share));
      const elapsedMs: number[] = [];
      for (let round = 0; round < settings.runs; round += 1) {
        await engine.split('primary', 'secondary');
        await dirty(uri, regionBytes, regions, count, pattern);
        const told = (await engine.pairView('primary'))?.dirtyBytes.union ?? 0;
        if (told !== count * regionBytes) throw new Error(`${told} bytes are dirty, and ${count * regionBytes} were made dirty`);
        elapsedMs.push(await resyncOnce(engine));
      }
      say(`${share * 100} % ${pattern}: ${short(medianOf(elapsedMs))} ms`);
      points.push({ pattern, share, dirtyBytes: count * regionBytes, elapsedMs });
    }
  }
  await engine.checkEqual('primary', 'secondary');
  const nothing = medianOf(nothingMs);
  const costOf = ({ elapsedMs }: Point): number => Math.max(0, medianOf(elapsedMs) - nothing) / fullMs;
  return {
    id: 'resync',
    title: 'Resync over what is dirty',
    text: [
      `A pair of ${sizeBytes / 2 ** 20} MiB, all of it data, dirty regions of ${regionBytes / 1024} KiB. The first, full copy took ${short(fullMs)} ms; ` +
        `a resync of nothing takes ${short(nothing)} ms (commands, durable states). Nothing is pinned, no host is at work.`,
    ],
    bars: points
      .filter(({ share }) => share === 0.01)
      .map((point) => ({
        what: `resync, 1 % dirty, ${point.pattern}`,
        target: 'about 1 % of a full copy, beside the fixed cost',
        measured: `${(costOf(point) * 100).toFixed(2)} %`,
        isMet: costOf(point) <= ONE_PERCENT_MAX,
      })),
    tables: [
      {
        title: `Milliseconds (medians of ${settings.runs})`,
        columns: ['dirty', 'MiB', ...PATTERNS, ...PATTERNS.map((pattern) => `of a full copy, ${pattern}`)],
        rows: SHARES.map((share) => {
          const own = PATTERNS.map((pattern) => points.find((point) => point.share === share && point.pattern === pattern));
          return [
            `${share * 100} %`,
            short((own[0]?.dirtyBytes ?? 0) / 2 ** 20),
            ...own.map((point) => short(medianOf(point?.elapsedMs ?? []))),
            ...own.map((point) => (point === undefined ? '-' : `${(costOf(point) * 100).toFixed(2)} %`)),
          ];
        }),
      },
    ],
    plots: [
      {
        kind: 'lines',
        file: 'resync.svg',
        title: 'A resync takes what its dirty bytes take',
        unit: 'milliseconds',
        xTitle: 'per cent of the volume that is dirty',
        isLogarithmic: true,
        series: [
          ...PATTERNS.map((pattern) => ({
            name: pattern,
            points: points
              .filter((point) => point.pattern === pattern)
              .map((point) => [point.share * 100, medianOf(point.elapsedMs)] as const),
          })),
          { name: 'share of the full copy', points: [...SHARES, 1].map((share) => [share * 100, fullMs * share] as const) },
        ],
      },
    ],
    raw: { fullMs, nothingMs, points },
  };
};
