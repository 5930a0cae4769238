/** `twinvol apply FILE`: makes the device what a declaration says, or shows the difference. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import type { MethodParams } from '../../control/method-table.ts';
import { TwinvolError } from '../../core/faults.ts';
import { printable } from '../../core/inquiry-text.ts';
import type { ApplyView } from '../../core/views.ts';
import { formatSize } from '../../core/units.ts';
import { REQUEST_FRAME_BYTES_MAX } from '../../wire/control-frames.ts';
import { addCommand, withConsentOptions, withPlan } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { type ConsentOptions, withConsent } from '../consent-prompt.ts';
import { type DeclarationFile, readDeclaration } from '../declaration-file.ts';
import { given } from '../given.ts';
import type { Colour } from '../style.ts';

type Declaration = MethodParams<'device.apply'>['declaration'];
type Options = ConsentOptions & { readonly plan?: boolean; readonly schema?: boolean };

/** Room for the rest of the request beside the declaration. */
const ENVELOPE_BYTES = 64 * 1024;
const SCHEMA_FILE = new URL('../../control/declaration.schema.json', import.meta.url);

const SIGNS: Readonly<Record<ApplyView['changes'][number]['kind'], readonly [sign: string, colour: Colour]>> = {
  create: ['+', 'green'],
  change: ['~', 'yellow'],
  remove: ['-', 'red'],
};

const placeOf = (file: DeclarationFile, at: string): string => {
  const line = file.lineOf(at);
  return line === null ? at : `line ${line}`;
};

const resultText = (view: ApplyView, file: DeclarationFile, context: CommandContext): string => {
  const lines = view.changes.map(({ at, kind, text }) => {
    const [sign, colour] = SIGNS[kind];
    return `${context.paint(colour, `${sign} ${printable(text)}`)}  (${placeOf(file, at)})`;
  });
  const held = `${view.met} ${view.met === 1 ? 'requirement was' : 'requirements were'} met already`;
  if (lines.length === 0) return `nothing differs: ${held}`;
  const count = `${lines.length} ${lines.length === 1 ? 'change' : 'changes'}`;
  if (!view.plan) return [...lines, `${count} made; ${held}`].join('\n');
  const facts = [
    ...(view.hosts.length > 0 ? [`hosts that would be asked: ${view.hosts.map(printable).join(', ')}`] : []),
    ...(view.regions > 0 ? [`regions: ${view.regions}`] : []),
    ...(view.bytes > 0 ? [`to be copied: up to ${formatSize(view.bytes)}`] : []),
    ...(view.destroysBytes > 0 ? [`volumes whose content would be lost: ${formatSize(view.destroysBytes)}`] : []),
  ];
  return [...lines, ...facts, `${count} would be made; ${held}; nothing was changed`].join('\n');
};

/** What is wrong with the declaration: a line for each fault, with the line of the file. Nothing for other errors. */
const faultsOf = (error: TwinvolError, file: DeclarationFile): ReadonlyArray<{ readonly line: number | null; readonly text: string }> => {
  const unmet =
    error.code === 'UNMET' ? (error.details['unmet'] as ReadonlyArray<Readonly<Record<'at' | 'requirement' | 'reason', string>>>) : [];
  const invalid = error.code === 'USAGE' && Array.isArray(error.details['faults']) ? (error.details['faults'] as readonly string[]) : [];
  return [
    ...unmet.map(({ at, requirement, reason }) => ({ line: file.lineOf(at), text: `${requirement}: ${reason}` })),
    ...invalid.map((fault) => {
      const [, place = '', what = fault] = /^"declaration\.?([^"]*)": (.*)$/s.exec(fault) ?? [];
      return { line: file.lineOf(`/${place.replaceAll('.', '/')}`), text: place === '' ? what : `${place}: ${what}` };
    }),
  ];
};

/** Says where each fault of the declaration is; the error itself says how many there are. */
const located = (context: CommandContext, error: unknown, file: DeclarationFile): unknown => {
  const faults = error instanceof TwinvolError ? faultsOf(error, file) : [];
  if (!(error instanceof TwinvolError) || faults.length === 0) return error;
  for (const { line, text } of faults) context.note(printable(`${file.name}:${line === null ? '' : `${line}:`} ${text}`));
  const count = faults.length === 1 ? '1 requirement' : `${faults.length} requirements`;
  const message =
    error.code === 'UNMET'
      ? `${count} of ${file.name} cannot be met; nothing was changed`
      : `${file.name} is no declaration; nothing was changed`;
  const remedy = error.code === 'UNMET' ? error.remedy : 'twinvol apply --schema prints what a declaration may hold';
  return new TwinvolError(error.code, message, { remedy, details: { ...error.details, places: faults }, cause: error });
};

const jsonOf = ({ name, value }: DeclarationFile): string => {
  try {
    return JSON.stringify(value);
  } catch (error) {
    const remedy = 'write out what its aliases stand for';
    throw new TwinvolError('USAGE', `${name} holds an alias that contains itself; nothing was changed`, { remedy, cause: error });
  }
};

const requireShort = (file: DeclarationFile): void => {
  const byteLength = Buffer.byteLength(jsonOf(file));
  if (byteLength <= REQUEST_FRAME_BYTES_MAX - ENVELOPE_BYTES) return;
  throw new TwinvolError(
    'USAGE',
    `${file.name} is ${formatSize(byteLength)} as JSON, and ${formatSize(REQUEST_FRAME_BYTES_MAX - ENVELOPE_BYTES)} is the limit`,
    {
      remedy: 'apply it in parts: what a declaration does not mention is left alone',
      details: { file: file.name, byteLength },
    },
  );
};

const apply = async (context: CommandContext, path: string, { plan, override, reason }: Options): Promise<void> => {
  const file = await readDeclaration(path);
  requireShort(file);
  const words = {
    question: `overwrite these volumes, as ${file.name} demands?`,
    notDone: `${file.name} was not applied, and nothing was changed`,
  };
  try {
    const view = await withConsent(context, given({ override, reason }), words, (consent) =>
      context.call('device.apply', { declaration: file.value as Declaration, ...consent, ...given({ plan }) }),
    );
    context.print(view, () => resultText(view, file, context));
  } catch (error) {
    throw located(context, error, file);
  }
};

export const registerApply = (program: Command, context: CommandContext): void => {
  const command = addCommand(program, 'apply', 'make the device what a declaration says: change only what differs, or nothing', [
    'apply device.yaml --plan',
    'apply device.yaml',
    'apply --schema',
  ]);
  withPlan(withConsentOptions(command))
    .argument('[FILE]', 'YAML or JSON: volumes, pool, pairs, groups, settings; - for standard input')
    .option('--schema', 'print the JSON Schema of a declaration, and do nothing')
    .action(async (path: string | undefined, options: Options) => {
      if (options.schema === true) return context.io.stdout.write(await readFile(SCHEMA_FILE, 'utf8'));
      if (path === undefined)
        throw new TwinvolError('USAGE', 'apply needs the file of a declaration', { remedy: 'give FILE, or - for standard input' });
      await apply(context, path, options);
    });
};
