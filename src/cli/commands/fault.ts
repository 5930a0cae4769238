/** `twinvol fault add|list|clear`: test volumes that misbehave on purpose. */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import { formatSize } from '../../core/units.ts';
import type { FaultRule, VolumeRef } from '../../engine/api.ts';
import { choiceArgument, durationArgument, numberArgument, rangeArgument, rateArgument, volumeArgument } from '../arguments.ts';
import { addCommand, addGroup } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { given } from '../given.ts';
import type { Column } from '../text-table.ts';
import { textTable } from '../text-table.ts';

const rangeText = ({ offset, length }: FaultRule): string => `${formatSize(offset)} + ${formatSize(length)}`;

const COLUMNS: readonly Column<FaultRule>[] = [
  { heading: 'ID', align: 'right', text: ({ id }) => String(id) },
  { heading: 'VOLUME', align: 'right', text: ({ volume }) => String(volume) },
  { heading: 'STRIKES', text: ({ error }) => error },
  {
    heading: 'GIVES',
    text: ({ errno, latencyMs }) => [...(errno === 'none' ? [] : [errno]), ...(latencyMs > 0 ? [`${latencyMs} ms`] : [])].join(' after '),
  },
  { heading: 'RANGE', text: rangeText },
  { heading: 'RATE', align: 'right', text: ({ rate }) => `${rate * 100}%` },
  { heading: 'LEFT', align: 'right', text: ({ count, expired }) => (expired ? 'expired' : count === null ? 'for ever' : String(count)) },
  { heading: 'SEED', align: 'right', text: ({ seed }) => String(seed) },
  { heading: 'HITS', align: 'right', text: ({ hits }) => String(hits) },
];

type AddOptions = {
  readonly error?: FaultRule['error'];
  readonly errno?: FaultRule['errno'];
  readonly range?: { readonly offset: number; readonly length?: number };
  readonly rate?: number;
  readonly latency?: number;
  readonly once?: boolean;
  readonly count?: number;
  readonly seed?: number;
};

const registerAdd = (fault: Command, context: CommandContext): void => {
  addCommand(fault, 'add', 'make a volume misbehave: errors, latency, or both; repeatable by its seed', [
    'fault add scratch --error write --range 1M-2M --once',
    'fault add scratch --error read --rate 0.01 --seed 7',
    'fault add scratch --latency 20ms',
  ])
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .option(
      '--error <KIND>',
      'requests that fail: read, write, flush or any',
      choiceArgument('kind of request', ['read', 'write', 'flush', 'any']),
    )
    .option('--errno <ERRNO>', 'what they get: EIO (default), ENOSPC, EPERM, or none', (text) =>
      choiceArgument<string>('errno', ['eio', 'enospc', 'eperm', 'none'])(text).replace(/^e.*/, (word) => word.toUpperCase()),
    )
    .option('--range <FROM-TO>', 'only requests that touch these bytes, such as 1M-2M', rangeArgument)
    .option('--rate <P>', 'probability, 0 to 1; default 1', rateArgument)
    .option('--latency <TIME>', 'how long they take longer, such as 20ms; alone: without an error', durationArgument)
    .option('--once', 'strike once')
    .option('--count <N>', 'strike so often', numberArgument('count', 1, 2 ** 31 - 1))
    .option('--seed <N>', 'of the chances', numberArgument('seed', 0, 2 ** 32 - 1))
    .action(async (volume: VolumeRef, options: AddOptions) => {
      const { range, latency, once, count, error, errno, ...rest } = options;
      if (error === undefined && latency === undefined)
        throw new TwinvolError('USAGE', 'fault add does nothing', { remedy: 'give --error, --latency, or both' });
      if (once === true && count !== undefined)
        throw new TwinvolError('USAGE', '--once and --count exclude each other', { remedy: 'give one of them' });
      const times = once === true ? 1 : count;
      const rule = await context.call('fault.add', {
        volume,
        error: error ?? 'any',
        errno: errno ?? (error === undefined ? 'none' : 'EIO'),
        ...rest,
        ...range,
        ...given({ latencyMs: latency, count: times }),
      });
      context.print(rule, () => `fault ${rule.id} added: volume ${rule.volume}, ${rule.error}, seed ${rule.seed}`);
    });
};

export const registerFault = (program: Command, context: CommandContext): void => {
  const fault = addGroup(program, 'fault', 'make test volumes misbehave on purpose');
  registerAdd(fault, context);
  addCommand(fault, 'list', 'the faults that are set, with how often each has struck', ['fault list']).action(async () => {
    const rules = await context.call('fault.list', {});
    context.print(rules, () => textTable(rules, COLUMNS, context.paint, 'no faults are set'));
  });
  addCommand(fault, 'clear', 'take faults away: one, those of a volume, or all', [
    'fault clear --id 3',
    'fault clear scratch',
    'fault clear --all',
  ])
    .argument('[VOLUME]', 'name or number', volumeArgument)
    .option('--id <ID>', 'one fault, by its number', numberArgument('fault number', 0, 2 ** 31))
    .option('--all', 'every fault of the device')
    .action(async (volume: VolumeRef | undefined, { id, all }: { id?: number; all?: boolean }) => {
      if ([volume, id, all].filter((choice) => choice !== undefined).length !== 1) {
        throw new TwinvolError('USAGE', 'fault clear takes a volume, --id or --all, and one of them only', {
          remedy: 'see twinvol fault clear --help',
        });
      }
      const cleared = await context.call('fault.clear', given({ id, volume }));
      context.print({ cleared }, () => `${cleared} ${cleared === 1 ? 'fault' : 'faults'} cleared`);
    });
};
