/**
 * The second client of the benchmark (lean-client.c), for cells in which fio itself may be what limits: it costs a third of a processor
 * where fio takes a whole one. What it shows is the server's rate; what a user's client reaches shows fio.
 */
import { runProgram } from './owned-process.ts';
import type { FioInput } from './fio.ts';

/** Time beyond the runtime that a run may take. */
const GRACE_MS = 10_000;

export const LEAN = 'a client that costs little';

/** What of fio's input it understands: random reads or writes over one unix socket. */
export type LeanInput = Omit<FioInput, 'uris' | 'latencyLog'> & { readonly uri: string };

/** @throws Error when a request fails */
export const runLean = async (program: string, input: LeanInput): Promise<{ readonly iops: number; readonly bytesPerSecond: number }> => {
  const { rw, blockBytes, depth, jobs, sizeBytes, runtimeMs, cpus } = input;
  if (rw !== 'randread' && rw !== 'randwrite') throw new Error(`${LEAN} does no ${rw}`);
  const uri = new URL(input.uri);
  const words = [
    uri.searchParams.get('socket') ?? '',
    decodeURIComponent(uri.pathname.slice(1)),
    rw === 'randread' ? 'read' : 'write',
    ...[blockBytes, depth, jobs, sizeBytes, runtimeMs].map(String),
  ];
  const { output } = await runProgram(program, words, runtimeMs + GRACE_MS, { cpus });
  const [, requests, seconds] = (/^(\d+) (\d+\.\d+)$/m.exec(output) ?? []).map(Number);
  if (requests === undefined || seconds === undefined) throw new Error(`${LEAN} printed no figures:\n${output}`);
  return { iops: requests / seconds, bytesPerSecond: (requests * blockBytes) / seconds };
};
