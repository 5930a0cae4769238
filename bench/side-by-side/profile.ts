/**
 * What the engine's threads spend their time on in a cell: a CPU profile of each thread during one run more, which is not
 * counted, and the functions with the largest share of the busiest thread. System calls show up as the native functions
 * that make them (`writeBuffer`, `read`), and as `(program)`.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const WRITE_MS_MAX = 15_000;
const SHOWN = 6;
/** Waiting, and the profiler's own start. */
const NOT_WORK = new Set(['(idle)', 'dispatch']);
const PRELOAD = join(import.meta.dirname, 'thread-profile.mjs');

export type Share = { readonly name: string; readonly percent: number };
export type ThreadShare = { readonly thread: string; readonly busyPercent: number; readonly top: readonly Share[] };

type Profile = {
  readonly nodes: ReadonlyArray<{ readonly id: number; readonly callFrame: { readonly functionName: string; readonly url: string } }>;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
};

/** Environment of an engine whose threads can be profiled. */
export const profileEnvironment = (directory: string): Readonly<Record<string, string>> => ({
  TWINVOL_BENCH_PROFILE: directory,
  NODE_OPTIONS: `--import=${PRELOAD}`,
});

/** Shares of a thread's own time by function; what waits is not time. */
export const threadShare = (thread: string, { nodes, samples, timeDeltas }: Profile): ThreadShare => {
  const nameOf = new Map(nodes.map(({ id, callFrame }) => [id, `${callFrame.functionName || '(anonymous)'}${fileOf(callFrame.url)}`]));
  const spent = new Map<string, number>();
  for (const [index, id] of samples.entries()) {
    const name = nameOf.get(id) ?? '?';
    spent.set(name, (spent.get(name) ?? 0) + (timeDeltas[index] ?? 0));
  }
  const sum = (entries: ReadonlyArray<readonly [string, number]>): number => entries.reduce((total, [, time]) => total + time, 0);
  const working = [...spent].filter(([name]) => !NOT_WORK.has(name));
  const busy = sum(working);
  const total = busy + (spent.get('(idle)') ?? 0);
  const top = working.sort(([, a], [, b]) => b - a).slice(0, SHOWN);
  return {
    thread,
    busyPercent: total === 0 ? 0 : (busy / total) * 100,
    top: top.map(([name, time]) => ({ name, percent: (time / busy) * 100 })),
  };
};

const fileOf = (url: string): string => {
  const file = url.split('/').at(-1) ?? '';
  return file === '' ? '' : ` (${file})`;
};

/** Profiles while `action` runs. @returns the busiest thread's shares */
export const profiled = async (directory: string, label: string, action: () => Promise<unknown>): Promise<ThreadShare | null> => {
  mkdirSync(directory, { recursive: true });
  const flag = join(directory, 'on');
  const before = new Set(readdirSync(directory));
  writeFileSync(flag, '');
  try {
    await new Promise((resolve) => setTimeout(resolve, 300));
    await action();
  } finally {
    rmSync(flag);
  }
  const found = await newProfiles(directory, before);
  const threads = found.map((file) => {
    const kept = join(directory, `${label}-${file}`);
    renameSync(join(directory, file), kept);
    return threadShare(file.replace(/-\d+\.cpuprofile$/, ''), JSON.parse(readFileSync(kept, 'utf8')) as Profile);
  });
  return threads.sort((a, b) => b.busyPercent - a.busyPercent)[0] ?? null;
};

/** Waits until no more come, since each thread writes its own. */
const newProfiles = async (directory: string, before: ReadonlySet<string>): Promise<string[]> => {
  const giveUpMs = performance.now() + WRITE_MS_MAX;
  let found: string[] = [];
  let isStable = false;
  while (!isStable && performance.now() < giveUpMs && existsSync(directory)) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const now = readdirSync(directory).filter((file) => /^thread-.*\.cpuprofile$/.test(file) && !before.has(file));
    isStable = now.length > 0 && now.length === found.length;
    found = now;
  }
  return found;
};
