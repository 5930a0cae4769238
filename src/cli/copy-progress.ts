/**
 * The progress of a copy: a bar with rate and time to go on a terminal, a plain line now and then elsewhere, both on
 * stderr; nothing with `--json`.
 */
import type { PairView } from '../core/views.ts';
import { formatSize } from '../core/units.ts';
import type { CommandContext } from './command-context.ts';
import { formatDuration } from './duration.ts';

const BAR_CHARS = 24;
/** Elsewhere than on a terminal: a line at each tenth of the copy, or when so much time has passed. */
const PLAIN_LINE_MS = 10_000;

export const pairName = (pair: Pick<PairView, 'primary' | 'secondary'>): string => `${pair.primary.name} -> ${pair.secondary.name}`;

const VERBS: Readonly<Record<string, string>> = { initial: 'copying', resync: 'resyncing', restore: 'restoring' };

export class CopyProgress {
  readonly #context: CommandContext;
  readonly #isBar: boolean;
  #isShown = false;
  #lastTenth = -1;
  #lastLineAtMs = Number.NEGATIVE_INFINITY;

  constructor(context: CommandContext) {
    this.#context = context;
    this.#isBar = context.io.stderr.isTerminal && !context.json && context.io.env['TERM'] !== 'dumb';
  }

  /** Milliseconds between two looks at the pair. */
  get intervalMs(): number {
    return this.#isBar ? 200 : 1000;
  }

  show(pair: PairView): void {
    if (pair.state !== 'duplex-pending') return;
    if (this.#isBar) this.#draw(pair);
    else this.#sayWhenDue(pair);
  }

  /** Takes the bar away, so that the next line stands where it was. */
  end(): void {
    if (this.#isShown) this.#context.io.stderr.write('\r\u001b[K');
    this.#isShown = false;
  }

  #draw(pair: PairView): void {
    const { percent } = pair.copyPointer;
    const filled = Math.min(BAR_CHARS, Math.floor((percent / 100) * BAR_CHARS));
    const bar = `${'='.repeat(filled)}${filled < BAR_CHARS ? '>' : ''}`.padEnd(BAR_CHARS);
    const line = `${VERBS[pair.copy ?? 'initial']} ${pairName(pair)} [${bar}] ${this.#amounts(pair)}`;
    this.#context.io.stderr.write(`\r\u001b[K${line.slice(0, Math.max(20, this.#context.io.stderr.columns - 1))}`);
    this.#isShown = true;
  }

  #sayWhenDue(pair: PairView): void {
    const tenth = Math.floor(pair.copyPointer.percent / 10);
    const nowMs = this.#context.io.nowMs();
    if (tenth === this.#lastTenth && nowMs - this.#lastLineAtMs < PLAIN_LINE_MS) return;
    this.#lastTenth = tenth;
    this.#lastLineAtMs = nowMs;
    this.#context.note(`${VERBS[pair.copy ?? 'initial']} ${pairName(pair)} ${this.#amounts(pair)}`);
  }

  #amounts(pair: PairView): string {
    const { rateBytesPerSecond: rate, etaMs } = pair;
    const parts = [`${pair.copyPointer.percent.toFixed(1)} %`];
    if (rate !== null) parts.push(`${formatSize(Math.round(rate))}/s`);
    if (etaMs !== null) parts.push(`ETA ${formatDuration(etaMs)}`);
    return parts.join('  ');
  }
}
