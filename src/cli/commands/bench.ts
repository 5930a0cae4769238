/**
 * `twinvol bench URI`: a workload against any NBD export, and what it measured. Workloads that write destroy data, so
 * they ask first. Ctrl-C ends the run and prints what was measured until then.
 */
import type { Command } from 'commander';
import { dataShare } from '../../bench/data-share.ts';
import type { RunResult } from '../../bench/measurement.ts';
import {
  BLOCK_BYTES_MAX,
  CONNECTIONS_MAX,
  DEPTH_MAX,
  PRESET_NAMES,
  type PresetName,
  PRESETS,
  RW_KINDS,
  type RwKind,
  type StreamFlags,
  type Workload,
  workloadOf,
  writes,
} from '../../bench/workload.ts';
import { EXIT, TwinvolError } from '../../core/faults.ts';
import { choiceArgument, durationArgument, numberArgument, rangeArgument, sizeArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { given } from '../given.ts';
import { BenchProgress } from './bench-progress.ts';
import { benchBoth, commonPart } from './bench-compare.ts';
import { runText } from './bench-report.ts';
import { hasFailed, type Prepared, runOn } from './bench-run.ts';
import { type BenchRange, type BenchTarget, confirmWrites, targetsOf } from './bench-target.ts';

const RUNTIME_MS_DEFAULT = 10_000;
const RUNTIME_MS_MIN = 100;
const RUNTIME_MS_MAX = 24 * 3_600_000;
const WARMUP_MS_DEFAULT = 500;
const ROUNDS_DEFAULT = 3;

type BenchOptions = StreamFlags & {
  readonly preset?: PresetName;
  readonly mix?: number;
  readonly bs?: number;
  readonly runtime?: number;
  readonly warmup?: number;
  readonly size?: number;
  readonly range?: BenchRange;
  readonly seed?: number;
  readonly compare?: string;
  readonly rounds?: number;
  readonly verify?: boolean;
  readonly yes?: boolean;
};

const usage = (message: string, remedy: string): TwinvolError => new TwinvolError('USAGE', message, { remedy });

const blockArgument = (text: string): number => {
  const bytes = sizeArgument(text);
  if (bytes < 1 || bytes > BLOCK_BYTES_MAX) throw usage(`"${text}" is not a block size`, 'give 1 byte to 32M, such as 4K');
  return bytes;
};

const runtimeArgument = (text: string): number => {
  const ms = durationArgument(text);
  if (ms < RUNTIME_MS_MIN || ms > RUNTIME_MS_MAX) throw usage(`"${text}" is not a runtime`, 'give 100ms to 24h, such as 30s');
  return ms;
};

const workloadFor = (options: BenchOptions): Workload => {
  const { preset, rw, mix, bs, depth, connections, flushEvery, fua, verify } = options;
  // What verifies has to write; half of it reads, so that a stale read shows during the run already.
  const kind = verify === true && rw === undefined && preset === undefined ? 'randrw' : rw;
  const mixPercent = kind !== rw && mix === undefined ? 50 : mix;
  const workload = workloadOf(preset, given({ rw: kind, mixPercent, blockBytes: bs, depth, connections, flushEvery, fua }));
  if (verify === true && (!writes(workload) || workload.streams.length > 1)) {
    throw usage(
      '--verify reads back what one stream has written, and this workload does not write, or has several',
      'use --rw randrw, randwrite, rw or write, or the preset oltp',
    );
  }
  return workload;
};

const rangeFor = ({ size, range }: BenchOptions): BenchRange => {
  if (size !== undefined && range !== undefined) throw usage('--size and --range say the same thing', 'give one of them');
  return range ?? { offset: 0, ...given({ length: size }) };
};

/** A verification that its user gave up must not look like one that found everything right. */
const isGivenUp = ({ interrupted, verification }: RunResult): boolean => interrupted && verification?.complete === false;

const benchOne = async (context: CommandContext, target: BenchTarget, prepared: Prepared): Promise<void> => {
  const share = await dataShare(target.client, target.where.offset, target.where.length);
  const result = await runOn(context, target, prepared, target.client);
  context.print({ ...result, dataShare: share }, () => runText(result, share, context.paint));
  if (hasFailed(result)) context.exitStatus = EXIT.broken;
  else if (isGivenUp(result)) context.exitStatus = EXIT.refused;
};

const bench = async (context: CommandContext, named: string, options: BenchOptions): Promise<void> => {
  const workload = workloadFor(options);
  const range = rangeFor(options);
  if (options.compare === undefined && options.rounds !== undefined)
    throw usage('--rounds is for --compare', 'leave it out, or give --compare URI');
  if (options.compare !== undefined && options.verify === true)
    throw usage('--verify and --compare do not go together', 'verify one export at a time');
  const { compare, rounds = ROUNDS_DEFAULT, verify = false, yes = false } = options;
  const { runtime = RUNTIME_MS_DEFAULT, warmup = WARMUP_MS_DEFAULT, seed = 1 } = options;
  const timing = { runtimeMs: runtime, warmupMs: warmup, seed };
  const prepared: Prepared = { workload, timing, verify, progress: new BenchProgress(context, runtime) };
  await using targets = await targetsOf(context, compare === undefined ? [named] : [named, compare], workload, range);
  const [target, other] = targets.all;
  if (target === undefined) throw new Error('a target for each name');
  if (other === undefined) {
    await confirmWrites(context, workload, [target], yes);
    await benchOne(context, target, prepared);
    return;
  }
  const [first, second, isCommonPart] = commonPart(target, other);
  await confirmWrites(context, workload, [first, second], yes);
  await benchBoth(context, [first, second], { rounds, isCommonPart }, prepared);
};

const PRESET_HELP = `
Presets:
${PRESET_NAMES.map((name) => `  ${name.padEnd(8)}${PRESETS[name].means}`).join('\n')}

The default is --rw randread --bs 4K --depth 16. Each connection keeps --depth requests in flight and sends the next one
when a reply is there, so latencies are those of a busy server. Workloads that write destroy data: they ask, or need --yes.
Exit status 2: requests failed or had no answer, the connection was lost, --verify found a mismatch, or a server was gone in a later
round of --compare. Exit status 10: --verify was given up (Ctrl-C) before everything was read back. The figures are printed either way.
Where the exports of --compare differ in size, both runs use the part that both have.

TLS: nbds://HOST/EXPORT?tls-certificates=DIR, where DIR has ca-cert.pem (who signed the server), and client-cert.pem and
client-key.pem where the server asks for them; tls-hostname=NAME where the certificate bears another name than HOST.`;

export const registerBench = (program: Command, context: CommandContext): void => {
  addCommand(program, 'bench', 'load an NBD export and measure it: rate, latency percentiles, errors', [
    'bench nbd+unix:///db?socket=/srv/twinvol/nbd.sock --preset oltp --runtime 30s',
    'bench nbd://127.0.0.1:10809/db --rw randread --bs 4K --depth 16 --json',
    'bench db --rw randwrite --verify --size 256M --yes',
    'bench db --preset backup --compare nbd://other:10809/db --rounds 5',
  ])
    .addHelpText('after', PRESET_HELP)
    .argument('<URI>', "an NBD URI of any server, or a volume's name or number")
    .option('--preset <NAME>', PRESET_NAMES.join(', '), choiceArgument<PresetName>('preset', PRESET_NAMES))
    .option('--rw <KIND>', RW_KINDS.join(', '), choiceArgument<RwKind>('kind of workload', RW_KINDS))
    .option('--mix <PERCENT>', 'reads of 100 requests, for randrw and rw; default 70', numberArgument('share of reads', 0, 100))
    .option('--bs <SIZE>', 'bytes of a request; default 4K', blockArgument)
    .option('--depth <N>', 'requests in flight on each connection; default 16', numberArgument('depth', 1, DEPTH_MAX))
    .option('--connections <N>', 'default 1', numberArgument('number of connections', 1, CONNECTIONS_MAX))
    .option(
      '--flush-every <N>',
      'a flush after so many writes of a connection; default 0: none',
      numberArgument('number of writes', 0, 2 ** 31),
    )
    .option('--fua', 'every write durable before it is answered')
    .option('--runtime <DURATION>', 'default 10s', runtimeArgument)
    .option('--warmup <DURATION>', 'before it, and not measured; default 500ms', durationArgument)
    .option('--size <SIZE>', 'only the first so many bytes of the export', sizeArgument)
    .option('--range <FROM-TO>', 'only these bytes of it, such as 1G-2G', rangeArgument)
    .option(
      '--seed <N>',
      'which random sequence; the same one sends the same requests; default 1',
      numberArgument('seed', 0, Number.MAX_SAFE_INTEGER),
    )
    .option('--compare <URI>', 'run on this export too, in turns, and show the ratio')
    .option('--rounds <N>', 'runs of either for --compare; default 3', numberArgument('number of rounds', 1, 99))
    .option('--verify', 'write self-describing blocks, read them back, exit 2 when one is not as it was written')
    .option('--yes', 'the data on the export may be written over')
    .action((named: string, options: BenchOptions) => bench(context, named, options));
};
