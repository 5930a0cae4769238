/**
 * Tables as storage tools print them: a line of headings, columns aligned by blanks, numbers to the right, no boxes.
 * Cells come from the engine and may hold names that other machines gave: control characters never reach the terminal.
 */
import { printable } from '../core/inquiry-text.ts';
import type { Colour, Paint } from './style.ts';

export type Column<Row> = {
  readonly heading: string;
  readonly align?: 'left' | 'right';
  readonly text: (row: Row) => string;
  readonly colour?: (row: Row) => Colour | null;
  /** Left out when every cell is empty. */
  readonly isOptional?: boolean;
};

/** Characters that a terminal shows; names are ASCII, reasons may not be: code points are near enough for a table. */
const widthOf = (text: string): number => [...text].length;

const pad = (text: string, width: number, align: 'left' | 'right' | undefined): string => {
  const blanks = ' '.repeat(Math.max(0, width - widthOf(text)));
  return align === 'right' ? blanks + text : text + blanks;
};

/** The lines of a table; `empty` is said instead when there is no row. */
export const textTable = <Row>(rows: readonly Row[], columns: readonly Column<Row>[], paint: Paint, empty: string): string => {
  if (rows.length === 0) return empty;
  const filled = columns.map((column) => ({ column, cells: rows.map((row) => printable(column.text(row))) }));
  const shown = filled.filter(({ column, cells }) => column.isOptional !== true || cells.some((cell) => cell !== ''));
  const widths = shown.map(({ column, cells }) => cells.reduce((widest, cell) => Math.max(widest, widthOf(cell)), column.heading.length));
  const last = shown.length - 1;
  const lineOf = (cellOf: (index: number) => { text: string; colour: Colour | null }): string => {
    const parts = shown.map(({ column }, index) => {
      const { text, colour } = cellOf(index);
      const isLast = index === last && column.align !== 'right';
      const padded = isLast ? text : pad(text, widths[index] ?? 0, column.align);
      return colour === null ? padded : paint(colour, padded);
    });
    return parts.join('  ').trimEnd();
  };
  const heading = lineOf((index) => ({ text: shown[index]?.column.heading ?? '', colour: 'bold' }));
  const body = rows.map((row, rowIndex) =>
    lineOf((index) => ({ text: shown[index]?.cells[rowIndex] || '-', colour: shown[index]?.column.colour?.(row) ?? null })),
  );
  return [heading, ...body].join('\n');
};

/** Names and values, one a line, the values in one column. */
export const textFields = (fields: ReadonlyArray<readonly [name: string, value: string]>, paint: Paint): string => {
  const width = fields.reduce((widest, [name]) => Math.max(widest, name.length), 0);
  return fields.map(([name, value]) => `${paint('bold', name.padEnd(width))}  ${printable(value)}`).join('\n');
};
