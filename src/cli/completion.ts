/**
 * What could come next on a command line, for the shells: commands, options, the values of options, and the names of
 * volumes and groups when an engine answers at once. The tree of commands is commander's own, so it is never out of date.
 */
import type { Argument, Command, Option } from 'commander';
import type { CommandContext } from './command-context.ts';

export type Suggestion = { readonly word: string; readonly meaning: string };

/** Longer than this nobody waits for a completion. */
const NAMES_DEADLINE_MS = 500;

const choicesOf = (parser: unknown): readonly string[] => (parser as { readonly choices?: readonly string[] } | undefined)?.choices ?? [];

const words = (list: readonly string[]): Suggestion[] => list.map((word) => ({ word, meaning: '' }));

const namesOf = async (context: CommandContext, what: 'volume' | 'group'): Promise<Suggestion[]> => {
  const late = new Promise<never[]>((resolve) => {
    setTimeout(() => resolve([]), NAMES_DEADLINE_MS).unref();
  });
  const asked = (async () => {
    if (what === 'group') return words((await context.call('group.list', {})).map(({ name }) => name));
    const volumes = await context.call('volume.list', {});
    return volumes.map(({ name, attribute }) => ({ word: name, meaning: attribute }));
  })().catch(() => []);
  return Promise.race([asked, late]);
};

const valuesFor = async (context: CommandContext, name: string, parser: unknown): Promise<Suggestion[]> => {
  if (/VOLUME|PRIMARY|SECONDARY/.test(name)) return namesOf(context, 'volume');
  if (/GROUP/.test(name)) return namesOf(context, 'group');
  return words(choicesOf(parser));
};

const optionsOf = (command: Command): readonly Option[] =>
  command.parent === null ? command.options : [...command.options, ...optionsOf(command.parent)];

/** @param typed the words after `twinvol`; the last one is the one being typed, and may be empty */
export const suggest = async (program: Command, context: CommandContext, typed: readonly string[]): Promise<Suggestion[]> => {
  const current = typed.at(-1) ?? '';
  let command = program;
  let position = 0;
  let pending: Option | null = null;
  for (const word of typed.slice(0, -1)) {
    if (pending !== null) {
      pending = null;
      continue;
    }
    const option = optionsOf(command).find(({ long, short }) => word === long || word === short);
    const sub = command.commands.find((candidate) => candidate.name() === word);
    if (option !== undefined) pending = option.required ? option : null;
    else if (sub !== undefined && position === 0) command = sub;
    else if (!word.startsWith('-')) position += 1;
  }
  const candidates = await candidatesFor(context, command, pending, position, current);
  return candidates.filter(({ word }) => word.startsWith(current));
};

const candidatesFor = (
  context: CommandContext,
  command: Command,
  pending: Option | null,
  position: number,
  current: string,
): Promise<Suggestion[]> => {
  if (pending !== null) return valuesFor(context, pending.flags, pending.parseArg);
  if (current.startsWith('-')) {
    const options = optionsOf(command).filter(({ hidden }) => !hidden);
    return Promise.resolve([
      ...options.map((option) => ({ word: option.long ?? '', meaning: option.description })),
      { word: '--help', meaning: 'help' },
    ]);
  }
  if (command.commands.length > 0) {
    return Promise.resolve(command.commands.map((sub) => ({ word: sub.name(), meaning: sub.description() })));
  }
  const argument: Argument | undefined = command.registeredArguments[position];
  return argument === undefined ? Promise.resolve([]) : valuesFor(context, argument.name(), argument.parseArg);
};

/** The scripts that a shell reads; each asks `twinvol __complete SHELL -- WORDS`. */
export const COMPLETION_SCRIPTS: Readonly<Record<'bash' | 'zsh' | 'fish', string>> = {
  bash: `# twinvol completion for bash: source <(twinvol completion bash)
_twinvol() {
  local IFS=$'\\n'
  COMPREPLY=($(twinvol __complete bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _twinvol twinvol`,
  zsh: `#compdef twinvol
# twinvol completion for zsh: source <(twinvol completion zsh)
_twinvol() {
  local -a lines
  lines=("\${(@f)$(twinvol __complete zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${lines[1]}" ]]; then _describe twinvol lines; else _files; fi
}
compdef _twinvol twinvol`,
  fish: `# twinvol completion for fish: twinvol completion fish | source
function __twinvol_complete
  set -l words (commandline -opc) (commandline -ct)
  twinvol __complete fish -- $words[2..-1] 2>/dev/null
end
complete -c twinvol -a '(__twinvol_complete)'`,
};

/** One suggestion, as the shell takes it. */
export const suggestionLine = (shell: string, { word, meaning }: Suggestion): string => {
  if (shell === 'fish' && meaning !== '') return `${word}\t${meaning}`;
  if (shell === 'zsh') return meaning === '' ? word.replaceAll(':', '\\:') : `${word.replaceAll(':', '\\:')}:${meaning}`;
  return word;
};
