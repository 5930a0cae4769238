/**
 * The page of the pair matrix (`PAIRS.md`), written from the data that the machine decides by. A test compares the
 * committed page with this text, so that neither can go stale.
 */
import { COMMAND_MATRIX, HAPPENING_MATRIX, PAIR_COMMANDS, PAIR_HAPPENINGS } from './pair-matrix.ts';
import type { Cell, HappeningCell } from './pair-matrix.ts';
import { PAIR_STATES } from './rows.ts';

const COMMAND_MEANS: Readonly<Record<(typeof PAIR_COMMANDS)[number], string>> = {
  create: 'form the pair and copy everything',
  split: 'stop mirroring and keep the image of this moment on the secondary',
  resync: 'mirror again, primary to secondary, copying only what differs',
  restore: 'go back to the image of the split, secondary to primary, copying only what differs',
  release: 'take the pair apart',
  set: 'change pace or fence level',
  verify: 'compare the legs',
};

const HAPPENING_MEANS: Readonly<Record<(typeof PAIR_HAPPENINGS)[number], string>> = {
  'copy-done': 'no dirty region is left, and the target is durable',
  'copy-failed': 'the copy cannot read its source or write its target',
  'primary-failed': 'a host write or flush failed on the primary',
  'secondary-failed': 'a host write or flush failed on the secondary',
  'link-lost': 'the other site does not answer',
  differs: 'a verify with repair found differing regions',
  undone: 'a command could not be recorded and is taken back',
  recovered: 'the engine starts with the pair in its tables',
};

const commandCell = (cell: Cell): string => {
  if (!cell.allowed) return `refused ${cell.code}: ${cell.why}`;
  const target = cell.to === 'same' ? 'same state' : `-> **${cell.to}**`;
  const text = `${target}; ${cell.note}`;
  if (cell.only === undefined || cell.unless === undefined) return text;
  const when = cell.only === 'restore-interrupted' ? 'after an interrupted restore' : 'unless a restore was interrupted';
  return `${when}: ${text}. Else refused ${cell.unless.code}: ${cell.unless.why}`;
};

const happeningCell = (cell: HappeningCell): string => {
  switch (cell.kind) {
    case 'moves':
      return `-> **${cell.to}**; ${cell.note}`;
    case 'stays':
      return `same state; ${cell.note}`;
    case 'late':
      return 'too late: logged';
  }
};

const table = <Name extends string>(
  head: string,
  names: readonly Name[],
  means: (name: Name) => string,
  cell: (name: Name, state: (typeof PAIR_STATES)[number]) => string,
): string => {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const rows = names.map((name) => line([`\`${name}\`: ${means(name)}`, ...PAIR_STATES.map((state) => cell(name, state))]));
  return [line([head, ...PAIR_STATES]), line([head, ...PAIR_STATES].map(() => '---')), ...rows].join('\n');
};

/** The whole page, Markdown. */
export const pairsPage = (): string => `# Pairs: commands and states

Written by \`src/core/pair-page.ts\` from \`src/core/pair-matrix.ts\`; a test fails when this page is stale.
To write it anew: \`npx vitest run test/unit/core/pair-machine.test.ts -u\`.

## Commands

Every refused cell has a stable error code; its message names the pair, its state and the states in which the command
is allowed. Exit status 10.

${table(
  'command',
  PAIR_COMMANDS,
  (name) => COMMAND_MEANS[name],
  (name, state) => commandCell(COMMAND_MATRIX[name][state]),
)}

## Happenings

What the engine meets without a command. A pair that is moved carries the reason in its row (\`pair status\`) and in an event.

${table(
  'happening',
  PAIR_HAPPENINGS,
  (name) => HAPPENING_MEANS[name],
  (name, state) => happeningCell(HAPPENING_MATRIX[name][state]),
)}
`;
