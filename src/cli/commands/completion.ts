/** `twinvol completion SHELL`, and the hidden command that the scripts ask. */
import { Command } from 'commander';
import { choiceArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { registerCommands } from '../command-table.ts';
import { COMPLETION_SCRIPTS, suggest, suggestionLine } from '../completion.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export const registerCompletion = (program: Command, context: CommandContext): void => {
  addCommand(program, 'completion', 'the completion script of a shell', [
    'source <(twinvol completion bash)',
    'twinvol completion fish | source',
  ])
    .argument('<SHELL>', 'bash, zsh or fish', choiceArgument<Shell>('shell', SHELLS))
    .action((shell: Shell) => {
      context.print({ shell, script: COMPLETION_SCRIPTS[shell] }, () => COMPLETION_SCRIPTS[shell]);
    });
};

/** A tree of its own, with every command in it: the one that parses this line knows only the commands that it names. */
const fullProgram = async (program: Command, context: CommandContext): Promise<Command> => {
  const full = new Command(program.name());
  for (const option of program.options) full.addOption(option);
  await registerCommands(full, context, 'all');
  return full;
};

export const registerComplete = (program: Command, context: CommandContext): void => {
  program
    .command('__complete', { hidden: true })
    .argument('<SHELL>')
    .argument('[WORDS...]')
    .action(async (shell: string, typed: readonly string[]) => {
      const suggestions = await suggest(await fullProgram(program, context), context, typed);
      if (suggestions.length > 0)
        context.io.stdout.write(`${suggestions.map((suggestion) => suggestionLine(shell, suggestion)).join('\n')}\n`);
    });
};
