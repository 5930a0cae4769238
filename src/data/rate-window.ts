/**
 * The rate of the last few seconds, from samples of (time, bytes) that are taken whenever somebody looks.
 */
const WINDOW_MS = 5000;
const SAMPLE_MS = 100;

export class RateWindow {
  readonly #samples: Array<{ readonly atMs: number; readonly bytes: number }> = [];

  clear(): void {
    this.#samples.length = 0;
  }

  /** Bytes a second; null until there are two samples. `bytes`: done so far. */
  sample(bytes: number, atMs: number = performance.now()): number | null {
    const samples = this.#samples;
    const last = samples.at(-1);
    if (last === undefined || atMs - last.atMs >= SAMPLE_MS) samples.push({ atMs, bytes });
    while (samples.length > 2 && atMs - (samples[0]?.atMs ?? atMs) > WINDOW_MS) samples.shift();
    const first = samples[0];
    if (first === undefined || atMs - first.atMs < SAMPLE_MS) return null;
    return Math.round(((bytes - first.bytes) / (atMs - first.atMs)) * 1000);
  }
}
