/** Pairs as a table: what an operator looks at first. */
import type { PairedState } from '../../core/rows.ts';
import { formatSize } from '../../core/units.ts';
import type { PairView, ScheduledSplitView } from '../../core/views.ts';
import { formatDuration, formatMoment } from '../duration.ts';
import type { Colour } from '../style.ts';
import type { Column } from '../text-table.ts';

const STATE_COLOURS: Readonly<Record<PairedState, Colour>> = {
  'duplex-pending': 'cyan',
  duplex: 'green',
  split: 'yellow',
  suspended: 'red',
};

/** When the pair, or its group, is to be split; or that it was not. */
const scheduleText = (scheduled: ScheduledSplitView | null): string => {
  if (scheduled === null) return '';
  const moment = `${formatMoment(scheduled.atMs)}${scheduled.group === null ? '' : ' (group)'}`;
  return scheduled.failure === null ? moment : `${moment} not split: ${scheduled.failure}`;
};

export const PAIR_COLUMNS: readonly Column<PairView>[] = [
  { heading: 'PRIMARY', text: ({ primary }) => primary.name },
  { heading: 'SECONDARY', text: ({ secondary }) => secondary.name },
  {
    heading: 'STATE',
    text: ({ state, copy }) => (state === 'duplex-pending' && copy !== null && copy !== 'initial' ? `${state} (${copy})` : state),
    colour: ({ state }) => STATE_COLOURS[state],
  },
  { heading: 'COPIED', align: 'right', text: ({ copyPointer }) => `${copyPointer.percent.toFixed(1)}%` },
  { heading: 'DIRTY', align: 'right', text: ({ dirtyBytes }) => formatSize(dirtyBytes.union) },
  {
    heading: 'RATE',
    align: 'right',
    isOptional: true,
    text: ({ rateBytesPerSecond: rate }) => (rate === null ? '' : `${formatSize(Math.round(rate))}/s`),
  },
  { heading: 'ETA', align: 'right', isOptional: true, text: ({ etaMs }) => (etaMs === null ? '' : formatDuration(etaMs)) },
  { heading: 'PACE', align: 'right', text: ({ pace }) => String(pace) },
  { heading: 'FENCE', text: ({ fence }) => fence },
  { heading: 'GROUP', isOptional: true, text: ({ group }) => group ?? '' },
  { heading: 'SPLIT AT', isOptional: true, text: ({ scheduledSplit }) => scheduleText(scheduledSplit) },
  { heading: 'REASON', isOptional: true, text: ({ reason }) => reason ?? '' },
];
