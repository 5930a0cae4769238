/** What the command line of the benchmark says, and what every part gets of it. */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { MiB } from '../../src/core/units.ts';
import { parseDuration } from '../../src/cli/duration.ts';
import { CELLS, type Cell } from './cells.ts';
import { ENGINE_MAIN } from './engine-process.ts';
import type { Cpus } from './owned-process.ts';
import type { QsdAio } from './peers.ts';

export const PART_IDS = ['throughput', 'split', 'intents', 'copy', 'resync', 'latency', 'pause', 'scale', 'connections', 'slow'] as const;
export type PartId = (typeof PART_IDS)[number];

export type Settings = {
  readonly isQuick: boolean;
  readonly parts: readonly PartId[];
  readonly cells: readonly Cell[];
  /** Rounds; the medians of them are shown. */
  readonly runs: number;
  /** Of one measurement. */
  readonly runtimeMs: number;
  /** Of one measurement of the cells without pinning, which is the second look at them. */
  readonly freeRuntimeMs: number;
  readonly pinnings: ReadonlyArray<'pinned' | 'free'>;
  readonly peers: readonly string[] | null;
  readonly qsdAio: QsdAio | 'auto';
  /** Of the volumes in the cells, and of those that are copied. */
  readonly volumeBytes: number;
  readonly copyBytes: number;
  readonly main: string;
  readonly place: string | undefined;
  readonly profile: string | undefined;
  readonly report: string | undefined;
  /** Where results and page go instead of the project's own folder. */
  readonly out: string | undefined;
};

export const HELP = `npm run bench [-- OPTIONS]: twinvol and its peers on the same work, in turns.

  --quick            fewer cells, shorter runs, smaller volumes; about 5 minutes instead of about 25
  --parts A,B        only these: ${PART_IDS.join(', ')}
  --cells A,B        only cells whose id begins with one of these, or has it as a part: ${CELLS.map(({ id }) => id).join(', ')}
  --pin pinned|free  server and client on a processor each, or where the system puts them; default both (quick: pinned)
  --peers A,B        only peers whose name has one of these in it; none: no peers
  --runs N           rounds; default 3
  --runtime D        of one measurement, such as 500ms or 2s
  --size N           MiB of the volumes in the cells; default 512
  --copy-size N      MiB of the volumes that are copied; default 2048
  --qsd-aio A        threads or io_uring, for qemu-storage-daemon; default: io_uring where it works
  --engine FILE      the command line of another build of twinvol (its dist/src/cli/main.js)
  --place DIR        where the files are; default /dev/shm
  --profile DIR      a CPU profile of every thread of the engine in the cells, and what took the time
  --out DIR          results, page and plots there, instead of bench/ (quick: bench/results/quick)
  --report FILE      makes tables and plots from a results' file again, and measures nothing`;

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  parts: { type: 'string' },
  cells: { type: 'string' },
  pin: { type: 'string' },
  peers: { type: 'string' },
  runs: { type: 'string', default: '3' },
  runtime: { type: 'string' },
  size: { type: 'string' },
  'copy-size': { type: 'string' },
  'qsd-aio': { type: 'string', default: 'auto' },
  engine: { type: 'string', default: ENGINE_MAIN },
  place: { type: 'string' },
  profile: { type: 'string' },
  report: { type: 'string' },
  out: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

const fail = (message: string): never => {
  throw new Error(`${message}; --help says what there is`);
};

const list = (text: string | undefined): readonly string[] | null =>
  text === undefined
    ? null
    : text
        .split(',')
        .map((word) => word.trim())
        .filter((word) => word !== '');

const choose = <Choice extends string>(what: string, text: string, choices: readonly Choice[]): Choice =>
  choices.find((choice) => choice === text) ?? fail(`"${text}" is no ${what}`);

const number = (what: string, text: string, min: number, max: number): number => {
  const value = Number(text);
  return Number.isInteger(value) && value >= min && value <= max ? value : fail(`"${text}" is no ${what}`);
};

/** @throws Error for what cannot be read */
export const settingsOf = (argv: readonly string[]): Settings | 'help' => {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  if (values.help) return 'help';
  const isQuick = values.quick;
  const cells = list(values.cells);
  const chosen = CELLS.filter(({ id, isQuick: isFast }) =>
    cells === null ? isFast || !isQuick : cells.some((word) => id.startsWith(word) || id.split('-').includes(word)),
  );
  if (chosen.length === 0) fail(`no cell matches "${values.cells}"`);
  const runtimeMs = values.runtime === undefined ? null : parseDuration(values.runtime);
  const pin = values.pin === undefined ? null : choose('pinning', values.pin, ['pinned', 'free'] as const);
  return {
    isQuick,
    parts: (list(values.parts) ?? PART_IDS).map((part) => choose('part', part, PART_IDS)),
    cells: chosen,
    runs: number('number of runs', values.runs, 1, 99),
    runtimeMs: runtimeMs ?? (isQuick ? 300 : 1200),
    freeRuntimeMs: runtimeMs ?? (isQuick ? 300 : 800),
    pinnings: !canPin ? ['free'] : pin === null ? (isQuick ? ['pinned'] : ['pinned', 'free']) : [pin],
    peers: list(values.peers),
    qsdAio: choose('way of I/O', values['qsd-aio'], ['auto', 'threads', 'io_uring'] as const),
    volumeBytes: number('size', values.size ?? (isQuick ? '256' : '512'), 16, 65_536) * MiB,
    copyBytes: number('size', values['copy-size'] ?? (isQuick ? '1024' : '2048'), 64, 1_048_576) * MiB,
    main: values.engine,
    place: values.place,
    profile: values.profile,
    report: values.report,
    out: values.out,
  };
};

/** With one processor both would share it, and pinning says nothing. */
const canPin = cpus().length >= 2;
/** The server's processor, and the client's. */
export const SERVER_CPUS: Cpus = canPin ? [0] : null;
export const CLIENT_CPUS: Cpus = canPin ? [1] : null;
export const cpusOf = (pinning: 'pinned' | 'free', chosen: Cpus): Cpus => (pinning === 'pinned' ? chosen : null);
