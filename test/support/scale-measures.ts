/** Times of an operator's commands on a large device, for the scale test and its benchmark. */
import type { Engine } from '../../src/engine/api.ts';

export type Time = { readonly what: string; readonly ms: number };

type Undo = () => Promise<unknown>;

/** The lesser of the time that passed and the time that this process used. */
const timed = async <T>(work: () => T | Promise<T>): Promise<{ readonly ms: number; readonly result: T }> => {
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const result = await work();
  const passedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  return { ms: Math.min(passedMs, (user + system) / 1000), result };
};

/** The least time of several rounds; what a round leaves behind is undone outside of the measurement. */
export const leastMs = async (rounds: number, work: () => Promise<Undo>): Promise<number> => {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round += 1) {
    const { ms, result: undo } = await timed(work);
    least = Math.min(least, ms);
    await undo();
  }
  return least;
};

const nothing: Undo = async () => undefined;

/**
 * What an operator does with the pool: list, look, choose, fit, and give a capacity back. The store is that of
 * `scale-store.ts`, whose volume `lonely` has no secondary and finds none of its own size.
 */
export const measureCommands = async (engine: Engine, rounds: number): Promise<readonly Time[]> => {
  const times: Time[] = [];
  const measure = async (what: string, work: () => Promise<Undo>): Promise<void> => {
    times.push({ what, ms: await leastMs(rounds, work) });
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
