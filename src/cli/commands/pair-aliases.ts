/**
 * `twinvol paircreate, pairsplit, pairresync, pairdisplay, pairvolchk, pairevtwait`: thin aliases for people with
 * scripts in that manner. What each flag does and what differs is in the table of alias-flags.ts.
 */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import type { FenceLevel } from '../../core/rows.ts';
import type { PairView } from '../../core/views.ts';
import type { PairRef } from '../../engine/api.ts';
import { ALIAS_TABLE, type AliasSpec, type AliasWords, aliasHelp, parseAliasWords } from '../alias-flags.ts';
import { choiceArgument, paceArgument, volumeArgument } from '../arguments.ts';
import type { CommandContext } from '../command-context.ts';
import type { Register } from '../command-table.ts';
import { type ConsentOptions, withConsent } from '../consent-prompt.ts';
import { DURATION_MS_MAX } from '../duration.ts';
import { given } from '../given.ts';
import { waitForState } from '../pair-waiting.ts';
import { textTable } from '../text-table.ts';

/** How the family calls the states. */
type Word = 'SMPL' | 'COPY' | 'PAIR' | 'PSUS' | 'PSUE';
const WORDS = { 'duplex-pending': 'COPY', duplex: 'PAIR', split: 'PSUS', suspended: 'PSUE' } as const;
const STATES = { smpl: 'simplex', copy: 'duplex-pending', pair: 'duplex', psus: 'split', psue: 'suspended' } as const;
const wordArgument = choiceArgument('pair state', ['smpl', 'copy', 'pair', 'psus', 'psue']);
/** Of several pairs, the first of these that there is. */
const PRECEDENCE: readonly Word[] = ['PSUE', 'SMPL', 'COPY', 'PSUS', 'PAIR'];
const NOWAIT_STATUS: Readonly<Record<Word, number>> = { SMPL: 1, COPY: 2, PAIR: 3, PSUS: 4, PSUE: 5 };
const STATE_DIGIT: Readonly<Record<Word, number>> = { SMPL: 1, COPY: 2, PAIR: 3, PSUS: 4, PSUE: 5 };
const TIMEOUT_STATUS = 233;
/** The pair is suspended, or gone, and does not get into the wanted state by itself. */
const SUSPENDED_STATUS = 232;

const wordOf = (pair: PairView): Word => WORDS[pair.state];

const one = (words: AliasWords, flag: string): string | undefined => words.flags.get(flag)?.at(-1);

/** The pair that `-d` or the operands name. @throws TwinvolError `USAGE` when they name more than one */
const namedPair = (words: AliasWords): PairRef | null => {
  const named = words.flags.get('-d') ?? [];
  const [primary, secondary, ...more] = words.operands.length > 0 ? words.operands : (named[0]?.split(':') ?? []);
  if (more.length > 0 || named.length > 1 || (named.length > 0 && words.operands.length > 0)) {
    const all = [...named.map((value) => `-d ${value}`), ...words.operands].join(' ');
    throw new TwinvolError('USAGE', `"${all}" is more than one pair`, {
      remedy: 'name one pair, with -d PRIMARY:SECONDARY or as PRIMARY SECONDARY',
    });
  }
  if (primary === undefined || primary === '') return null;
  return { primary: volumeArgument(primary), ...(secondary === undefined ? {} : { secondary: volumeArgument(secondary) }) };
};

/** The group that `-g` names, which has to be there: a typing error must not look like a pair that is simplex. */
const namedGroup = async (context: CommandContext, words: AliasWords): Promise<string | undefined> => {
  const name = one(words, '-g');
  if (name === undefined || (await context.call('group.list', {})).some((group) => group.name === name)) return name;
  throw new TwinvolError('GROUP_NOT_FOUND', `there is no group ${name}; nothing was changed`, {
    remedy: `make it with twinvol group create ${name}`,
  });
};

