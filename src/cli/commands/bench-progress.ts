/**
 * The progress of a benchmark: one line that changes on a terminal, a line now and then elsewhere, both on stderr;
 * nothing with `--json`.
 */
import type { Progress } from '../../bench/benchmark.ts';
import type { CommandContext } from '../command-context.ts';
import { formatLatency, formatMegabytes } from './bench-report.ts';

/** Elsewhere than on a terminal: so many lines for a run, and not more than one a second. */
const PLAIN_LINES = 10;
const PLAIN_LINE_MS_MIN = 1000;

const PHASES: Readonly<Record<Progress['phase'], string>> = {
  'warm-up': 'warming up',
  measuring: 'measuring',
  answers: 'waiting for the last replies',
  'reading-back': 'reading back',
};

const START = { elapsedMs: 0, operations: 0, bytes: 0 };

export class BenchProgress {
  readonly #context: CommandContext;
  readonly #isLine: boolean;
  readonly #intervalMs: number;
  #prefix = '';
  #isShown = false;
  #phase: Progress['phase'] | null = null;
  /** What was shown last, for the rate since then. */
  #last: Pick<Progress, 'elapsedMs' | 'operations' | 'bytes'> = START;

  constructor(context: CommandContext, runtimeMs: number) {
    this.#context = context;
    this.#isLine = context.io.stderr.isTerminal && !context.json && context.io.env['TERM'] !== 'dumb';
    this.#intervalMs = Math.max(PLAIN_LINE_MS_MIN, runtimeMs / PLAIN_LINES);
  }

  /** Says which of several runs is shown from now on. */
  begin(prefix: string): void {
    this.#prefix = prefix;
    this.#phase = null;
  }

  show(progress: Progress): void {
    if (progress.phase !== this.#phase) this.#last = START;
    this.#phase = progress.phase;
    if (!this.#isLine && (progress.phase === 'warm-up' || progress.elapsedMs - this.#last.elapsedMs < this.#intervalMs)) return;
    const text = this.#text(progress);
    this.#last = progress;
    if (!this.#isLine) {
      this.#context.note(text);
      return;
    }
    const { stderr } = this.#context.io;
    stderr.write(`\r\u001b[K${text.slice(0, Math.max(20, stderr.columns - 1))}`);
    this.#isShown = true;
  }

  /** Takes the line away, so that the report stands where it was. */
  end(): void {
    if (this.#isShown) this.#context.io.stderr.write('\r\u001b[K');
    this.#isShown = false;
  }

  #text({ phase, done, operations, bytes, p50Ms, p99Ms, errors, elapsedMs }: Progress): string {
    const parts = [
      `${this.#prefix}${PHASES[phase]}${phase === 'answers' ? '' : ` ${Math.floor(done * 100)} %`}`,
      `${(elapsedMs / 1000).toFixed(1)} s`,
    ];
    const seconds = (elapsedMs - this.#last.elapsedMs) / 1000;
    if ((phase === 'warm-up' || phase === 'measuring') && seconds > 0) {
      const iops = Math.round((operations - this.#last.operations) / seconds);
      parts.push(`${iops} IOPS`, `${formatMegabytes((bytes - this.#last.bytes) / seconds)} MB/s`);
      parts.push(`p50 ${formatLatency(p50Ms)}`, `p99 ${formatLatency(p99Ms)}`);
    }
    if (errors > 0) parts.push(`${errors} errors`);
    return parts.join('  ');
  }
}
