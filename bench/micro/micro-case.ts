/** What a micro-benchmark case is. */
export type MicroCase = {
  /** Stays the same over the years: results of two versions of the project are matched by it. */
  readonly name: string;
  /** Counts up when what is measured changes; results of different versions are not compared. */
  readonly version: number;
  /** What one run of the function does, so often. */
  readonly operations: number;
  /** Makes what the case works on, and gives the function to measure. */
  readonly prepare: () => (() => void) | (() => Promise<void>) | Promise<(() => void) | (() => Promise<void>)>;
};
