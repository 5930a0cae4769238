/**
 * Command lines in the manner of the paircreate family: flags of one dash and several letters (`-vl`, `-fc`, `-restore`),
 * values as words of their own. One table says each command's flags: parsing, help and the page come from it.
 */
import { basename } from 'node:path';
import { nearest } from '../core/nearest.ts';
import { TwinvolError } from '../core/faults.ts';

export type AliasFlag = {
  readonly flag: string;
  /** Name of the value; null for a flag without one. `...`: as many as follow. */
  readonly value: string | null;
  /** What it does here; `same` effects are told in our own terms. */
  readonly means: string;
};

export type AliasSpec = {
  readonly name: string;
  /** Our own command for the same. */
  readonly ours: string;
  readonly flags: readonly AliasFlag[];
  /** What differs from the family, in sentences. */
  readonly differs: readonly string[];
  readonly examples: readonly string[];
};

export type AliasWords = { readonly flags: ReadonlyMap<string, readonly string[]>; readonly operands: readonly string[] };

const GROUP: AliasFlag = { flag: '-g', value: 'GROUP', means: 'all pairs of a consistency group' };
const PAIR: AliasFlag = { flag: '-d', value: 'PRIMARY[:SECONDARY]', means: 'one pair; the operands PRIMARY [SECONDARY] say the same' };
const LOCAL: AliasFlag = { flag: '-l', value: null, means: 'nothing: there is one device' };
const PACE: AliasFlag = { flag: '-c', value: 'PACE', means: 'copy pace, 1 to 15' };
const OVERRIDE: AliasFlag = {
  flag: '--override',
  value: 'FINDING',
  means: 'go on in spite of a finding of the mount inquiry (repeatable)',
};
const REASON: AliasFlag = { flag: '--reason', value: 'TEXT', means: 'why; needed with --override' };
const SILENT: AliasFlag = { flag: '-nomsg', value: null, means: 'prints nothing but errors; the exit status says it' };
const STATES = 'smpl, copy, pair, psus, psue';

export const ALIAS_TABLE: readonly AliasSpec[] = [
  {
    name: 'paircreate',
    ours: 'pair create',
    flags: [
      { flag: '-g', value: 'GROUP', means: 'puts the new pair into this consistency group' },
      PAIR,
      { flag: '-vl', value: null, means: 'the primary is here; always so' },
      PACE,
      { flag: '-f', value: 'FENCE', means: 'never or data' },
      { flag: '-split', value: null, means: 'waits for the end of the copy, then splits' },
      OVERRIDE,
      REASON,
    ],
    differs: [
      '-d names volumes, not a line of a configuration file.',
      'Without a secondary the device chooses one.',
      '-vr, -nocopy and -f async are refused.',
    ],
    examples: ['paircreate -d db:db-copy -vl -c 8', 'paircreate -g nightly -d db -f never'],
  },
  {
    name: 'pairsplit',
    ours: 'pair split, pair release',
    flags: [
      GROUP,
      PAIR,
      { flag: '-S', value: null, means: 'releases the pairs (simplex)' },
      { flag: '-rw', value: null, means: 'the secondary may be written; always so' },
      LOCAL,
      OVERRIDE,
      REASON,
    ],
    differs: [
      '-g splits all pairs at one point in time, or none.',
      '-r (read-only secondary) and -E are refused.',
      'While the copy runs it is refused, not delayed.',
    ],
    examples: ['pairsplit -g nightly', 'pairsplit -d db:db-copy -S'],
  },
  {
    name: 'pairresync',
    ours: 'pair resync, pair restore',
    flags: [GROUP, PAIR, PACE, { flag: '-restore', value: null, means: 'from secondary to primary' }, LOCAL, OVERRIDE, REASON],
    differs: [
      'Hosts are asked first whether they have the volume mounted: exit 11 or 12 instead of an overwritten volume.',
      '-g without -restore asks once for all pairs, and starts all of them or none.',
      '-swaps and -swapp are refused.',
    ],
    examples: ['pairresync -g nightly', 'pairresync -d db -restore'],
  },
  {
    name: 'pairdisplay',
    ours: 'pair status',
    flags: [
      GROUP,
      PAIR,
      { flag: '-fc', value: null, means: 'with the copied share in percent' },
      { flag: '-CLI', value: null, means: 'columns for scripts; always so' },
      LOCAL,
    ],
    differs: [
      'One line for each volume of a pair; volumes by name and number instead of port, target and LU.',
      'Without -g and -d: all pairs.',
    ],
    examples: ['pairdisplay -g nightly -fc', 'pairdisplay -d db'],
  },
  {
    name: 'pairvolchk',
    ours: 'pair status',
    flags: [
      GROUP,
      { flag: '-d', value: 'VOLUME', means: 'one volume, primary or secondary' },
      { flag: '-ss', value: null, means: 'exit status by state' },
      SILENT,
      LOCAL,
    ],
    differs: [
      'Exit status without -ss: 1 simplex, 2 primary, 3 secondary.',
      'With -ss: 11 simplex; primary 22 copy, 23 pair, 24 split, 25 suspended; secondary 32, 33, 34, 35.',
      'Of several pairs the one farthest from pair decides: suspended, copy, split, pair.',
    ],
    examples: ['pairvolchk -d db -ss'],
  },
  {
    name: 'pairevtwait',
    ours: 'pair wait',
    flags: [
      GROUP,
      PAIR,
      { flag: '-s', value: 'STATE', means: `${STATES}; one of them` },
      { flag: '-t', value: 'SECONDS...', means: 'waits so long at most; an interval after it is ignored' },
      { flag: '-nowait', value: null, means: 'does not wait: exit status 1 simplex, 2 copy, 3 pair, 4 split, 5 suspended' },
      SILENT,
      LOCAL,
    ],
    differs: [
      'Exit status 233 when the time is over, and 232 when the pair is suspended, or released, instead; as there.',
      'With -nowait: 1 simplex, 2 copy, 3 pair, 4 split, 5 suspended.',
    ],
    examples: ['pairevtwait -g nightly -s pair -t 300', 'pairevtwait -d db -nowait'],
  },
];

