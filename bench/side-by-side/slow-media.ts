/**
 * A volume on slow media beside a quick one: what the quick one keeps of its rate while the slow one is under load. The
 * media are slowed by the engine's own fault rules: reads of 10 ms, flushes of 20 ms, a secondary's leg of 10 ms.
 */
import { MiB } from '../../src/core/units.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { medianOf, short, times } from './numbers.ts';
import { OwnedProcess } from './owned-process.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import { type Workplace, writeFullFile } from './workplace.ts';

const RATIO_MIN = 0.9;
const VOLUME_BYTES = 64 * MiB;
const SETTLE_MS = 100;
const KINDS = ['randwrite', 'randread'] as const;

type Slowness = {
  readonly name: string;
  readonly volume: string;
  readonly fault: { readonly volume: string; readonly error: 'read' | 'write' | 'flush'; readonly latencyMs: number };
  /** fio's words for the load on it. */
  readonly load: readonly string[];
};
const SLOWNESSES: readonly Slowness[] = [
  { name: 'reads of 10 ms', volume: 'slow', fault: { volume: 'slow', error: 'read', latencyMs: 10 }, load: ['--rw=randread'] },
  {
    name: 'flushes of 20 ms',
    volume: 'slow',
    fault: { volume: 'slow', error: 'flush', latencyMs: 20 },
    load: ['--rw=randwrite', '--fsync=4'],
  },
  { name: 'a leg of 10 ms', volume: 'primary', fault: { volume: 'secondary', error: 'write', latencyMs: 10 }, load: ['--rw=randwrite'] },
];

type Measured = { readonly name: string; readonly rw: (typeof KINDS)[number]; readonly alone: number[]; readonly beside: number[] };

/** Load on the slow volume until the scope ends. */
const loadOn = (uri: string, words: readonly string[], limitMs: number): OwnedProcess =>
  new OwnedProcess(
    'fio',
    [
      '--name=slow',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--bs=4096',
      '--iodepth=16',
      `--size=${VOLUME_BYTES}`,
      '--time_based',
      `--runtime=${limitMs}ms`,
      ...words,
    ],
    { cpus: CLIENT_CPUS },
  );

/** Its connection has been at work for a moment. */
const isLoaded = async (engine: EngineProcess, volume: string): Promise<boolean> => {
  const clients = await engine.client.call('client.list', {});
  return clients.some((client) => client.volume?.name === volume && client.requests > 16);
};

const rateOf = async (engine: EngineProcess, rw: (typeof KINDS)[number], runtimeMs: number): Promise<number> => {
  const result = await runFio({
    uris: [engine.uri('quick')],
    rw,
    blockBytes: 4096,
    depth: 16,
    jobs: 1,
    sizeBytes: VOLUME_BYTES,
    runtimeMs,
    cpus: CLIENT_CPUS,
  });
  return result.iops / 1000;
};

const measure = async (engine: EngineProcess, slowness: Slowness, settings: Settings): Promise<Measured[]> => {
  const { runs, runtimeMs } = settings;
  const found: Measured[] = KINDS.map((rw) => ({ name: slowness.name, rw, alone: [], beside: [] }));
  for (let round = 0; round < runs; round += 1) {
    for (const one of found) {
      one.alone.push(await rateOf(engine, one.rw, runtimeMs));
      const { id } = await engine.client.call('fault.add', { errno: 'none', ...slowness.fault });
      await using load = loadOn(engine.uri(slowness.volume), slowness.load, runtimeMs + 20_000);
      await load.until(() => isLoaded(engine, slowness.volume), 'sent anything');
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      one.beside.push(await rateOf(engine, one.rw, runtimeMs));
      if (load.isOver) throw new Error(`the load on the slow volume ended early:\n${load.output}`);
      await engine.client.call('fault.clear', { id });
    }
  }
  return found;
};

export const slowMedia = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  await using engine = await EngineProcess.start(place.path('store'), { cpus: SERVER_CPUS, main: settings.main });
  const file = place.path('full');
  writeFullFile(file, VOLUME_BYTES);
  for (const name of ['quick', 'slow', 'primary']) {
    await engine.volume(name, VOLUME_BYTES);
    await engine.fill(name, file);
  }
  await engine.volume('secondary', VOLUME_BYTES, 'secondary');
  await engine.pair('primary', 'secondary');
  await engine.until('primary', 'secondary', 'duplex');
  const raw: Measured[] = [];
  for (const slowness of SLOWNESSES) raw.push(...(await measure(engine, slowness, settings)));
  const ratioOf = ({ alone, beside }: Measured): number => medianOf(beside.map((value, index) => value / (alone[index] ?? value)));
  for (const one of raw)
    say(`${one.rw} beside ${one.name}: ${short(medianOf(one.alone))} alone, ${short(medianOf(one.beside))} kIOPS beside`);
  return {
    id: 'slow',
    title: 'Slow media',
    text: [
      'A quick volume at depth 16 while another one of the same engine, slowed by fault rules, has 16 requests in flight all the time; server and client on a processor each.',
      'The rules delay a request without blocking a thread, as a device does that is asked asynchronously. A file system whose `pread` blocks the thread is not what is shown here.',
    ],
    bars: raw.map((one) => ({
      what: `${one.rw === 'randread' ? 'reads' : 'writes'} beside ${one.name}`,
      target: `at least ${RATIO_MIN} of the rate alone`,
      measured: times(ratioOf(one)),
      isMet: ratioOf(one) >= RATIO_MIN,
    })),
    tables: [
      {
        title: `kIOPS of the quick volume (medians of ${settings.runs})`,
        columns: ['beside', 'requests', 'alone', 'beside it', 'ratio'],
        rows: raw.map((one) => [
          one.name,
          one.rw === 'randread' ? '4k read' : '4k write',
          short(medianOf(one.alone)),
          short(medianOf(one.beside)),
          times(ratioOf(one)),
        ]),
      },
    ],
    plots: [],
    raw,
  };
};
