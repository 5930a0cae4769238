/** `twinvol volume ...` and `twinvol uri`. */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import type { VolumeAttribute } from '../../core/rows.ts';
import { formatSize } from '../../core/units.ts';
import type { PlanView, VolumeView } from '../../core/views.ts';
import type { VolumeRef } from '../../engine/api.ts';
import { choiceArgument, flagArgument, sizeArgument, volumeArgument } from '../arguments.ts';
import { addCommand, addGroup, withConsentOptions, withPlan } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { type ConsentOptions, confirmDestruction, withConsent } from '../consent-prompt.ts';
import { formatMoment } from '../duration.ts';
import { given } from '../given.ts';
import { isPlan, planText } from '../plan-text.ts';
import type { Column } from '../text-table.ts';
import { textFields, textTable } from '../text-table.ts';

const ATTRIBUTES = ['normal', 'secondary'] as const;
const attributeArgument = choiceArgument<VolumeAttribute>('volume attribute', ATTRIBUTES);
const ATTRIBUTE_HELP = 'normal, or secondary: a volume of the pool';

const COLUMNS: readonly Column<VolumeView>[] = [
  { heading: 'NUMBER', align: 'right', text: ({ number }) => String(number) },
  { heading: 'NAME', text: ({ name }) => name },
  { heading: 'SIZE', align: 'right', text: ({ capacityBytes }) => formatSize(capacityBytes) },
  { heading: 'ATTRIBUTE', text: ({ attribute }) => attribute },
  { heading: 'IN-USE', text: ({ inUse }) => inUse },
  { heading: 'ROLE', text: ({ role }) => role ?? '' },
  { heading: 'CLIENTS', align: 'right', text: ({ clients }) => String(clients) },
  { heading: 'PROTECTED', isOptional: true, text: (volume) => (volume.protected ? 'yes' : '') },
];

const fieldsOf = (volume: VolumeView): Array<readonly [string, string]> => [
  ['number', String(volume.number)],
  ['name', volume.name],
  ['uuid', volume.uuid],
  ['size', `${formatSize(volume.capacityBytes)} (${volume.capacityBytes} bytes)`],
  ...(volume.formerCapacityBytes === null ? [] : [['former size', formatSize(volume.formerCapacityBytes)] as const]),
  ['attribute', volume.attribute],
  ['in use', volume.inUse],
  ['role', volume.role ?? 'in no pair'],
  ['protected', volume.protected ? 'yes' : 'no'],
  ['clients', String(volume.clients)],
  ['regions', `${volume.regions} in ${volume.runs.length} ${volume.runs.length === 1 ? 'run' : 'runs'}`],
  ['created', formatMoment(volume.createdAtMs)],
  ['uri', volume.uri],
];

const answer = (context: CommandContext, result: VolumeView | PlanView, done: (volume: VolumeView) => string): void => {
  context.print(result, () => (isPlan(result) ? planText(result, context.paint) : done(result)));
};

type Changing = { readonly plan?: boolean };

const registerCreate = (volume: Command, context: CommandContext): void => {
  const examples = ['volume create db --size 10G', 'volume create spare1 --size 10G --attribute secondary'];
  withPlan(addCommand(volume, 'create', 'make a volume; it reads as zeros and takes no space until it is written', examples))
    .argument('<NAME>', 'letters, digits, ".", "_", "-"; not only digits')
    .requiredOption('--size <SIZE>', 'capacity: a number with K, M, G or T', sizeArgument)
    .option('--attribute <ATTRIBUTE>', ATTRIBUTE_HELP, attributeArgument)
    .action(async (name: string, { size, ...rest }: Changing & { size: number; attribute?: VolumeAttribute }) => {
      const result = await context.call('volume.create', { name, sizeBytes: size, ...rest });
      answer(
        context,
        result,
        (made) => `volume ${made.name} created: number ${made.number}, ${formatSize(made.capacityBytes)}, ${made.uri}`,
      );
    });
};

const registerReports = (volume: Command, context: CommandContext): void => {
  addCommand(volume, 'list', 'all volumes', ['volume list', 'volume list --json']).action(async () => {
    const volumes = await context.call('volume.list', {});
    context.print(volumes, () => textTable(volumes, COLUMNS, context.paint, 'no volumes; twinvol volume create NAME --size S makes one'));
  });
  addCommand(volume, 'show', 'one volume in full', ['volume show db', 'volume show 3 --json'])
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .action(async (ref: VolumeRef) => {
      const shown = await context.call('volume.show', { volume: ref });
      context.print(shown, () => textFields(fieldsOf(shown), context.paint));
    });
};

