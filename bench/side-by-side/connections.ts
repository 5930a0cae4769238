/** 1,000 connections on 100 exports, of which a tenth are busy: memory and threads of the idle ones, shares of the busy ones. */
import { join } from 'node:path';
import { KiB, MiB } from '../../src/core/units.ts';
import { EngineProcess } from './engine-process.ts';
import { runFio } from './fio.ts';
import { IdleConnections } from './idle-connections.ts';
import { medianOf, short } from './numbers.ts';
import type { Section } from './section.ts';
import { CLIENT_CPUS, SERVER_CPUS, type Settings } from './settings.ts';
import type { Workplace } from './workplace.ts';

const EXPORTS = 100;
const IDLE = 900;
const VOLUME_BYTES = 16 * MiB;
const DEPTH = 2;
/** Memory is looked at when the engine has had time to give back what it needed for the handshakes. */
const SETTLE_MS = 3000;
const IDLE_BYTES_MAX = 16 * KiB;
const ENGINE_BYTES_MAX = 90 * MiB;
const FAIR_SHARE_MIN = 0.5;

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, SETTLE_MS));

export const connections = async (settings: Settings, place: Workplace, say: (text: string) => void): Promise<Section> => {
  await using engine = await EngineProcess.start(place.path('store'), { cpus: SERVER_CPUS, main: settings.main });
  await settle();
  const fresh = await engine.figures();
  const uris: string[] = [];
  for (let index = 0; index < EXPORTS; index += 1) uris.push(await engine.volume(`v${index}`, VOLUME_BYTES));
  await settle();
  const before = await engine.figures();
  using idle = new IdleConnections();
  for (let index = 0; index < IDLE; index += 1) await idle.add(join(engine.store, 'nbd.sock'), `v${index % EXPORTS}`);
  await settle();
  const after = await engine.figures();
  const idleBytes = (after.residentBytes - before.residentBytes) / IDLE;
  const load = {
    uris,
    blockBytes: 4096,
    depth: DEPTH,
    jobs: 1,
    sizeBytes: VOLUME_BYTES,
    runtimeMs: settings.runtimeMs * 2,
    cpus: CLIENT_CPUS,
  };
  const shares: number[] = [];
  const kiops: number[] = [];
  for (let round = 0; round < settings.runs; round += 1) {
    const { jobIops, iops } = await runFio({ ...load, rw: 'randwrite' });
    shares.push(Math.min(...jobIops) / (iops / jobIops.length));
    kiops.push(iops / 1000);
  }
  const busy = await engine.figures();
  const threads = after.threads - before.threads;
  say(
    `engine ${short(fresh.residentBytes / MiB)} MiB, with ${EXPORTS} volumes ${short(before.residentBytes / MiB)} MiB; idle connection ${short(idleBytes / KiB)} KiB, ` +
      `${threads} threads more; slowest busy connection ${short(medianOf(shares))} of the mean`,
  );
  return {
    id: 'connections',
    title: '1,000 connections on 100 exports',
    text: [
      `${IDLE} connections that do nothing and ${EXPORTS} that write 4 KiB at depth ${DEPTH}, server and client on a processor each. Memory is the engine's resident set; ` +
        'what the kernel keeps for a socket is not in it.',
    ],
    bars: [
      {
        what: 'memory of an idle connection',
        target: 'at most 16 KiB',
        measured: `${short(idleBytes / KiB)} KiB`,
        isMet: idleBytes <= IDLE_BYTES_MAX,
      },
      { what: 'threads for idle connections', target: 'none', measured: String(threads), isMet: threads <= 0 },
      {
        what: 'resident memory of an idle engine',
        target: 'under 90 MiB',
        measured: `${short(fresh.residentBytes / MiB)} MiB`,
        isMet: fresh.residentBytes < ENGINE_BYTES_MAX,
      },
      {
        what: 'slowest of 100 busy connections',
        target: 'at least half of its fair rate',
        measured: short(medianOf(shares)),
        isMet: medianOf(shares) >= FAIR_SHARE_MIN,
      },
    ],
    tables: [
      {
        title: 'The engine',
        columns: ['state', 'resident, MiB', 'threads'],
        rows: [
          ['fresh, no volume', fresh],
          [`${EXPORTS} volumes`, before],
          [`and ${IDLE} idle connections`, after],
          [`and ${EXPORTS} busy ones`, busy],
        ].map(([name, figures]) => {
          const { residentBytes, threads: count } = figures as typeof fresh;
          return [name as string, short(residentBytes / MiB), String(count)];
        }),
      },
      {
        title: `The busy connections, medians of ${settings.runs}`,
        columns: ['kIOPS', 'slowest of the mean'],
        rows: [[short(medianOf(kiops)), short(medianOf(shares))]],
      },
    ],
    plots: [],
    raw: { fresh, before, after, busy, idleBytes, shares, kiops },
  };
};
