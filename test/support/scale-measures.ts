/** Times of an operator's commands on a large device, for the scale test and its benchmark. */
import type { Engine } from '../../src/engine/api.ts';

/** `ms` is the least of several rounds, of the processor's time where that is less; the others are by the clock. */
export type Time = {
  readonly what: string;
  readonly ms: number;
  /** A command's first time in this process. */
  readonly firstMs: number;
  readonly medianMs: number;
  readonly leastMs: number;
};
type Rounds = Omit<Time, 'what'>;

type Undo = () => Promise<unknown>;

/** The lesser of the time that passed and the time that this process used. */
const timed = async <T>(work: () => T | Promise<T>): Promise<{ readonly ms: number; readonly passedMs: number; readonly result: T }> => {
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const result = await work();
  const passedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  return { ms: Math.min(passedMs, (user + system) / 1000), passedMs, result };
};

/** Times of several rounds; what a round leaves behind is undone outside of the measurement. */
export const roundsOf = async (rounds: number, work: () => Promise<Undo>): Promise<Rounds> => {
  let least = Number.POSITIVE_INFINITY;
  const passed: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const { ms, passedMs, result: undo } = await timed(work);
    least = Math.min(least, ms);
    passed.push(passedMs);
    await undo();
  }
  const [firstMs = Number.NaN] = passed;
  const medianMs = passed.sort((one, other) => one - other)[Math.floor(passed.length / 2)] ?? Number.NaN;
  return { ms: least, firstMs, medianMs, leastMs: passed[0] ?? Number.NaN };
};

const nothing: Undo = async () => undefined;

/**
 * What an operator does with the pool: list, look, choose, fit, and give a capacity back. The store is that of
 * `scale-store.ts`, whose volume `lonely` has no secondary and finds none of its own size.
 */
export const measureCommands = async (engine: Engine, rounds: number): Promise<readonly Time[]> => {
  const times: Time[] = [];
  const measure = async (what: string, work: () => Promise<Undo>): Promise<void> => {
    times.push({ what, ...(await roundsOf(rounds, work)) });
  };
  const look = (what: string, work: () => unknown): Promise<void> =>
    measure(what, async () => {
      await work();
      return nothing;
    });
  await look('volume list', () => engine.volumeList());
  await look('pair status', () => engine.pairStatus());
  await look('status', () => engine.status());
  await look('pool candidates', () => engine.poolCandidates({ primary: 'lonely' }));
  await look('pool candidates --explain', () => engine.poolCandidates({ primary: 'lonely', explain: true }));
  await look('pair create --plan', () => engine.pairCreate({ primary: 'lonely', plan: true }));
  await look('pair create --fit regions --plan', () => engine.pairCreate({ primary: 'lonely', fit: 'regions', plan: true }));
  let fitted = 0;
  await measure('pair create --fit regions', async () => {
    const made = await engine.pairCreate({ primary: 'lonely', fit: 'regions' });
    if ('plan' in made) throw new Error('a plan was not asked for');
    fitted = made.secondary.number;
    return async () => {
      await engine.pairWait({ primary: 'lonely', state: 'duplex', timeoutMs: 30_000 });
      await engine.pairRelease({ primary: 'lonely' });
      await engine.poolRestoreSize({ volume: fitted });
    };
  });
  await measure('pool restore-size', async () => {
    await engine.pairCreate({ primary: 'lonely', fit: 'regions' });
    await engine.pairRelease({ primary: 'lonely' });
    await engine.poolRestoreSize({ volume: fitted });
    return nothing;
  });
  return times;
};
