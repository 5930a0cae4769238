/**
 * What the medium may hold after a power loss at a given moment of a recorded trace (fault model: recorded-files.ts):
 * all effects that were durable by then, and of each other one all, nothing or a part, in the order in which they were
 * made.
 *
 * Where few effects are in doubt every combination is tried; else all alike, all but one alike, and random ones.
 */
import type { DiskImage, Effect, TraceEvent } from './recorded-files.ts';

/** Effects in doubt up to which every combination is tried: 3^EXHAUSTIVE_MAX images. */
export const EXHAUSTIVE_MAX = 5;

type Logged = { readonly effect: Effect; isCertain: boolean; isForgotten: boolean };

/** Effects of the first `length` events, with what is durable by then. */
const effectsUpTo = (trace: readonly TraceEvent[], length: number): Logged[] => {
  const log: Logged[] = [];
  for (const event of trace.slice(0, length)) {
    if (event.kind === 'effect') log.push({ effect: event.effect, isCertain: false, isForgotten: false });
    if (event.kind === 'mark' || event.kind === 'effect') continue;
    for (const entry of log) {
      const { effect } = entry;
      const isMeant =
        event.kind === 'sync-directory'
          ? effect.kind === 'names' && effect.directory === event.directory
          : effect.kind !== 'names' && effect.inode === event.inode;
      if (!isMeant || entry.isForgotten || entry.isCertain) continue;
      if (event.kind === 'sync-failed') entry.isForgotten = true;
      else entry.isCertain = true;
    }
  }
  return log;
};

/** What a medium holds: names, and content by inode. Buffers are shared between states and copied when they change. */
type Medium = { readonly names: Map<string, number>; readonly content: Map<number, Buffer> };

const mediumOf = (image: DiskImage): Medium => {
  const medium: Medium = { names: new Map(), content: new Map() };
  for (const [index, [path, bytes]] of [...image].entries()) {
    // RecordedFiles gives the files of its image the inodes 1, 2, ... in the same order.
    medium.names.set(path, index + 1);
    medium.content.set(index + 1, bytes);
  }
  return medium;
};

/** A new state: `medium` with the effects. */
const applyEffects = (medium: Medium, effects: readonly Effect[]): Medium => {
  const names = new Map(medium.names);
  const content = new Map(medium.content);
  const copied = new Set<number>();
  for (const effect of effects) {
    if (effect.kind === 'names') {
      for (const [path, inode] of effect.changes) inode === null ? names.delete(path) : names.set(path, inode);
      continue;
    }
    const old = content.get(effect.inode) ?? Buffer.alloc(0);
    const byteLength = effect.kind === 'length' ? effect.byteLength : Math.max(old.length, effect.offset + effect.bytes.length);
    const isOwn = copied.has(effect.inode) && byteLength === old.length;
    const bytes = isOwn ? old : Buffer.alloc(byteLength);
    if (!isOwn) old.copy(bytes);
    if (effect.kind === 'data') effect.bytes.copy(bytes, effect.offset);
    content.set(effect.inode, bytes);
    copied.add(effect.inode);
  }
  return { names, content };
};

const imageOf = ({ names, content }: Medium): DiskImage =>
  new Map([...names].map(([path, inode]) => [path, content.get(inode) ?? Buffer.alloc(0)]));

/** A repeatable source of numbers from 0 to 1 (mulberry32). */
export const randomFrom = (seed: number): (() => number) => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

/** What became of an effect in doubt. A sector can also be torn: its first half is new, the rest is old. */
type Outcome = 'lost' | 'kept' | 'torn';
const OUTCOMES: readonly Outcome[] = ['lost', 'kept', 'torn'];

/** Outcomes of `count` effects in doubt. */
function* outcomes(count: number, random: () => number, samples: number): IterableIterator<readonly Outcome[]> {
  const numbers = Array.from({ length: count }, (_, index) => index);
  if (count <= EXHAUSTIVE_MAX) {
    for (let code = 0; code < 3 ** count; code += 1) yield numbers.map((index) => OUTCOMES[Math.floor(code / 3 ** index) % 3] as Outcome);
    return;
  }
  for (const all of OUTCOMES) yield numbers.map(() => all);
  for (const one of OUTCOMES) {
    for (const other of OUTCOMES)
      for (const chosen of numbers) if (one !== other) yield numbers.map((index) => (index === chosen ? one : other));
  }
  for (let sample = 0; sample < samples; sample += 1) {
    const keptShare = random();
    const tornShare = random() * 0.3;
    yield numbers.map(() => (random() < tornShare ? 'torn' : random() < keptShare ? 'kept' : 'lost'));
  }
}

const outcomeOf = (effect: Effect, outcome: Outcome): Effect | null => {
  if (outcome === 'kept') return effect;
  if (outcome === 'lost' || effect.kind !== 'data') return null;
  return { ...effect, bytes: effect.bytes.subarray(0, effect.bytes.length >> 1) };
};

export type CrashOptions = { readonly random: () => number; readonly samples: number };

/** The images that a crash after the first `length` events may leave. */
export function* crashImages(
  initial: DiskImage,
  trace: readonly TraceEvent[],
  length: number,
  options: CrashOptions,
): IterableIterator<DiskImage> {
  const log = effectsUpTo(trace, length);
  const inDoubt = log.filter((entry) => !entry.isCertain);
  const firstInDoubt = log.findIndex((entry) => !entry.isCertain);
  const certain = firstInDoubt < 0 ? log : log.slice(0, firstInDoubt);
  const base = applyEffects(
    mediumOf(initial),
    certain.map(({ effect }) => effect),
  );
  const rest = log.slice(certain.length);
  for (const chosen of outcomes(inDoubt.length, options.random, options.samples)) {
    const outcome = new Map(inDoubt.map((entry, index) => [entry, chosen[index] as Outcome] as const));
    yield imageOf(
      applyEffects(
        base,
        rest.flatMap((entry) => outcomeOf(entry.effect, outcome.get(entry) ?? 'kept') ?? []),
      ),
    );
  }
}

/** Moments worth a crash: after each event that changes what may be on the medium, and after each mark. */
export const moments = (trace: readonly TraceEvent[]): number[] => Array.from({ length: trace.length + 1 }, (_, index) => index);

/** Marks among the first `length` events. */
export const marksUpTo = (trace: readonly TraceEvent[], length: number): string[] =>
  trace.slice(0, length).flatMap((event) => (event.kind === 'mark' ? [event.mark] : []));
