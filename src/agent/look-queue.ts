/**
 * Looks at the host one at a time. A question is answered by a look that began after it was asked, never by one that was
 * under way: what that one had already read may have changed. All questions that wait share the next look.
 */
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';

type Look = (targets: readonly InquiryTarget[]) => Promise<readonly VolumeFacts[]>;
type Waiting = {
  readonly targets: readonly InquiryTarget[];
  readonly resolve: (facts: readonly VolumeFacts[]) => void;
  readonly reject: (error: unknown) => void;
};

export class LookQueue {
  readonly #look: Look;
  #waiting: Waiting[] = [];
  #isLooking = false;

  constructor(look: Look) {
    this.#look = look;
  }

  ask(targets: readonly InquiryTarget[]): Promise<readonly VolumeFacts[]> {
    const answer = new Promise<readonly VolumeFacts[]>((resolve, reject) => this.#waiting.push({ targets, resolve, reject }));
    void this.#work();
    return answer;
  }

  async #work(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    while (this.#waiting.length > 0) {
      const asked = this.#waiting;
      this.#waiting = [];
      try {
        const facts = await this.#look(asked.flatMap((waiting) => waiting.targets));
        let start = 0;
        for (const { targets, resolve } of asked) {
          resolve(facts.slice(start, start + targets.length));
          start += targets.length;
        }
      } catch (error) {
        for (const { reject } of asked) reject(error);
      }
    }
    this.#isLooking = false;
  }
}