/** Flags of the family that stand for something that this device does not do; refused by name, never ignored. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ['-vr', 'the primary is always on the device that is asked'],
  ['-r', 'the secondary of a split pair can be written; there is no read-only split'],
  ['-E', 'a pair is suspended by an error, not by a command'],
  ['-P', 'a pair is suspended by an error, not by a command'],
  ['-nocopy', 'legs that nobody has compared are not called equal; holes are skipped, so a copy of an empty volume takes no time'],
  ['-swaps', 'a primary and its secondary do not change places; -restore copies the other way'],
  ['-swapp', 'a primary and its secondary do not change places; -restore copies the other way'],
]);

/** The alias that a program is, by the name under which it was called (a link to `twinvol`); null: none. */
export const aliasCalled = (path: string): string | null => {
  const called = basename(path);
  return ALIAS_TABLE.some(({ name }) => name === called) ? called : null;
};

/** @throws TwinvolError `USAGE`, or `NOT_SUPPORTED` for a flag of the family that this device does not have */
export const parseAliasWords = (spec: AliasSpec, words: readonly string[]): AliasWords => {
  const flags = new Map<string, readonly string[]>();
  const operands: string[] = [];
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    const known = spec.flags.find(({ flag }) => flag === word);
    if (known === undefined) {
      if (word.startsWith('-')) throw unknownFlag(spec, word);
      operands.push(word);
      continue;
    }
    const values: string[] = [];
    const isMany = known.value?.endsWith('...') === true;
    while (known.value !== null && (isMany || values.length === 0) && words[at + 1] !== undefined && !words[at + 1]?.startsWith('-')) {
      at += 1;
      values.push(words[at] ?? '');
    }
    if (known.value !== null && values.length === 0)
      throw new TwinvolError('USAGE', `${word} needs a value: ${known.value}`, { remedy: `see twinvol ${spec.name} --help` });
    flags.set(word, [...(flags.get(word) ?? []), ...values]);
  }
  return { flags, operands };
};

const unknownFlag = (spec: AliasSpec, word: string): TwinvolError => {
  const refused = REFUSED.get(word);
  if (refused !== undefined)
    return new TwinvolError('NOT_SUPPORTED', `${spec.name} ${word}: ${refused}`, { remedy: `see twinvol ${spec.name} --help` });
  const near = nearest(
    word,
    spec.flags.map(({ flag }) => flag),
  );
  return new TwinvolError('USAGE', `${spec.name} has no flag ${word}`, {
    remedy: near === null ? `see twinvol ${spec.name} --help` : `did you mean ${near}?`,
  });
};

/** The help of an alias. */
export const aliasHelp = (spec: AliasSpec): string => {
  const terms = spec.flags.map(({ flag, value }) => (value === null ? flag : `${flag} ${value}`));
  const width = Math.max(...terms.map((term) => term.length));
  return [
    `Usage: twinvol ${spec.name} [FLAGS] [PRIMARY [SECONDARY]]`,
    '',
    `The same as: twinvol ${spec.ours}`,
    '',
    ...spec.flags.map(({ means }, index) => `  ${(terms[index] ?? '').padEnd(width)}  ${means}`),
    '',
    'What differs:',
    ...spec.differs.map((text) => `  ${text}`),
    '  Errors have the codes and exit statuses of twinvol; --store and --json are taken as everywhere.',
    '',
    'Examples:',
    ...spec.examples.map((example) => `  $ twinvol ${example}`),
    '',
  ].join('\n');
};
