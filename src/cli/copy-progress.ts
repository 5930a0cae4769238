/**
 * The progress of a copy or a verify: a bar with rate and time to go on a terminal, a plain line now and then elsewhere,
 * both on stderr; nothing with `--json`.
 */
import type { PairView } from '../core/views.ts';
import { formatSize } from '../core/units.ts';
import type { CommandContext } from './command-context.ts';
import { formatDuration } from './duration.ts';

const BAR_CHARS = 24;
/** Elsewhere than on a terminal: a line at each tenth of the way, or when so much time has passed. */
const PLAIN_LINE_MS = 10_000;

export const pairName = (pair: Pick<PairView, 'primary' | 'secondary'>): string => `${pair.primary.name} -> ${pair.secondary.name}`;

const VERBS: Readonly<Record<string, string>> = { initial: 'copying', resync: 'resyncing', restore: 'restoring' };

/** How far something is. */
type Step = {
  readonly verb: string;
  readonly percent: number;
  readonly rateBytesPerSecond: number | null;
  readonly etaMs: number | null;
};

const copyStep = ({ state, copy, copyPointer, rateBytesPerSecond, etaMs }: PairView): Step | null =>
  state === 'duplex-pending' ? { verb: VERBS[copy ?? 'initial'] ?? '', percent: copyPointer.percent, rateBytesPerSecond, etaMs } : null;

const verifyStep = ({ verify }: PairView): Step | null =>
  verify === null ? null : { ...verify, verb: 'comparing', percent: (verify.checkedBytes / Math.max(1, verify.totalBytes)) * 100 };

export class CopyProgress {
  readonly #context: CommandContext;
  readonly #isBar: boolean;
  readonly #stepOf: (pair: PairView) => Step | null;
  #isShown = false;
  #lastTenth = -1;
  #lastLineAtMs = Number.NEGATIVE_INFINITY;

  /** @param what a copy; or a verify, and the copy that repairs what it found */
  constructor(context: CommandContext, what: 'copy' | 'verify' = 'copy') {
    this.#stepOf = what === 'copy' ? copyStep : (pair) => copyStep(pair) ?? verifyStep(pair);
    this.#context = context;
    this.#isBar = context.io.stderr.isTerminal && !context.json && context.io.env['TERM'] !== 'dumb';
  }

  /** Milliseconds between two looks at the pair. */
  get intervalMs(): number {
    return this.#isBar ? 200 : 1000;
  }

  show(pair: PairView): void {
    const step = this.#stepOf(pair);
    if (step === null) return;
    if (this.#isBar) this.#draw(pair, step);
    else this.#sayWhenDue(pair, step);
  }

  /** Takes the bar away, so that the next line stands where it was. */
  end(): void {
    if (this.#isShown) this.#context.io.stderr.write('\r\u001b[K');
    this.#isShown = false;
  }

  #draw(pair: PairView, step: Step): void {
    const { percent } = step;
    const filled = Math.min(BAR_CHARS, Math.floor((percent / 100) * BAR_CHARS));
    const bar = `${'='.repeat(filled)}${filled < BAR_CHARS ? '>' : ''}`.padEnd(BAR_CHARS);
    const line = `${step.verb} ${pairName(pair)} [${bar}] ${amounts(step)}`;
    this.#context.io.stderr.write(`\r\u001b[K${line.slice(0, Math.max(20, this.#context.io.stderr.columns - 1))}`);
    this.#isShown = true;
  }

  #sayWhenDue(pair: PairView, step: Step): void {
    const tenth = Math.floor(step.percent / 10);
    const nowMs = this.#context.io.nowMs();
    if (tenth === this.#lastTenth && nowMs - this.#lastLineAtMs < PLAIN_LINE_MS) return;
    this.#lastTenth = tenth;
    this.#lastLineAtMs = nowMs;
    this.#context.note(`${step.verb} ${pairName(pair)} ${amounts(step)}`);
  }
}

const amounts = ({ percent, rateBytesPerSecond: rate, etaMs }: Step): string => {
  const parts = [`${percent.toFixed(1)} %`];
  if (rate !== null) parts.push(`${formatSize(Math.round(rate))}/s`);
  if (etaMs !== null) parts.push(`ETA ${formatDuration(etaMs)}`);
  return parts.join('  ');
};
