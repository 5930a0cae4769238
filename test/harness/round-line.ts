/** One line for each round of a crash trial. */
import { MiB } from '../../src/core/units.ts';
import type { TrialReport } from './crash-trial.ts';

const mebibytes = (bytes: number): number => Math.round(bytes / MiB);

/** @param crash what it is called: `kill`, `cut` */
export const roundLine = (crash: string, report: TrialReport): string =>
  [
    `${crash} ${report.crashes}: ${report.commands} commands answered`,
    `${report.cutOff} cut off`,
    `${report.writes} writes`,
    `${report.legsCompared} pairs of legs equal`,
    `${mebibytes(report.recoveredBytes)} MiB copied again of ${mebibytes(report.boundBytes)} stated`,
    `${Math.round(report.tookMs / 1000)} s`,
  ].join(', ');
