/**
 * One command line, from its words to its exit status. Everything that goes wrong, commander's own complaints included,
 * leaves as one error with a code, a remedy and the exit status of the catalogue.
 */
import { Command, CommanderError } from 'commander';
import { EXIT, TwinvolError } from '../core/faults.ts';
import { CommandContext, type GlobalOptions } from './command-context.ts';
import { registerCommands } from './command-table.ts';
import type { CliIo } from './io.ts';

const HELP_FOOTER = `
Sizes take K, M, G, T; a volume is named by its name or its number.
Exit statuses: 0 done, 1 timeout, 2 broken, 3 changed, 10 refused, 11 mounted, 12 no answer, 13 no candidate, 64 usage.

Examples:
  $ twinvol init /srv/twinvol && twinvol serve --store /srv/twinvol
  $ export TWINVOL_STORE=/srv/twinvol
  $ twinvol volume create db --size 10G
  $ twinvol volume create db-copy --size 10G --attribute secondary
  $ twinvol pair create db --wait
  $ twinvol pair split db`;

const configure = (program: Command, io: CliIo): Command => {
  return program
    .description('Block-device replication with real I/O: NBD volumes on sparse files, kept in pairs.')
    .usage('[--store DIR] [--json] COMMAND ...')
    .option('--store <DIR>', "the device's store; or TWINVOL_STORE")
    .option('--json', 'one JSON document on stdout, and errors as JSON on stderr')
    .option('-V, --version', 'the version of this program')
    .configureHelp({ showGlobalOptions: true, subcommandTerm: (command) => command.name(), helpWidth: Math.min(140, io.stdout.columns) })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      // What is wrong is said once, in our own form, by reportError.
      writeErr: () => {},
      outputError: () => {},
    })
    .exitOverride()
    .addHelpText('after', HELP_FOOTER);
};

const versionText = async (): Promise<string> => {
  const { createRequire } = await import('node:module');
  return (createRequire(import.meta.url)('twinvol/package.json') as { readonly version: string }).version;
};

/** Only in front of every command: behind one, `-V` may be its own. */
const isVersionAsked = (words: readonly string[]): boolean => ['-V', '--version'].includes(words.find((word) => word !== '--json') ?? '');

/** The words of the command, without the program: `pair create`. */
const pathOf = (program: Command, words: readonly string[]): string => {
  let command: Command | undefined = program;
  const path: string[] = [];
  for (const word of words) {
    command = command?.commands.find((candidate) => candidate.name() === word) ?? command;
    if (command?.name() === word) path.push(word);
  }
  return path.join(' ');
};

/** A complaint of commander, as an error of ours; null when it only says that help was shown. */
const usageErrorOf = (error: CommanderError, program: Command, words: readonly string[]): TwinvolError | null => {
  if (error.code === 'commander.helpDisplayed' || error.code === 'commander.version') return null;
  const path = pathOf(program, words);
  const remedy = `see ${['twinvol', ...(path === '' ? [] : [path]), '--help'].join(' ')}`;
  if (error.code === 'commander.help') {
    const what = path === '' ? 'a command' : `what to do: one of ${subcommandNames(program, path)}`;
    return new TwinvolError('USAGE', `${['twinvol', path].join(' ').trim()} needs ${what}`, { remedy });
  }
  const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
  return new TwinvolError('USAGE', message, { remedy });
};

const subcommandNames = (program: Command, path: string): string => {
  const command = program.commands.find((candidate) => candidate.name() === path);
  return (command?.commands ?? []).map((subcommand) => subcommand.name()).join(', ');
};

/** @returns the exit status */
export const run = async (argv: readonly string[], io: CliIo): Promise<number> => {
  const program = new Command('twinvol');
  const end = argv.indexOf('--');
  const words = end === -1 ? argv : argv.slice(0, end);
  const isJson = words.includes('--json');
  const context = new CommandContext(io, () => ({ ...program.opts<GlobalOptions>(), json: isJson }));
  configure(program, io);
  try {
    if (isVersionAsked(words)) {
      const version = await versionText();
      context.print({ version }, () => version);
      return EXIT.done;
    }
    await registerCommands(program, context, words);
    await program.parseAsync(argv, { from: 'user' });
    return context.exitStatus;
  } catch (error) {
    const known = error instanceof CommanderError ? usageErrorOf(error, program, words) : error;
    if (known === null) return EXIT.done;
    const { reportError } = await import('./error-report.ts');
    return reportError(context, known);
  } finally {
    await context.close();
  }
};
