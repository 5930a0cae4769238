/** Two exports side by side, for people. Every remark says whose it is. */
import type { ComparedRuns, Comparison } from '../../bench/comparison.ts';
import { formatSize } from '../../core/units.ts';
import type { Paint } from '../style.ts';
import { type Column, textFields, textTable } from '../text-table.ts';
import { formatLatency, formatMegabytes, remarksOf, workloadFields } from './bench-report.ts';

type ComparedRow = { readonly label: string; readonly cells: readonly string[] };

const NONE = '-';
const orNone = (value: number | null, format: (value: number) => string): string => (value === null ? NONE : format(value));

const comparedRow = (label: string, { iops, bytesPerSecond, p50Ms, p99Ms, p999Ms, errors }: ComparedRuns): ComparedRow => ({
  label,
  cells: [
    orNone(iops, (value) => String(Math.round(value))),
    orNone(bytesPerSecond, formatMegabytes),
    ...[p50Ms, p99Ms, p999Ms].map((ms) => orNone(ms, formatLatency)),
    String(errors),
  ],
});

const COLUMNS: readonly Column<ComparedRow>[] = [
  { heading: '', text: ({ label }) => label },
  ...['IOPS', 'MB/S', 'P50', 'P99', 'P99.9', 'ERRORS'].map(
    (heading, index): Column<ComparedRow> => ({ heading, align: 'right', text: ({ cells }) => cells[index] ?? '' }),
  ),
];

const rowsOf = ({ first, second, ratio }: Comparison): ComparedRow[] => {
  const rows = [comparedRow('A', first), comparedRow('B', second)];
  if (ratio === null) return rows;
  const { iops, bytesPerSecond, p50, p99, p999 } = ratio;
  const times = [iops, bytesPerSecond, p50, p99, p999].map((value) => orNone(value, (one) => `${one.toFixed(2)}x`));
  return [...rows, { label: 'A / B', cells: [...times, ''] }];
};

const headOf = ({ first, second }: Comparison): Array<readonly [string, string]> => {
  const fields: Array<readonly [string, string]> = [
    ['A', first.uri],
    ['B', second.uri],
  ];
  const one = first.runs[0] ?? second.runs[0];
  if (one !== undefined) {
    const { offset, length, seed, runtimeMs, warmupMs } = one.placement;
    const sizes =
      first.sizeBytes === second.sizeBytes
        ? `of ${formatSize(first.sizeBytes)}`
        : `of ${formatSize(first.sizeBytes)} (A) and ${formatSize(second.sizeBytes)} (B)`;
    fields.push(...workloadFields(one.workload));
    fields.push(['range', `${formatSize(offset)} to ${formatSize(offset + length)} ${sizes}, seed ${seed}`]);
    fields.push(['each', `${(runtimeMs / 1000).toFixed(1)} s after ${(warmupMs / 1000).toFixed(1)} s of warm-up`]);
  }
  const [ofFirst, ofSecond] = [first.completeRuns, second.completeRuns];
  const counts = ofFirst === ofSecond ? `${ofFirst} of either` : `${ofFirst} of A, ${ofSecond} of B`;
  return [...fields, ['runs', `${counts}, in turns; medians`]];
};

const notesOf = ({ first, second, stopped, interrupted, isCommonPart }: Comparison): string[] => {
  const notes: string[] = [];
  if (isCommonPart) notes.push('A and B differ in size: both ran on the part that both have');
  if (stopped !== null) notes.push(`${stopped.target} ended the comparison in round ${stopped.round}: ${stopped.reason}`);
  if (interrupted) notes.push('ended early by the user; a run that was cut short is not in the medians');
  for (const [name, { runs, dataShare }] of [['A', first] as const, ['B', second] as const]) {
    const remarks = runs.flatMap((run) => remarksOf({ ...run, interrupted: false }, dataShare));
    for (const remark of new Set(remarks)) notes.push(`${name}: ${remark}`);
  }
  return notes;
};

export const comparisonText = (comparison: Comparison, paint: Paint): string => {
  const notes = notesOf(comparison).map((note) => `${paint('yellow', 'note:')} ${note}`);
  return [
    textFields(headOf(comparison), paint),
    textTable(rowsOf(comparison), COLUMNS, paint, ''),
    ...(notes.length > 0 ? [notes.join('\n')] : []),
  ].join('\n\n');
};
