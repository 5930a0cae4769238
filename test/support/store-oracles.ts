/**
 * Slow, obvious models beside the clever structures of the store: one entry for each region, scanned from the start.
 */
import type { RegionRun } from '../../src/core/rows.ts';

/** The unassigned-region table as a flag for each region. */
export class SlowRegions {
  readonly #free = new Map<number, boolean[]>();

  addPv(pv: number, regions: number): void {
    this.#free.set(
      pv,
      Array.from({ length: regions }, () => true),
    );
  }

  /** Free runs in the order of their numbers. */
  runs(): RegionRun[] {
    const runs: RegionRun[] = [];
    for (const pv of [...this.#free.keys()].sort((a, b) => a - b)) {
      const flags = this.#free.get(pv) as boolean[];
      for (let start = 0; start < flags.length; start += 1) {
        if (!flags[start]) continue;
        let count = 1;
        while (flags[start + count]) count += 1;
        runs.push({ pv, start, count });
        start += count;
      }
    }
    return runs;
  }

  set(runs: readonly RegionRun[], isFree: boolean): void {
    for (const { pv, start, count } of runs) {
      for (let region = start; region < start + count; region += 1) (this.#free.get(pv) as boolean[])[region] = isFree;
    }
  }

  areAll(runs: readonly RegionRun[], isFree: boolean): boolean {
    return runs.every(({ pv, start, count }) => {
      const flags = this.#free.get(pv) ?? [];
      return start + count <= flags.length && flags.slice(start, start + count).every((flag) => flag === isFree);
    });
  }

  /** The choice by its definition: best fit if there is one, else the longest runs first and best fit for the rest. */
  plan(count: number, after?: RegionRun): RegionRun[] | null {
    let left = this.runs();
    if (count > left.reduce((sum, run) => sum + run.count, 0)) return null;
    const chosen: RegionRun[] = [];
    let wanted = count;
    const use = (run: RegionRun): void => {
      left = left.filter((other) => other !== run);
      chosen.push({ ...run, count: Math.min(run.count, wanted) });
      wanted -= Math.min(run.count, wanted);
    };
    const behind = left.find((run) => after !== undefined && run.pv === after.pv && run.start === after.start + after.count);
    if (behind !== undefined && wanted > 0) use(behind);
    const extension = chosen.length;
    while (wanted > 0) {
      const byLength = [...left].sort((a, b) => a.count - b.count || a.pv - b.pv || a.start - b.start);
      const fitting = byLength.find((run) => run.count >= wanted);
      const longest = left.reduce((best, run) => (run.count > best.count ? run : best));
      use(fitting ?? longest);
    }
    const rest = chosen.slice(extension).sort((a, b) => a.pv - b.pv || a.start - b.start);
    return [...chosen.slice(0, extension), ...rest];
  }
}
