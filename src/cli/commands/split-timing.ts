/** `--at TIME` and `--cancel`: splits that have a moment of their own. */
import type { Command } from 'commander';
import { TwinvolError } from '../../core/faults.ts';
import type { CommandContext } from '../command-context.ts';
import { formatMoment, parseMoment } from '../duration.ts';

export type SplitTiming = { readonly at?: string; readonly cancel?: boolean };

export const withTiming = (command: Command): Command => {
  return command
    .option('--at <TIME>', 'not now but then: 02:00, 2025-03-01 02:00, 2025-03-01T02:00:00Z or +10m; survives a restart')
    .option('--cancel', 'take a scheduled split back');
};

/** The moment as the engine takes it; nothing: now. @throws TwinvolError `USAGE` */
export const momentOf = (
  context: CommandContext,
  { at, cancel, wait }: SplitTiming & { readonly wait?: boolean },
): { atMs?: number | null } => {
  if (wait === true && (at !== undefined || cancel === true)) {
    throw new TwinvolError(
      'USAGE',
      `--wait splits as soon as all is duplex, ${at === undefined ? '--cancel not at all' : '--at at a moment of its own'}`,
      {
        remedy: 'give one of them',
      },
    );
  }
  if (cancel === true && at !== undefined)
    throw new TwinvolError('USAGE', '--at and --cancel contradict each other', { remedy: 'give one of them' });
  if (cancel === true) return { atMs: null };
  return at === undefined ? {} : { atMs: parseMoment(at, context.io.nowMs()) };
};

/** What was done, for people. */
export const splitWord = ({ atMs }: { readonly atMs?: number | null }, now: string): string => {
  if (atMs === undefined) return now;
  return atMs === null ? 'will not be split any more' : `will be split at ${formatMoment(atMs)}`;
};
