/** What one run measured, for people: tables, and the remarks without which the numbers would mislead. */
import { describeMismatch } from '../../bench/block-ledger.ts';
import type { OperationResult, RunResult } from '../../bench/measurement.ts';
import { describeStream, type Workload } from '../../bench/workload.ts';
import { formatSize } from '../../core/units.ts';
import type { Paint } from '../style.ts';
import type { Column } from '../text-table.ts';
import { textFields, textTable } from '../text-table.ts';

/** From here on the client's own work is likely to be what limits. */
const CLIENT_CPU_PERCENT_HIGH = 85;
/** A share of less time than this says nothing: it is the start of the run, and the end. */
const CLIENT_CPU_MS_MIN = 100;
/** Below this share of data a reading workload reads mostly holes. */
const DATA_SHARE_LOW = 0.5;
const FAIRNESS_LOW = 0.5;

/** `212 us`, `1.24 ms`, `2.10 s`. */
export const formatLatency = (ms: number): string => {
  if (ms < 1) return `${Math.round(ms * 1000)} us`;
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 2 : 1)} ms` : `${(ms / 1000).toFixed(2)} s`;
};

/** Millions of bytes. */
export const formatMegabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);

const requests = (count: number): string => `${count} ${count === 1 ? 'request' : 'requests'}`;

type Row = OperationResult & { readonly label: string; readonly connections?: number; readonly fairness?: number };

const COLUMNS: readonly Column<Row>[] = [
  { heading: '', text: ({ label }) => label },
  { heading: 'IOPS', align: 'right', text: ({ iops }) => String(Math.round(iops)) },
  { heading: 'MB/S', align: 'right', text: ({ bytesPerSecond }) => formatMegabytes(bytesPerSecond) },
  { heading: 'MEAN', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.mean) },
  { heading: 'P50', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.p50) },
  { heading: 'P90', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.p90) },
  { heading: 'P99', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.p99) },
  { heading: 'P99.9', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.p999) },
  { heading: 'MAX', align: 'right', text: ({ latencyMs }) => formatLatency(latencyMs.max) },
  { heading: 'ERRORS', align: 'right', text: ({ errors }) => String(errors) },
  {
    heading: 'SLOWEST',
    isOptional: true,
    align: 'right',
    text: ({ fairness }) => (fairness === undefined ? '' : `${Math.round(fairness * 100)} %`),
  },
];

const rowsOf = (result: RunResult): Row[] => {
  const rows: Row[] = (['read', 'write', 'flush'] as const)
    .map((label) => ({ label, ...result[label] }))
    .filter(({ operations, errors }) => operations + errors > 0);
  if (rows.length !== 1) rows.push({ label: 'total', ...result.total });
  return rows;
};

const streamRows = ({ streams }: RunResult): Row[] =>
  streams.map(({ name, fairness, connections, ...rest }) => ({ label: name, ...rest, ...(connections > 1 ? { fairness } : {}) }));

const verificationLines = ({ verification }: RunResult, paint: Paint): string[] => {
  if (verification === null) return [];
  const { checkedBlocks, mismatches, details, unreadBlocks, complete } = verification;
  const given = unreadBlocks === 0 ? '' : `; ${unreadBlocks} that were written were not read back`;
  if (!complete && checkedBlocks === 0) return [`${paint('yellow', 'NOT VERIFIED:')} no block was written and read back`];
  if (mismatches === 0)
    return [
      `${complete ? paint('green', 'verified:') : paint('yellow', 'NOT VERIFIED:')} ${checkedBlocks} blocks are as they were written${given}`,
    ];
  const more = mismatches > details.length ? [`  and ${mismatches - details.length} more`] : [];
  const head = `${paint('red', 'MISMATCH:')} ${mismatches} of ${checkedBlocks} blocks are not as they were written${given}`;
  return [head, ...details.map((one) => `  ${describeMismatch(one)}`), ...more];
};

/** Without these the numbers would mislead. */
export const remarksOf = (result: RunResult, dataShare: number | null): string[] => {
  const remarks: string[] = [];
  const { clientCpuPercent, elapsedMs, interrupted, broken, unanswered, errors, requestBytesMax } = result;
  const { streams } = result.workload;
  if (broken !== null) remarks.push(`the connection was lost: ${broken}`);
  for (const [code, count] of Object.entries(errors)) remarks.push(`${requests(count)} failed with ${code}`);
  if (unanswered > 0) remarks.push(`${requests(unanswered)} had no answer yet when the run was given up`);
  if (interrupted) remarks.push('ended early by the user');
  for (const { name, blockBytes } of streams) {
    if (blockBytes <= requestBytesMax) continue;
    const largest = formatSize(requestBytesMax);
    remarks.push(`${name}: the server takes at most ${largest} in one request: each of ${formatSize(blockBytes)} was sent in parts`);
  }
  if (clientCpuPercent >= CLIENT_CPU_PERCENT_HIGH && elapsedMs >= CLIENT_CPU_MS_MIN && result.total.operations > 0) {
    remarks.push(`this client took ${Math.round(clientCpuPercent)} % of a processor: it may be what limits, not the server`);
  }
  if (dataShare !== null && dataShare < DATA_SHARE_LOW && result.read.operations > 0) {
    remarks.push(
      `only ${Math.round(dataShare * 100)} % of the range held data before the run: reads of holes are quicker than reads of data`,
    );
  }
  for (const { name, fairness, connections } of result.streams) {
    if (connections > 1 && fairness < FAIRNESS_LOW)
      remarks.push(`${name}: the slowest connection had ${Math.round(fairness * 100)} % of its fair share`);
  }
  return remarks;
};

export const workloadFields = ({ streams }: Workload): Array<readonly [string, string]> =>
  streams.map((one, index) => [index === 0 ? 'workload' : '', `${one.name}: ${describeStream(one)}`] as const);

const headFields = (result: RunResult): Array<readonly [string, string]> => {
  const { workload, placement, elapsedMs } = result;
  const end = placement.offset + placement.length;
  return [
    ...workloadFields(workload),
    ['range', `${formatSize(placement.offset)} to ${formatSize(end)} of ${formatSize(result.sizeBytes)}, seed ${placement.seed}`],
    [
      'measured',
      result.isMeasured
        ? `${(elapsedMs / 1000).toFixed(1)} s after ${(placement.warmupMs / 1000).toFixed(1)} s of warm-up`
        : 'nothing: the run ended in the warm-up',
    ],
  ];
};

export const runText = (result: RunResult, dataShare: number | null, paint: Paint): string => {
  const tables = result.isMeasured ? [textTable(rowsOf(result), COLUMNS, paint, '')] : [];
  if (result.isMeasured && result.streams.length > 1) tables.push(textTable(streamRows(result), COLUMNS, paint, ''));
  const tail = [
    ...verificationLines(result, paint),
    ...remarksOf(result, dataShare).map((remark) => `${paint('yellow', 'note:')} ${remark}`),
  ];
  return [textFields([['uri', result.uri], ...headFields(result)], paint), ...tables, ...(tail.length > 0 ? [tail.join('\n')] : [])].join(
    '\n\n',
  );
};
