/** `twinvol pair create|split|resync|restore|release|set`: what changes a pair. What looks at pairs: pair-watch.ts. */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import type { FenceLevel, VolumeAttribute } from '../../core/rows.ts';
import { formatSize } from '../../core/units.ts';
import type { PairView, PlanView } from '../../core/views.ts';
import type { PairRef, VolumeRef } from '../../engine/api.ts';
import { choiceArgument, paceArgument, sizeArgument, volumeArgument } from '../arguments.ts';
import { chooseFrom } from '../choice-prompt.ts';
import { addCommand, addGroup, type Waiting, withConsentOptions, withPlan, withWait } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { type ConsentOptions, withConsent } from '../consent-prompt.ts';
import { pairName } from '../copy-progress.ts';
import { given } from '../given.ts';
import { waitForState, waitWhileCopying } from '../pair-waiting.ts';
import { isPlan, planText } from '../plan-text.ts';
import { candidateLine, conditionArgument, fitArgument } from './pool.ts';
import { registerPairWatching } from './pair-watch.ts';
import { momentOf, type SplitTiming, splitWord, withTiming } from './split-timing.ts';

const fenceArgument = choiceArgument<FenceLevel>('fence level', ['never', 'data']);
const PACE_HELP = '1 (gives way to hosts most) to 15, or slow, medium, fast';
const FENCE_HELP = 'when the secondary fails: never: the host gets no error and the pair is suspended; data: the write fails';

type Plan = { readonly plan?: boolean };

const pairRef = (primary: VolumeRef, secondary: VolumeRef | undefined): PairRef => ({ primary, ...given({ secondary }) });

const refText = ({ primary, secondary }: PairRef): string =>
  secondary === undefined ? `the pair of ${primary}` : `pair ${primary} -> ${secondary}`;

const withPair = (command: Command): Command => {
  return command
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; may be left out where the primary has one pair only', volumeArgument);
};

const answer = (context: CommandContext, result: PairView | PlanView, done: (pair: PairView) => string): void => {
  context.print(result, () => (isPlan(result) ? planText(result, context.paint) : done(result)));
};

const skippedText = (pair: PairView | null): string =>
  pair === null || pair.skippedBytes === 0
    ? ''
    : `; ${formatSize(pair.copiedBytes)} were written, ${formatSize(pair.skippedBytes)} were equal already`;

/** Prints what a copying command did, or waits until its copy is done and prints that. */
const answerCopy = async (
  context: CommandContext,
  result: PairView | PlanView,
  { wait, timeout }: Waiting,
  done: string,
): Promise<void> => {
  if (isPlan(result) || wait !== true) {
    answer(context, result, (pair) => `pair ${pairName(pair)} ${done}, now ${pair.state}`);
    return;
  }
  context.note(`pair ${pairName(result)} ${done}`);
  const pair = await waitForState(context, { primary: result.primary.number, secondary: result.secondary.number }, 'duplex', timeout);
  context.print(pair, () => `pair ${pairName(result)} is duplex${skippedText(pair)}`);
};

type CreateOptions = Plan &
  Waiting &
  ConsentOptions & {
    readonly condition?: 'same' | 'any';
    readonly fit?: 'off' | 'regions';
    readonly pace?: number;
    readonly fence?: FenceLevel;
    readonly dirtyRegionSize?: number;
    readonly choose?: boolean;
  };

const registerCreate = (pair: Command, context: CommandContext): void => {
  const create = addCommand(pair, 'create', 'form a pair and start the initial copy; without SECONDARY the device chooses one', [
    'pair create db db-copy --wait',
    'pair create db --condition same',
    'pair create db --plan',
  ]);
  withWait(withPlan(withConsentOptions(create)), 'the pair is duplex')
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; left out: an unused volume of the pool', volumeArgument)
    .option('--condition <CONDITION>', "same: of the primary's capacity only; any: or else the smallest larger one", conditionArgument)
    .option('--fit <FIT>', "regions: the secondary ends with the primary's capacity; off", fitArgument)
    .option('--pace <PACE>', PACE_HELP, paceArgument)
    .option('--fence <FENCE>', FENCE_HELP, fenceArgument)
    .option('--dirty-region-size <SIZE>', 'unit of the dirty bitmap', sizeArgument)
    .option('--choose', 'pick the secondary from a list, on a terminal')
    .action((primary: VolumeRef, secondary: VolumeRef | undefined, options: CreateOptions) =>
      createPair(context, primary, secondary, options),
    );
};

