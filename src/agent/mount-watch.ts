/**
 * Notices that mounts of the watched volumes change (specification 6, mount table).
 *
 * Node cannot poll `/proc/self/mountinfo` for its change event, so the watch compares, once a second by default, the text
 * of the mount table, of the swap table, and the names of the block devices; that costs some tens of microseconds. Only
 * a difference, or the passing of the longer interval, leads to a full look: openers and other mount namespaces change
 * without a trace in those texts.
 */
import type { VolumeFacts } from '../core/inquiry-round.ts';
import type { InquiryTarget } from '../core/mount-facts.ts';
import { factIdentity } from '../core/mount-facts.ts';
import type { Clock, Timer } from '../platform/clock.ts';
import type { HostTree } from '../platform/host-tree.ts';

export type WatchTimes = {
  /** Between two comparisons of the cheap texts. */
  readonly compareMs: number;
  /** Between two full looks, however quiet it is. */
  readonly lookMs: number;
};

export const WATCH_TIMES_DEFAULT: WatchTimes = { compareMs: 1000, lookMs: 15_000 };

export type WatchActions = {
  look(targets: readonly InquiryTarget[]): Promise<readonly VolumeFacts[]>;
  changed(findings: readonly VolumeFacts[]): void;
  failed(error: unknown): void;
};

const identityOf = (findings: readonly VolumeFacts[]): string => {
  return JSON.stringify(findings.map(({ volume, facts }) => [volume, facts.map(factIdentity).sort()]));
};

export class MountWatch {
  readonly #tree: HostTree;
  readonly #clock: Clock;
  readonly #times: WatchTimes;
  readonly #actions: WatchActions;
  #targets: readonly InquiryTarget[] = [];
  #timer: Timer | null = null;
  #texts = '';
  #lookedAtMs = 0;
  #reported: string | null = null;
  #isStopped = false;

  constructor(tree: HostTree, clock: Clock, times: WatchTimes, actions: WatchActions) {
    this.#tree = tree;
    this.#clock = clock;
    this.#times = times;
    this.#actions = actions;
  }

  /** What to watch from now on. The state of it is told at once. */
  watch(targets: readonly InquiryTarget[]): void {
    this.#targets = targets;
    this.#reported = null;
    this.#timer?.cancel();
    this.#timer = null;
    if (targets.length > 0) void this.#step(true);
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #cheapTexts(): string {
    const text = (path: string): string => {
      const read = this.#tree.text(path);
      return read.ok ? read.value : read.code;
    };
    const blocks = this.#tree.list('/sys/block');
    return [text('/proc/self/mountinfo'), text('/proc/swaps'), ...(blocks.ok ? blocks.value : [])].join('\n');
  }

  async #step(isForced: boolean): Promise<void> {
    const targets = this.#targets;
    const texts = this.#cheapTexts();
    const isDue = this.#clock.elapsedMs() - this.#lookedAtMs >= this.#times.lookMs;
    if (isForced || isDue || texts !== this.#texts) await this.#look(targets, texts);
    if (this.#isStopped || targets !== this.#targets) return;
    this.#timer = this.#clock.after(this.#times.compareMs, () => void this.#step(false));
  }

  async #look(targets: readonly InquiryTarget[], texts: string): Promise<void> {
    try {
      const findings = await this.#actions.look(targets);
      if (this.#isStopped || targets !== this.#targets) return;
      this.#texts = texts;
      this.#lookedAtMs = this.#clock.elapsedMs();
      const identity = identityOf(findings);
      if (identity === this.#reported) return;
      this.#reported = identity;
      this.#actions.changed(findings);
    } catch (error) {
      this.#actions.failed(error);
    }
  }
}
