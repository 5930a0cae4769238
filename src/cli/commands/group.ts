/** `twinvol group create|add|remove|show|split|resync`: consistency groups. */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import type { GroupRow } from '../../core/rows.ts';
import type { PairView, PlanView } from '../../core/views.ts';
import type { VolumeRef } from '../../engine/api.ts';
import { paceArgument, volumeArgument } from '../arguments.ts';
import { addCommand, addGroup, type Waiting, withConsentOptions, withPlan, withWait } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { type ConsentOptions, withConsent } from '../consent-prompt.ts';
import { pairName } from '../copy-progress.ts';
import { given } from '../given.ts';
import { waitWhileCopying } from '../pair-waiting.ts';
import { isPlan, planText } from '../plan-text.ts';
import type { Column } from '../text-table.ts';
import { textTable } from '../text-table.ts';
import { PAIR_COLUMNS } from './pair-columns.ts';
import { momentOf, type SplitTiming, splitWord, withTiming } from './split-timing.ts';

type GroupLine = GroupRow & { readonly members: readonly PairView[] };

const COLUMNS: readonly Column<GroupLine>[] = [
  { heading: 'GROUP', text: ({ name }) => name },
  { heading: 'PAIRS', align: 'right', text: ({ pairs }) => String(pairs.length) },
  { heading: 'STATES', text: ({ members }) => [...new Set(members.map(({ state }) => state))].join(', ') },
  { heading: 'MEMBERS', text: ({ members }) => members.map(pairName).join(', ') },
];

const pairCount = (count: number): string => (count === 1 ? '1 pair' : `${count} pairs`);

type SplitOptions = SplitTiming & Waiting & { readonly plan?: boolean };

export const splitGroup = async (context: CommandContext, name: string, options: SplitOptions): Promise<void> => {
  const { plan, wait, timeout } = options;
  const moment = momentOf(context, options);
  if (wait === true && plan !== true) {
    const pairs = await context.call('pair.status', {});
    const members = pairs.filter((pair) => pair.group === name);
    await waitWhileCopying(context, members, timeout);
  }
  const result = await context.call('group.split', { name, ...moment, ...given({ plan }) });
  context.print(result, () =>
    isPlan(result)
      ? planText(result, context.paint)
      : `group ${name}: ${pairCount(result.length)} ${splitWord(moment, 'split at one point in time')}`,
  );
};

const answer = (context: CommandContext, result: GroupRow | PlanView | null, done: (group: GroupRow | null) => string): void => {
  context.print(result, () => (isPlan(result) ? planText(result, context.paint) : done(result)));
};

const countText = (group: GroupRow | null): string => (group === null ? '' : `group ${group.name} has ${pairCount(group.pairs.length)}`);

const showGroups = async (context: CommandContext, name: string | undefined): Promise<void> => {
  const [groups, pairs] = await Promise.all([context.call('group.list', {}), context.call('pair.status', {})]);
  const lines = groups.map((group): GroupLine => ({ ...group, members: pairs.filter(({ id }) => group.pairs.includes(id)) }));
  if (name === undefined) {
    context.print(lines, () => textTable(lines, COLUMNS, context.paint, 'no groups'));
    return;
  }
  const shown = lines.find((group) => group.name === name);
  if (shown === undefined) throw new TwinvolError('GROUP_NOT_FOUND', `there is no group ${name}`, { details: { name } });
  context.print(shown, () => textTable(shown.members, PAIR_COLUMNS, context.paint, `group ${name} has no pairs`));
};

export const registerGroup = (program: Command, context: CommandContext): void => {
  const group = addGroup(program, 'group', 'consistency groups: pairs that are split at one point in time');
  withPlan(addCommand(group, 'create', 'make an empty group', ['group create nightly']))
    .argument('<NAME>', "the group's name")
    .action(async (name: string, plan: { plan?: boolean }) => {
      answer(context, await context.call('group.create', { name, ...plan }), () => `group ${name} created`);
    });
  withPlan(addCommand(group, 'add', 'put a pair into a group', ['group add nightly db', 'group add nightly db db-copy']))
    .argument('<GROUP>', "the group's name")
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; may be left out where the primary has one pair only', volumeArgument)
    .action(async (name: string, primary: VolumeRef, secondary: VolumeRef | undefined, plan: { plan?: boolean }) => {
      answer(context, await context.call('group.add', { name, primary, ...given({ secondary }), ...plan }), countText);
    });
  withPlan(
    addCommand(group, 'remove', 'take a pair out of a group; without a pair, remove the group (its pairs stay)', [
      'group remove nightly db',
      'group remove nightly',
    ]),
  )
    .argument('<GROUP>', "the group's name")
    .argument('[PRIMARY]', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number', volumeArgument)
    .action(async (name: string, primary: VolumeRef | undefined, secondary: VolumeRef | undefined, plan: { plan?: boolean }) => {
      const changed = await context.call('group.remove', { name, ...given({ primary, secondary }), ...plan });
      answer(context, changed, (left) => (left === null ? `group ${name} removed` : countText(left)));
    });
  addCommand(group, 'show', 'all groups, or the pairs of one', ['group show', 'group show nightly'])
    .argument('[GROUP]', "the group's name")
    .action((name: string | undefined) => showGroups(context, name));
  const split = addCommand(group, 'split', 'split all pairs of a group at one point in time, or none of them', [
    'group split nightly',
    'group split nightly --wait --timeout 10m',
    'group split nightly --plan',
    'group split nightly --at 02:00',
  ]);
  withTiming(withWait(withPlan(split), 'all its pairs are duplex first'))
    .argument('<GROUP>', "the group's name")
    .action((name: string, options: SplitOptions) => splitGroup(context, name, options));
  registerResync(group, context);
};

type ResyncOptions = ConsentOptions & { readonly plan?: boolean; readonly pace?: number };

const registerResync = (group: Command, context: CommandContext): void => {
  const resync = addCommand(group, 'resync', 'resync all pairs of a group after one inquiry about all of their secondaries', [
    'group resync nightly --plan',
    'group resync nightly',
  ]);
  withPlan(withConsentOptions(resync))
    .argument('<GROUP>', "the group's name")
    .option('--pace <PACE>', '1 (gives way to hosts most) to 15, or slow, medium, fast', paceArgument)
    .action(async (name: string, { override, reason, ...rest }: ResyncOptions) => {
      const words = { question: `resync the pairs of group ${name} anyway?`, notDone: `no pair of group ${name} was resynced` };
      const result = await withConsent(context, given({ override, reason }), words, (consent) =>
        context.call('group.resync', { name, ...rest, ...consent }),
      );
      context.print(result, () =>
        isPlan(result)
          ? planText(result, context.paint)
          : `group ${name}: ${pairCount(result.length)} ${result.length === 1 ? 'resyncs' : 'resync'}`,
      );
    });
};