const createPair = async (
  context: CommandContext,
  primary: VolumeRef,
  named: VolumeRef | undefined,
  options: CreateOptions,
): Promise<void> => {
  const { wait, timeout, override, reason, dirtyRegionSize, choose, ...rest } = options;
  if (choose === true && named !== undefined)
    throw new TwinvolError('USAGE', 'pair create takes a SECONDARY, or --choose, and not both', {
      remedy: 'see twinvol pair create --help',
    });
  const secondary = choose === true ? await chooseSecondary(context, primary, options) : named;
  const input = { ...pairRef(primary, secondary), ...rest, ...given({ dirtyRegionBytes: dirtyRegionSize }) };
  const words = {
    question: `overwrite ${secondary === undefined ? 'the secondary' : `volume ${secondary}`} with a copy of ${primary} anyway?`,
    notDone: `no pair of ${primary} was formed`,
  };
  const result = await withConsent(context, given({ override, reason }), words, (consent) =>
    context.call('pair.create', { ...input, ...consent }),
  );
  await answerCopy(context, result, given({ wait, timeout }), 'formed');
};

const chooseSecondary = async (
  context: CommandContext,
  primary: VolumeRef,
  { condition, fit }: Pick<CreateOptions, 'condition' | 'fit'>,
): Promise<VolumeRef> => {
  const candidates = await context.call('pool.candidates', { primary, ...given({ condition, fit }) });
  if (candidates.length === 0)
    throw new TwinvolError('NO_CANDIDATE', `no volume can be the secondary of ${primary}`, {
      remedy: `twinvol pool candidates ${primary} --explain says why`,
    });
  const chosen = await chooseFrom(context, `the secondary of ${primary}:`, candidates, candidateLine);
  return chosen.number;
};

type SplitOptions = Plan & Waiting & SplitTiming & { readonly group?: string };

