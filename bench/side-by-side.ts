/**
 * `npm run bench`: twinvol and its peers on the same work, in turns; the files of this folder do the parts. Results go to
 * bench/results, the page bench/RESULTS.md and the plots are made from them. What the numbers mean: bench/README.md.
 *
 * Everything that is started is ended by its process id, also on Ctrl-C, and all files are on tmpfs and removed.
 */
import { basename, dirname, join, resolve } from 'node:path';
import { findProgram } from '../src/platform/program.ts';
import { connections } from './side-by-side/connections.ts';
import { copying } from './side-by-side/copying.ts';
import { INTENT_VOLUME_BYTES, intentLog } from './side-by-side/intent-log.ts';
import { latencies } from './side-by-side/latency.ts';
import { machine } from './side-by-side/machine.ts';
import { endAll, runProgram } from './side-by-side/owned-process.ts';
import { availablePeers, type PeerName, chooseQsdAio } from './side-by-side/peers.ts';
import { type Places, placesOf, readResults, writeReport, writeResults } from './side-by-side/report.ts';
import { resyncCurve } from './side-by-side/resync.ts';
import { scale } from './side-by-side/scale.ts';
import type { Section } from './side-by-side/section.ts';
import { HELP, type PartId, type Settings, settingsOf } from './side-by-side/settings.ts';
import { slowMedia } from './side-by-side/slow-media.ts';
import { splitPause } from './side-by-side/split-pause.ts';
import { splitPrimary } from './side-by-side/split-primary.ts';
import { throughput } from './side-by-side/throughput.ts';
import { Workplace } from './side-by-side/workplace.ts';

const NEEDED = ['fio', 'nbdcopy', 'taskset'];
const INSTALL_MS_MAX = 600_000;

const startMs = performance.now();
let isInterrupted = false;
const say = (text: string): void => {
  const seconds = Math.round((performance.now() - startMs) / 1000);
  console.log(`${String(seconds).padStart(5)} s  ${text}`);
};

type Part = {
  readonly run: (settings: Settings, place: Workplace, peers: readonly PeerName[]) => Promise<Section>;
  readonly bytes: (settings: Settings) => number;
};

/** With what each needs of memory for its files. */
const PARTS: Readonly<Record<PartId, Part>> = {
  throughput: {
    run: (settings, place, peers) => throughput({ settings, place, peers, say }),
    bytes: ({ volumeBytes }) => volumeBytes * 16,
  },
  split: { run: (settings, place) => splitPrimary(settings, place, say), bytes: ({ volumeBytes }) => volumeBytes * 4 },
  // Two legs of two engines, the file that fills them, and the copied build.
  intents: { run: (settings, place) => intentLog(settings, place, say), bytes: () => INTENT_VOLUME_BYTES * 5.2 },
  copy: { run: (settings, place) => copying(settings, place, say), bytes: ({ copyBytes }) => copyBytes * 3.2 },
  resync: { run: (settings, place) => resyncCurve(settings, place, say), bytes: ({ copyBytes }) => copyBytes * 4.2 },
  latency: { run: (settings, place) => latencies(settings, place, say), bytes: ({ copyBytes }) => copyBytes * 2.2 },
  pause: { run: (settings, place) => splitPause(settings, place, say), bytes: () => 4 * 2 ** 30 },
  scale: { run: (settings, place) => scale(settings, place, say), bytes: () => 2 * 2 ** 30 },
  connections: { run: (settings, place) => connections(settings, place, say), bytes: () => 2 * 2 ** 30 },
  slow: { run: (settings, place) => slowMedia(settings, place, say), bytes: () => 2 ** 29 },
};

const ensurePrograms = async (): Promise<void> => {
  if (NEEDED.every((name) => findProgram(name) !== null)) return;
  say('installing what is missing');
  await runProgram(join(import.meta.dirname, '../scripts/install-clients'), [], INSTALL_MS_MAX).catch(() => undefined);
  const missing = NEEDED.filter((name) => findProgram(name) === null);
  if (missing.length > 0) throw new Error(`${missing.join(', ')} must be installed: see scripts/install-clients`);
};

/** A function of its own, since its files must be gone before the next part asks for room. */
const runPart = async (id: PartId, settings: Settings, peers: readonly PeerName[]): Promise<Section> => {
  await using place = await Workplace.make(settings.place, PARTS[id].bytes(settings));
  return await PARTS[id].run(settings, place, peers);
};

const measure = async (settings: Settings): Promise<void> => {
  await ensurePrograms();
  const versions = new Map(
    [...(await availablePeers())].filter(([name]) => settings.peers === null || settings.peers.some((word) => name.includes(word))),
  );
  await chooseQsdAio(settings.qsdAio, say);
  const startedAt = new Date().toISOString();
  const facts = machine();
  const sections: Section[] = [];
  const failures: string[] = [];
  for (const id of settings.parts) {
    if (isInterrupted) break;
    say(`== ${id}`);
    try {
      sections.push(await runPart(id, settings, [...versions.keys()]));
    } catch (error) {
      // The other parts are worth having.
      failures.push(`${id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      say(`${id} FAILED: ${(error as Error).message}`);
    }
  }
  if (sections.length > 0) {
    // Paths are nobody's business in a file that is published.
    const words = process.argv.slice(2).map((word) => (word.includes('/') ? basename(word) : word));
    const command = ['npm run bench', ...(words.length > 0 ? ['--', ...words] : [])].join(' ');
    const results = {
      format: 1,
      startedAt,
      command,
      isQuick: settings.isQuick,
      machine: facts,
      peers: Object.fromEntries(versions),
      sections,
    } as const;
    const places = placesOf(settings.isQuick, settings.out);
    say(`results in ${writeResults(results, places)}`);
    say(`page: ${writeReport(places)}`);
  }
  const missed = sections.flatMap(({ bars }) => bars.filter(({ isMet }) => !isMet));
  for (const { what, target, measured } of missed) console.log(`not met: ${what}: ${measured} (${target})`);
  console.log(
    `${sections.flatMap(({ bars }) => bars).length - missed.length} targets met, ${missed.length} not met, ${failures.length} parts failed`,
  );
  for (const failure of failures) console.error(failure);
  if (failures.length > 0) process.exitCode = isInterrupted ? 130 : 1;
};

/** A results' file of the project's own folders has its page there; any other one beside itself. */
const reportPlaces = (file: string, out: string | undefined): Places => {
  const places = placesOf(readResults(file).isQuick, out);
  return out !== undefined || resolve(dirname(file)) === places.folder ? places : placesOf(true, dirname(file));
};

const main = async (): Promise<void> => {
  const settings = settingsOf(process.argv.slice(2));
  if (settings === 'help') return console.log(HELP);
  if (settings.report !== undefined) return console.log(writeReport(reportPlaces(settings.report, settings.out)));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      // Their ends make the part fail, which removes its files.
      isInterrupted = true;
      void endAll();
    });
  }
  try {
    await measure(settings);
  } finally {
    await endAll();
  }
};

await main();
