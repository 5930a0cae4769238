/** `twinvol pair status|wait|verify`: what looks at pairs. */
import type { Command } from 'commander';
import type { PairState } from '../../core/rows.ts';
import { formatSize } from '../../core/units.ts';
import type { PairRef, VerifyReport, VolumeRef } from '../../engine/api.ts';
import { durationArgument, stateArgument, volumeArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { CopyProgress, pairName } from '../copy-progress.ts';
import { formatDuration } from '../duration.ts';
import { given } from '../given.ts';
import { showingProgress, waitForState } from '../pair-waiting.ts';
import { textTable } from '../text-table.ts';
import { PAIR_COLUMNS } from './pair-columns.ts';

const refOf = (primary: VolumeRef, secondary: VolumeRef | undefined): PairRef => ({ primary, ...given({ secondary }) });

/** Differing ranges that are listed for people; `--json` has them all. */
const RANGES_SHOWN = 20;

const verifyText = (report: VerifyReport, name: string, isRepair: boolean): string => {
  const left = report.dirtyBytes === 0 || isRepair ? '' : `; ${formatSize(report.dirtyBytes)} are dirty and were not judged`;
  const took = `${formatSize(report.checkedBytes)} compared in ${formatDuration(report.durationMs)}${left}`;
  if (report.differingBytes === 0) return `${name}: equal, ${took}`;
  const shown = report.differing.slice(0, RANGES_SHOWN).map(({ offset, length }) => `  at ${offset}, ${length} bytes`);
  const more = report.differing.length > RANGES_SHOWN ? [`  and ${report.differing.length - RANGES_SHOWN} more places`] : [];
  const marked = isRepair ? 'marked dirty; the next resync copies them' : 'nothing was changed; --repair makes them equal';
  const end = report.repaired ? 'repaired: copied again from the primary' : marked;
  return [`${name}: ${formatSize(report.differingBytes)} differ, ${took}`, ...shown, ...more, end].join('\n');
};

export const registerPairWatching = (pair: Command, context: CommandContext): void => {
  addCommand(pair, 'status', 'state, copy progress and dirty bytes of the pairs of one primary, or of all', [
    'pair status',
    'pair status db --json',
  ])
    .argument('[PRIMARY]', 'name or number', volumeArgument)
    .action(async (primary: VolumeRef | undefined) => {
      const pairs = await context.call('pair.status', given({ primary }));
      const empty = primary === undefined ? 'no pairs' : `volume ${primary} is the primary of no pair`;
      context.print(pairs, () => textTable(pairs, PAIR_COLUMNS, context.paint, empty));
    });
  addCommand(pair, 'wait', 'wait until a pair is in a state; exits 1 when the time is over, 2 when it cannot come any more', [
    'pair wait db --state duplex --timeout 60s',
    'pair wait db db-copy --state simplex',
  ])
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; may be left out where the primary has one pair only', volumeArgument)
    .requiredOption('--state <STATE>', 'simplex, duplex-pending, duplex, split or suspended', stateArgument)
    .option('--timeout <TIME>', 'wait so long at most, such as 60s; left out: for ever', durationArgument)
    .action(async (primary: VolumeRef, secondary: VolumeRef | undefined, { state, timeout }: { state: PairState; timeout?: number }) => {
      const view = await waitForState(context, refOf(primary, secondary), state, timeout);
      context.print(view, () =>
        view === null
          ? secondary === undefined
            ? `volume ${primary} is simplex`
            : `volumes ${primary} and ${secondary} are no pair (simplex)`
          : `pair ${pairName(view)} is ${view.state}`,
      );
    });
  addCommand(pair, 'verify', 'compare the two volumes of a pair under load; exits 3 when they differ and were not repaired', [
    'pair verify db',
    'pair verify db db-copy --repair',
  ])
    .argument('<PRIMARY>', 'name or number', volumeArgument)
    .argument('[SECONDARY]', 'name or number; may be left out where the primary has one pair only', volumeArgument)
    .option('--repair', 'mark what differs dirty, and resync it')
    .action(async (primary: VolumeRef, secondary: VolumeRef | undefined, { repair }: { repair?: boolean }) => {
      const ref = refOf(primary, secondary);
      const verifying = context.call('pair.verify', { ...ref, ...given({ repair }) }, { signal: context.io.interrupted });
      const report = await showingProgress(context, ref, new CopyProgress(context, 'verify'), verifying);
      context.print(report, () =>
        verifyText(report, secondary === undefined ? `pair of ${primary}` : `pair ${primary} -> ${secondary}`, repair === true),
      );
      if (report.differingBytes > 0 && !report.repaired) context.exitStatus = 3;
    });
};