/** The pairs that `-g` and `-d` mean; an error when they mean none. */
const meantPairs = async (context: CommandContext, words: AliasWords): Promise<readonly PairView[]> => {
  const group = await namedGroup(context, words);
  const ref = namedPair(words);
  const pairs = await context.call('pair.status', ref === null ? {} : { primary: ref.primary });
  const isMeant = (pair: PairView): boolean => {
    const isNamed = ref?.secondary === undefined || ref.secondary === pair.secondary.name || ref.secondary === pair.secondary.number;
    return isNamed && (group === undefined || pair.group === group);
  };
  const meant = pairs.filter(isMeant);
  if (meant.length === 0)
    throw new TwinvolError('PAIR_NOT_FOUND', group === undefined ? 'there is no such pair' : `group ${group} has no such pair`);
  return meant;
};

const requireNamed = (spec: AliasSpec, words: AliasWords): void => {
  if (one(words, '-g') !== undefined || namedPair(words) !== null) return;
  throw new TwinvolError('USAGE', `${spec.name} needs -g GROUP or -d PRIMARY`, { remedy: `see twinvol ${spec.name} --help` });
};

const decisionOf = (words: AliasWords): ConsentOptions =>
  given({ override: words.flags.get('--override'), reason: one(words, '--reason') });

const refOf = (pair: PairView): Required<PairRef> => ({ primary: pair.primary.number, secondary: pair.secondary.number });

const nameOf = (pair: PairView): string => `${pair.primary.name} -> ${pair.secondary.name}`;

type Action = (context: CommandContext, words: AliasWords, spec: AliasSpec) => Promise<void>;

const paircreate: Action = async (context, words) => {
  const ref = namedPair(words);
  if (ref === null) throw new TwinvolError('USAGE', 'paircreate needs -d PRIMARY', { remedy: 'see twinvol paircreate --help' });
  const group = await namedGroup(context, words);
  const pace = one(words, '-c');
  const fence = one(words, '-f');
  const options = given({
    pace: pace === undefined ? undefined : paceArgument(pace),
    fence: fence === undefined ? undefined : choiceArgument<FenceLevel>('fence level', ['never', 'data'])(fence),
  });
  const question = { question: `form a pair of ${ref.primary} anyway?`, notDone: `no pair of ${ref.primary} was formed` };
  const made = await withConsent(context, decisionOf(words), question, (consent) =>
    context.call('pair.create', { ...ref, ...options, ...consent }),
  );
  if ('plan' in made) throw new Error('a plan was not asked for');
  if (group !== undefined) await context.call('group.add', { name: group, ...refOf(made) });
  let pair: PairView = made;
  if (words.flags.has('-split')) {
    await waitForState(context, refOf(made), 'duplex');
    const split = await context.call('pair.split', refOf(made));
    if (!('plan' in split)) pair = split;
  }
  context.print(pair, () => `${nameOf(pair)} ${wordOf(pair)}`);
};

const pairsplit: Action = async (context, words, spec) => {
  requireNamed(spec, words);
  const group = one(words, '-g');
  const isWholeGroup = group !== undefined && namedPair(words) === null;
  if (isWholeGroup && !words.flags.has('-S')) {
    const { splitGroup } = await import('./group.ts');
    await splitGroup(context, group, {});
    return;
  }
  const done: PairView[] = [];
  for (const pair of await meantPairs(context, words)) {
    if (words.flags.has('-S')) {
      const question = { question: `release pair ${nameOf(pair)} anyway?`, notDone: `pair ${nameOf(pair)} was not released` };
      const result = await withConsent(context, decisionOf(words), question, (consent) =>
        context.call('pair.release', { ...refOf(pair), ...consent }),
      );
      if ('released' in result) done.push(result.released);
    } else {
      const result = await context.call('pair.split', refOf(pair));
      if (!('plan' in result)) done.push(result);
    }
  }
  context.print(done, () => done.map((pair) => `${nameOf(pair)} ${words.flags.has('-S') ? 'SMPL' : wordOf(pair)}`).join('\n'));
};

