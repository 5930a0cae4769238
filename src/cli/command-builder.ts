/**
 * Small additions to commander that every command of ours uses: examples in the help, the options that many share.
 * The store and `--json` are options of the program, and so are taken at any place of the line.
 */
import type { Command } from 'commander';
import { TwinvolError } from '../core/faults.ts';
import { collect, durationArgument } from './arguments.ts';

/** A command or subcommand, with examples (without the program's name, or a whole line) at the end of its help. */
export const addCommand = (parent: Command, name: string, summary: string, examples: readonly string[]): Command => {
  const lines = examples.map((example) => `  $ ${example.includes('twinvol ') ? example : `twinvol ${example}`}`);
  return parent
    .command(name)
    .description(summary)
    .addHelpText('after', `\nExamples:\n${lines.join('\n')}`);
};

/** A command that only has subcommands. */
export const addGroup = (parent: Command, name: string, summary: string): Command => parent.command(name).description(summary);

export const withPlan = (command: Command): Command => command.option('--plan', 'say what would be done, and do nothing');

export const withConsentOptions = (command: Command): Command => {
  return command
    .option(
      '--override <FINDING>',
      'go on in spite of this finding: mounted:HOST, open:HOST, unknown:HOST, no-answer:HOST, client:ID (repeatable)',
      collect,
    )
    .option('--reason <TEXT>', 'why; goes to the audit record');
};

export type Waiting = { readonly wait?: boolean; readonly timeout?: number };

/** @param until what is waited for, as the end of "wait until" */
export const withWait = (command: Command, until: string): Command => {
  return command
    .option('--wait', `wait until ${until}, with its progress`)
    .option('--timeout <TIME>', 'wait so long at most, such as 60s; with --wait', durationArgument)
    .hook('preAction', (_, acting) => requireWait(acting.opts()));
};

const requireWait = ({ wait, timeout }: Waiting): void => {
  if (timeout !== undefined && wait !== true)
    throw new TwinvolError('USAGE', '--timeout says how long to wait, and without --wait nothing is waited for; nothing was done', {
      remedy: 'add --wait, or leave --timeout out',
    });
};
