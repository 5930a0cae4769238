/**
 * What a part of the benchmark hands over, as plain values: they go into the results' file as they are, and the report
 * and the plots are made from them at any later time.
 */

export type Table = {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: ReadonlyArray<readonly string[]>;
};

export type Plot = {
  /** Name of the SVG file, without its folder. */
  readonly file: string;
  readonly title: string;
  /** What the values are, such as `thousand IOPS`. */
  readonly unit: string;
} & (
  | {
      readonly kind: 'bars';
      readonly groups: readonly string[];
      /** A value for each group; null: not measured. */
      readonly series: ReadonlyArray<{ readonly name: string; readonly values: ReadonlyArray<number | null> }>;
    }
  | {
      readonly kind: 'lines';
      readonly xTitle: string;
      readonly isLogarithmic: boolean;
      readonly series: ReadonlyArray<{ readonly name: string; readonly points: ReadonlyArray<readonly [x: number, y: number]> }>;
    }
);

/** A target, and whether it was reached. */
export type Bar = { readonly what: string; readonly target: string; readonly measured: string; readonly isMet: boolean };

export type Section = {
  readonly id: string;
  readonly title: string;
  /** Paragraphs: what was done. */
  readonly text: readonly string[];
  readonly bars: readonly Bar[];
  readonly tables: readonly Table[];
  readonly plots: readonly Plot[];
  /** Every single measurement, for whoever wants to look closer. */
  readonly raw: unknown;
};