const pairresync: Action = async (context, words, spec) => {
  requireNamed(spec, words);
  const isRestore = words.flags.has('-restore');
  const pace = one(words, '-c');
  const group = one(words, '-g');
  if (group !== undefined && namedPair(words) === null && !isRestore) return resyncGroup(context, words, group, pace);
  const done: PairView[] = [];
  for (const pair of await meantPairs(context, words)) {
    const verb = isRestore ? 'restore' : 'resync';
    const question = {
      question: `${verb} pair ${nameOf(pair)} anyway?`,
      notDone: `pair ${nameOf(pair)} was not ${isRestore ? 'restored' : 'resynced'}`,
    };
    const input = { ...refOf(pair), ...given({ pace: pace === undefined ? undefined : paceArgument(pace) }) };
    const method = isRestore ? 'pair.restore' : 'pair.resync';
    const result = await withConsent(context, decisionOf(words), question, (consent) => context.call(method, { ...input, ...consent }));
    if (!('plan' in result)) done.push(result);
  }
  context.print(done, () => done.map((pair) => `${nameOf(pair)} ${wordOf(pair)}`).join('\n'));
};

/** One inquiry about all secondaries of the group; nothing is copied unless all may be. */
const resyncGroup = async (context: CommandContext, words: AliasWords, name: string, pace: string | undefined): Promise<void> => {
  const question = { question: `resync the pairs of group ${name} anyway?`, notDone: `no pair of group ${name} was resynced` };
  const input = { name, ...given({ pace: pace === undefined ? undefined : paceArgument(pace) }) };
  const pairs = await withConsent(context, decisionOf(words), question, (consent) =>
    context.call('group.resync', { ...input, ...consent }),
  );
  if ('plan' in pairs) throw new Error('a plan was not asked for');
  context.print(pairs, () => pairs.map((pair) => `${nameOf(pair)} ${wordOf(pair)}`).join('\n'));
};

const pairdisplay: Action = async (context, words) => {
  const hasSelection = one(words, '-g') !== undefined || namedPair(words) !== null;
  const pairs = hasSelection ? await meantPairs(context, words) : await context.call('pair.status', {});
  const lines = pairs.flatMap((pair) => [
    { pair, side: 'P-VOL', volume: pair.primary, other: pair.secondary, status: wordOf(pair) },
    { pair, side: 'S-VOL', volume: pair.secondary, other: pair.primary, status: wordOf(pair) === 'PSUS' ? 'SSUS' : wordOf(pair) },
  ]);
  type Line = (typeof lines)[number];
  const percent = { heading: '%', align: 'right', text: ({ pair }: Line) => String(Math.floor(pair.copyPointer.percent)) } as const;
  context.print(pairs, () =>
    textTable<Line>(
      lines,
      [
        { heading: 'Group', text: ({ pair }) => pair.group ?? '' },
        { heading: 'PairVol', text: ({ volume }) => volume.name },
        { heading: 'LDEV#', align: 'right', text: ({ volume }) => String(volume.number) },
        { heading: 'P/S', text: ({ side }) => side },
        { heading: 'Status', text: ({ status }) => status },
        { heading: 'Fence', text: ({ pair }) => pair.fence.toUpperCase() },
        ...(words.flags.has('-fc') ? [percent] : []),
        { heading: 'P-LDEV#', align: 'right', text: ({ other }) => String(other.number) },
      ],
      context.paint,
      'no pairs',
    ),
  );
};

const farthest = (words: readonly Word[]): Word => PRECEDENCE.find((word) => words.includes(word)) ?? 'SMPL';

const pairvolchk: Action = async (context, words, spec) => {
  requireNamed(spec, words);
  const ref = namedPair(words);
  const group = await namedGroup(context, words);
  if (ref !== null) await context.call('volume.show', { volume: ref.primary });
  const isMeant = ({ name, number }: PairView['primary']): boolean => ref === null || ref.primary === name || ref.primary === number;
  const pairs = (await context.call('pair.status', {})).filter((pair) => group === undefined || pair.group === group);
  const asPrimary = pairs.filter((pair) => isMeant(pair.primary));
  const asSecondary = ref === null ? [] : pairs.filter((pair) => isMeant(pair.secondary));
  const side = asPrimary.length > 0 ? 2 : asSecondary.length > 0 ? 3 : 1;
  const state = farthest([...asPrimary, ...asSecondary].map(wordOf));
  context.exitStatus = words.flags.has('-ss') ? side * 10 + STATE_DIGIT[state] : side;
  const volume = side === 1 ? 'SMPL' : side === 2 ? 'P-VOL' : 'S-VOL';
  if (words.flags.has('-nomsg')) return;
  context.print({ volume, state, exit: context.exitStatus }, () => `${ref?.primary ?? group}: ${volume}${side === 1 ? '' : `, ${state}`}`);
};