const registerChanges = (volume: Command, context: CommandContext): void => {
  withPlan(addCommand(volume, 'rename', 'give a volume another name; its number and its UUID stay', ['volume rename db db-old']))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .argument('<NAME>', 'the new name')
    .action(async (ref: VolumeRef, name: string, plan: Changing) => {
      const result = await context.call('volume.rename', { volume: ref, name, ...plan });
      answer(context, result, (renamed) => `volume ${renamed.number} is now called ${renamed.name}`);
    });
  withPlan(
    addCommand(volume, 'grow', 'make a volume larger; what is added reads as zeros', [
      'volume grow db --size 20G',
      'volume grow db 20G --plan',
    ]),
  )
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .argument('[SIZE]', 'the new capacity', sizeArgument)
    .option('--size <SIZE>', 'the new capacity, as an option', sizeArgument)
    .action(async (ref: VolumeRef, positional: number | undefined, { size, ...plan }: Changing & { size?: number }) => {
      const sizeBytes = positional ?? size;
      if (sizeBytes === undefined) throw new TwinvolError('USAGE', 'volume grow needs the new size', { remedy: 'give --size SIZE' });
      const result = await context.call('volume.grow', { volume: ref, sizeBytes, ...plan });
      answer(context, result, (grown) => `volume ${grown.name} is now ${formatSize(grown.capacityBytes)}`);
    });
};

type SetOptions = Changing & ConsentOptions & { attribute?: VolumeAttribute; protected?: boolean };

const registerSet = (volume: Command, context: CommandContext): void => {
  const set = addCommand(volume, 'set', 'change the attribute, or keep a volume out of every automatic choice', [
    'volume set spare1 --attribute secondary',
    'volume set precious --protected on',
  ]);
  withPlan(withConsentOptions(set))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .option('--attribute <ATTRIBUTE>', ATTRIBUTE_HELP, attributeArgument)
    .option('--protected <on|off>', 'on: no automatic choice takes it', flagArgument)
    .action(async (ref: VolumeRef, { override, reason, ...changes }: SetOptions) => {
      await setVolume(context, ref, changes, given({ override, reason }));
    });
  for (const [name, isProtected, summary] of [
    ['protect', true, 'keep a volume out of every automatic choice'],
    ['unprotect', false, 'let automatic choices take a volume again'],
  ] as const) {
    withPlan(addCommand(volume, name, summary, [`volume ${name} precious`]))
      .argument('<VOLUME>', 'name or number', volumeArgument)
      .action((ref: VolumeRef, plan: Changing) => setVolume(context, ref, { protected: isProtected, ...plan }, {}));
  }
};

const setVolume = async (
  context: CommandContext,
  ref: VolumeRef,
  changes: Omit<SetOptions, 'override' | 'reason'>,
  decision: ConsentOptions,
): Promise<void> => {
  if (changes.attribute === undefined && changes.protected === undefined) {
    throw new TwinvolError('USAGE', 'volume set changes nothing', { remedy: 'give --attribute or --protected' });
  }
  const words = { question: `put volume ${ref} into the pool anyway?`, notDone: `volume ${ref} was not changed` };
  const result = await withConsent(context, decision, words, (consent) =>
    context.call('volume.set', { volume: ref, ...changes, ...consent }),
  );
  answer(context, result, (set) => `volume ${set.name}: attribute ${set.attribute}, ${set.protected ? 'protected' : 'not protected'}`);
};

const registerDelete = (volume: Command, context: CommandContext): void => {
  const remove = addCommand(volume, 'delete', 'delete a volume and its data', [
    'volume delete old',
    'volume delete old --yes',
    'volume delete old --plan',
  ]);
  withPlan(withConsentOptions(remove))
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .option('-y, --yes', 'do not ask; warnings about hosts that use it are still shown and asked about')
    .action(async (ref: VolumeRef, { yes, plan, ...decision }: Changing & ConsentOptions & { yes?: boolean }) => {
      const notDone = `volume ${ref} was not deleted`;
      if (plan !== true && yes !== true && context.isInteractive) {
        const { name, capacityBytes } = await context.call('volume.show', { volume: ref });
        await confirmDestruction(context, `delete volume ${name} (${formatSize(capacityBytes)}) and its data?`, notDone);
      }
      const words = { question: `delete volume ${ref} anyway?`, notDone };
      const result = await withConsent(context, decision, words, (consent) => {
        return context.call('volume.delete', { volume: ref, ...consent, ...given({ plan }) });
      });
      answer(context, result, (deleted) => `volume ${deleted.name} deleted`);
    });
};

export const registerVolume = (program: Command, context: CommandContext): void => {
  const volume = addGroup(program, 'volume', 'make, list, change and delete volumes');
  registerCreate(volume, context);
  registerReports(volume, context);
  registerChanges(volume, context);
  registerSet(volume, context);
  registerDelete(volume, context);
};

export const registerUri = (program: Command, context: CommandContext): void => {
  addCommand(program, 'uri', "a volume's NBD URI, for any NBD client", ['uri db', 'nbdinfo "$(twinvol uri db)"'])
    .argument('<VOLUME>', 'name or number', volumeArgument)
    .action(async (ref: VolumeRef) => {
      const uri = await context.call('volume.uri', { volume: ref });
      context.print({ uri }, () => uri);
    });
};
