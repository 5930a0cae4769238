/**
 * The comparison of a declaration in progress: what differs, what cannot be met, and how many requirements are met
 * already. A requirement that fails does not stop the comparison: the operator gets all of them at once.
 */
import type { DeclarationPlan, DeclarationPointer, DeclaredChange, Unmet } from './declaration.ts';
import { TwinvolError } from './faults.ts';

type ChangeParts = Pick<DeclaredChange, 'at' | 'kind' | 'text' | 'step'> &
  Partial<Pick<DeclaredChange, 'regions' | 'bytes' | 'overwrites'>>;

/** @throws TwinvolError `USAGE` */
export const declaredTwice = (before: DeclarationPointer): never => {
  throw new TwinvolError('USAGE', `it is declared twice (see ${before})`, { remedy: 'leave one of the two out' });
};

export class DeclarationDiff {
  readonly #changes: DeclaredChange[] = [];
  readonly #unmet: Unmet[] = [];
  #met = 0;

  get result(): DeclarationPlan {
    return { changes: this.#changes, unmet: this.#unmet, met: this.#met };
  }

  /** One requirement, which may consist of several parts; it is met when nothing differs. */
  item(work: () => void): void {
    const before = this.differences;
    work();
    if (this.differences === before) this.#met += 1;
  }

  /** Changes and unmet parts so far. */
  get differences(): number {
    return this.#changes.length + this.#unmet.length;
  }

  /** Finds out what a part takes. @returns false if it cannot be met */
  part(at: DeclarationPointer, requirement: string, work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (!(error instanceof TwinvolError) || error.code === 'INTERNAL') throw error;
      const reason = error.message.replace(/; nothing was changed$/, '');
      this.#unmet.push({ at, requirement, code: error.code, reason, remedy: error.remedy });
      return false;
    }
  }

  change({ regions = 0, bytes = 0, overwrites = null, ...rest }: ChangeParts): void {
    this.#changes.push({ ...rest, regions, bytes, overwrites });
  }
}
