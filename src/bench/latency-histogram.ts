/**
 * Latencies of millions of requests in a few kilobytes: a log-linear histogram (the idea of Gil Tene's HdrHistogram).
 *
 * Why not a sorted list: a run of a minute has millions of requests, and percentiles far out need all of them. Why not
 * powers of two: a p99 that may be half of what it says is no p99. Here each power of two is cut into 128 equal parts,
 * so a percentile is at most 0.8 % above the true one, from 0.1 microseconds to 7 minutes.
 *
 * Invariants: `record` allocates nothing; a percentile is never below the true one, and never above `maxMs`.
 */

/** Ticks of 0.1 microseconds. */
const TICKS_PER_MS = 10_000;
const TICKS_MAX = 2 ** 32 - 1;
const PARTS = 128;
const PARTS_BITS = 7;
const BUCKETS = (32 - PARTS_BITS) * PARTS + PARTS;

/** Below 256 ticks each has a bucket of its own. */
const bucketOf = (ticks: number): number => {
  const shift = Math.max(0, 32 - PARTS_BITS - 1 - Math.clz32(ticks));
  return shift * PARTS + (ticks >>> shift);
};

/** The largest number of ticks of a bucket. */
const ticksOf = (bucket: number): number => {
  if (bucket < 2 * PARTS) return bucket;
  const shift = Math.floor(bucket / PARTS) - 1;
  return (bucket - shift * PARTS + 1) * 2 ** shift - 1;
};

export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumMs = 0;
  #minMs = Number.POSITIVE_INFINITY;
  #maxMs = 0;

  get count(): number {
    return this.#count;
  }
  /** 0 when nothing was recorded; so are the others. */
  get minMs(): number {
    return this.#count === 0 ? 0 : this.#minMs;
  }
  get maxMs(): number {
    return this.#maxMs;
  }
  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count;
  }

  /** One latency; what is below 0 (a clock that went back) counts as 0. */
  record(latencyMs: number): void {
    const ms = latencyMs > 0 ? latencyMs : 0;
    const bucket = bucketOf(Math.min(TICKS_MAX, Math.floor(ms * TICKS_PER_MS)));
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#count += 1;
    this.#sumMs += ms;
    if (ms < this.#minMs) this.#minMs = ms;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  /** The latency that `percent` of all (0 to 100) do not exceed. */
  percentileMs(percent: number): number {
    if (this.#count === 0) return 0;
    const rank = Math.max(1, Math.ceil((this.#count * percent) / 100));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      seen += this.#counts[bucket] as number;
      if (seen >= rank) return Math.min(this.#maxMs, (ticksOf(bucket) + 1) / TICKS_PER_MS);
    }
    throw new Error('the histogram lost a count');
  }

  /** Adds all that the other one has. */
  merge(other: LatencyHistogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      this.#counts[bucket] = (this.#counts[bucket] as number) + (other.#counts[bucket] as number);
    }
    this.#count += other.#count;
    this.#sumMs += other.#sumMs;
    this.#minMs = Math.min(this.#minMs, other.#minMs);
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs);
  }

  reset(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#sumMs = 0;
    this.#minMs = Number.POSITIVE_INFINITY;
    this.#maxMs = 0;
  }
}