const registerSplit = (pair: Command, context: CommandContext): void => {
  const split = addCommand(pair, 'split', 'stop the update copy; the secondary keeps the image of this moment', [
    'pair split db',
    'pair split db db-copy --wait --timeout 10m',
    'pair split --group nightly',
    'pair split db --at 02:00',
  ]);
  withTiming(withWait(withPlan(split), 'the pair, or all of the group, is duplex first'))
    .argument('[PRIMARY]', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; may be left out where the primary has one pair only', volumeArgument)
    .option('--group <GROUP>', 'all pairs of a group, at one point in time')
    .action((primary: VolumeRef | undefined, secondary: VolumeRef | undefined, options: SplitOptions) =>
      splitPair(context, primary, secondary, options),
    );
};

const splitPair = async (
  context: CommandContext,
  primary: VolumeRef | undefined,
  secondary: VolumeRef | undefined,
  { wait, timeout, group, plan, ...timing }: SplitOptions,
): Promise<void> => {
  const planned = given({ plan });
  const moment = momentOf(context, { ...timing, ...given({ wait }) });
  if ((primary === undefined) === (group === undefined)) {
    throw new TwinvolError('USAGE', 'pair split takes a primary, or --group, and not both', { remedy: 'see twinvol pair split --help' });
  }
  if (primary === undefined || group !== undefined) {
    const { splitGroup } = await import('./group.ts');
    await splitGroup(context, group ?? '', { ...planned, ...timing, ...given({ wait, timeout }) });
    return;
  }
  const ref = pairRef(primary, secondary);
  if (wait === true && plan !== true) {
    const pairs = await context.call('pair.status', { primary });
    const isMeant = ({ name, number }: PairView['secondary']): boolean => [undefined, name, number].includes(secondary);
    const meant = pairs.filter((pair) => isMeant(pair.secondary));
    // None, or more than one: the split says so.
    if (meant.length === 1) await waitWhileCopying(context, meant, timeout);
  }
  answer(
    context,
    await context.call('pair.split', { ...ref, ...moment, ...planned }),
    (pair) => `pair ${pairName(pair)} ${splitWord(moment, 'split')}`,
  );
};

type CopyOptions = Plan & Waiting & ConsentOptions & { readonly pace?: number; readonly checksum?: boolean };

const registerCopies = (pair: Command, context: CommandContext): void => {
  for (const { name, method, summary, question, done } of [
    {
      name: 'resync',
      method: 'pair.resync',
      summary: 'make the secondary equal to the primary again; what was written on the secondary since the split is lost',
      question: (ref: string) => `resync ${ref} anyway?`,
      done: 'resyncs',
    },
    {
      name: 'restore',
      method: 'pair.restore',
      summary: 'make the primary equal to the secondary; what was written on the primary since the split is lost',
      question: (ref: string) => `restore the primary of ${ref} anyway?`,
      done: 'restores',
    },
  ] as const) {
    const command = addCommand(pair, name, summary, [
      `pair ${name} db --wait`,
      `pair ${name} db db-copy --plan`,
      `pair ${name} db --override mounted:web1 --reason "test data"`,
    ]);
    withWait(withPlan(withConsentOptions(withPair(command))), 'the pair is duplex')
      .option('--pace <PACE>', PACE_HELP, paceArgument)
      .option('--checksum', 'read both volumes and write only what differs')
      .action(async (primary: VolumeRef, secondary: VolumeRef | undefined, { wait, timeout, override, reason, ...rest }: CopyOptions) => {
        const ref = pairRef(primary, secondary);
        const words = {
          question: question(refText(ref)),
          notDone: `${refText(ref)} was not ${name === 'resync' ? 'resynced' : 'restored'}`,
        };
        const result = await withConsent(context, given({ override, reason }), words, (consent) =>
          context.call(method, { ...ref, ...rest, ...consent }),
        );
        await answerCopy(context, result, given({ wait, timeout }), done);
      });
  }
};

const registerRelease = (pair: Command, context: CommandContext): void => {
  const release = addCommand(pair, 'release', 'end the pair; the secondary goes back to the pool, or becomes a volume of its own', [
    'pair release db db-copy',
    'pair release db --then normal',
  ]);
  withPlan(withConsentOptions(withPair(release)))
    .option(
      '--then <ATTRIBUTE>',
      "the secondary's attribute afterwards; left out: as the device's setting says",
      choiceArgument<VolumeAttribute>('volume attribute', ['normal', 'secondary']),
    )
    .action(async (primary: VolumeRef, secondary: VolumeRef | undefined, options: Plan & ConsentOptions & { then?: VolumeAttribute }) => {
      const { override, reason, ...rest } = options;
      const ref = pairRef(primary, secondary);
      const words = { question: `release ${refText(ref)} anyway?`, notDone: `${refText(ref)} was not released` };
      const result = await withConsent(context, given({ override, reason }), words, (consent) =>
        context.call('pair.release', { ...ref, ...rest, ...consent }),
      );
      if ('released' in result && result.sizeKept !== undefined)
        context.note(`${result.released.secondary.name} keeps its fitted capacity: ${result.sizeKept.message} [${result.sizeKept.code}]`);
      context.print(result, () => ('released' in result ? `pair ${pairName(result.released)} released` : planText(result, context.paint)));
    });
};

const registerSet = (pair: Command, context: CommandContext): void => {
  const set = addCommand(pair, 'set', 'change the pace or the fence level of a pair', [
    'pair set db --pace slow',
    'pair set db db-copy --fence data',
  ]);
  withPlan(withPair(set))
    .option('--pace <PACE>', PACE_HELP, paceArgument)
    .option('--fence <FENCE>', FENCE_HELP, fenceArgument)
    .action(async (primary: VolumeRef, secondary: VolumeRef | undefined, options: Plan & { pace?: number; fence?: FenceLevel }) => {
      if (options.pace === undefined && options.fence === undefined) {
        throw new TwinvolError('USAGE', 'pair set changes nothing', { remedy: 'give --pace or --fence' });
      }
      const result = await context.call('pair.set', { ...pairRef(primary, secondary), ...options });
      answer(context, result, (changed) => `pair ${pairName(changed)}: pace ${changed.pace}, fence ${changed.fence}`);
    });
};

export const registerPair = (program: Command, context: CommandContext): void => {
  const pair = addGroup(program, 'pair', 'form, split, resync, restore, release and watch pairs');
  registerCreate(pair, context);
  registerPairWatching(pair, context);
  registerSplit(pair, context);
  registerCopies(pair, context);
  registerRelease(pair, context);
  registerSet(pair, context);
};