/** Exit status of a wait that ended without the state; null: another error. */
const endedStatus = (error: unknown): number | null => {
  const code = error instanceof TwinvolError ? error.code : '';
  return code === 'TIMEOUT' ? TIMEOUT_STATUS : code === 'WAIT_IMPOSSIBLE' ? SUSPENDED_STATUS : null;
};

const pairevtwait: Action = async (context, words, spec) => {
  requireNamed(spec, words);
  const isSilent = words.flags.has('-nomsg');
  if (words.flags.has('-nowait')) {
    const pairs = await meantPairs(context, words).catch((error: unknown) => {
      if (error instanceof TwinvolError && error.code === 'PAIR_NOT_FOUND') return [];
      throw error;
    });
    const state = farthest(pairs.map(wordOf));
    context.exitStatus = NOWAIT_STATUS[state];
    if (!isSilent) context.print({ state, exit: context.exitStatus }, () => state);
    return;
  }
  const { word, timeoutMs } = waitOf(words);
  const endMs = context.io.nowMs() + timeoutMs;
  let outcome: string = word.toUpperCase();
  try {
    const ref = namedPair(words);
    const refs = ref !== null && one(words, '-g') === undefined ? [ref] : (await meantPairs(context, words)).map(refOf);
    for (const pair of refs) await waitForState(context, pair, STATES[word], Math.max(0, endMs - context.io.nowMs()));
  } catch (error) {
    const status = endedStatus(error);
    if (status === null) throw error;
    if (!isSilent) context.note(error instanceof Error ? error.message : String(error));
    context.exitStatus = status;
    outcome = status === TIMEOUT_STATUS ? 'the time is over' : 'it will not come';
  }
  if (!isSilent) context.print({ state: word.toUpperCase(), exit: context.exitStatus }, () => outcome);
};

/** What `-s` and `-t` say. @throws TwinvolError `USAGE` */
const waitOf = (words: AliasWords): { readonly word: keyof typeof STATES; readonly timeoutMs: number } => {
  const states = words.flags.get('-s') ?? [];
  const seconds = words.flags.get('-t')?.[0];
  const [wanted, ...others] = states;
  const remedy = 'see twinvol pairevtwait --help';
  if (wanted === undefined || seconds === undefined)
    throw new TwinvolError('USAGE', 'pairevtwait needs -s STATE and -t SECONDS, or -nowait', { remedy });
  if (others.length > 0) throw new TwinvolError('USAGE', 'pairevtwait waits for one state', { remedy });
  const word = wordArgument(wanted);
  if (!/^\d+$/.test(seconds)) throw new TwinvolError('USAGE', `"${seconds}" is no number of seconds`, { remedy });
  return { word, timeoutMs: Math.min(Number(seconds) * 1000, DURATION_MS_MAX) };
};

const ACTIONS: Readonly<Record<string, Action>> = { paircreate, pairsplit, pairresync, pairdisplay, pairvolchk, pairevtwait };

export const registerAlias = (name: string): Register => {
  const spec = ALIAS_TABLE.find((candidate) => candidate.name === name);
  const action = ACTIONS[name];
  if (spec === undefined || action === undefined) throw new Error(`there is no alias ${name}`);
  return (program: Command, context: CommandContext): void => {
    const command = program
      .command(name)
      .description(`like twinvol ${spec.ours}, with the flags of the paircreate family`)
      .argument('[WORDS...]')
      .allowUnknownOption()
      .allowExcessArguments()
      .configureHelp({ formatHelp: () => aliasHelp(spec) });
    command.action(() => action(context, parseAliasWords(spec, command.args), spec));
  };
};
