/** `twinvol pool candidates|restore-size`: the secondary pool. */
import type { Command } from 'commander';
import { formatSize } from '../../core/units.ts';
import type { CandidateView } from '../../core/views.ts';
import type { VolumeRef } from '../../engine/api.ts';
import { type ChoiceParser, choiceArgument, volumeArgument } from '../arguments.ts';
import { addCommand, addGroup, withConsentOptions, withPlan } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { type ConsentOptions, withConsent } from '../consent-prompt.ts';
import { given } from '../given.ts';
import { isPlan, planText } from '../plan-text.ts';
import type { Column } from '../text-table.ts';
import { textTable } from '../text-table.ts';

const COLUMNS: readonly Column<CandidateView>[] = [
  { heading: 'NUMBER', align: 'right', text: ({ number }) => String(number) },
  { heading: 'NAME', text: ({ name }) => name },
  { heading: 'SIZE', align: 'right', text: ({ capacityBytes }) => formatSize(capacityBytes) },
  { heading: 'FIT', text: ({ fit }) => fit },
];
const EXPLAINED: readonly Column<CandidateView>[] = [
  ...COLUMNS,
  { heading: 'CANDIDATE', text: ({ candidate }) => (candidate ? 'yes' : 'no'), colour: ({ candidate }) => (candidate ? 'green' : null) },
  { heading: 'REASON', isOptional: true, text: ({ reason }) => reason ?? '' },
];

export const conditionArgument: ChoiceParser<'same' | 'any'> = choiceArgument<'same' | 'any'>('condition', ['same', 'any']);
export const fitArgument: ChoiceParser<'off' | 'regions'> = choiceArgument<'off' | 'regions'>('way of fitting', ['off', 'regions']);

type CandidateOptions = { readonly explain?: boolean; readonly condition?: 'same' | 'any'; readonly fit?: 'off' | 'regions' };

/** A candidate in a list to choose from. */
export const candidateLine = ({ number, name, capacityBytes, fit }: CandidateView): string =>
  `${number}  ${name}  ${formatSize(capacityBytes)}  ${fit}`;

export const registerPool = (program: Command, context: CommandContext): void => {
  const pool = addGroup(program, 'pool', 'the pool of volumes that can become secondaries');
  addCommand(pool, 'candidates', 'the volumes that can be the secondary of a primary', [
    'pool candidates db',
    'pool candidates db --explain',
    'pool candidates db --fit regions',
  ])
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .option('--explain', 'all volumes, and why one is not a candidate')
    .option(
      '--condition <CONDITION>',
      "same: of the primary's capacity only, where regions are not fitted; left out: any",
      conditionArgument,
    )
    .option('--fit <FIT>', "for a pair create with this fitting; left out: as the device's setting says", fitArgument)
    .action(async (primary: VolumeRef, { explain, condition, fit }: CandidateOptions) => {
      const candidates = await context.call('pool.candidates', { primary, ...given({ explain, condition, fit }) });
      const empty = `no volume can be the secondary of ${primary}; --explain says why`;
      context.print(candidates, () => textTable(candidates, explain === true ? EXPLAINED : COLUMNS, context.paint, empty));
    });
  const restore = addCommand(pool, 'restore-size', 'give a pool volume the capacity back that it had before region fitting', [
    'pool restore-size spare1 --plan',
  ]);
  withPlan(withConsentOptions(restore))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .action(async (volume: VolumeRef, { plan, ...decision }: ConsentOptions & { plan?: boolean }) => {
      const words = { question: `change the size of volume ${volume} anyway?`, notDone: `volume ${volume} keeps its size` };
      const result = await withConsent(context, decision, words, (consent) => {
        return context.call('pool.restoreSize', { volume, ...consent, ...given({ plan }) });
      });
      context.print(result, () =>
        isPlan(result) ? planText(result, context.paint) : `volume ${result.name} is ${formatSize(result.capacityBytes)} again`,
      );
    });
};
