/**
 * `npm run bench:check`: the micro-benchmarks of this tree against those of the baseline commit, in turns in one session;
 * exit status 1 when a case takes more than 25 % longer.
 *
 *     --baseline COMMIT   instead of the one in bench/baseline.json
 *     --loss PERCENT      default 25      --rounds N   default 5      --time MS   of one measurement; default 60
 *     --set               makes the current commit the baseline, and measures nothing
 *
 * A suspected loss is measured twice more, longer and in new processes, and fails only if it shows each time. Exit status
 * 2: there is nothing to compare with, which is said and is no success.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { checkOut, findBaseline } from './baseline-tree.ts';
import { isLost, lossOf, matchCases, type Round } from './verdict.ts';
import { WorkerProcess } from './worker-process.ts';

const root = join(import.meta.dirname, '../..');
const ATTEMPTS_MAX = 3;
/** A repeated measurement is so many times as long. */
const REPEAT_FACTOR = 3;
const NOTHING_TO_COMPARE = 2;

const { values } = parseArgs({
  options: {
    baseline: { type: 'string' },
    loss: { type: 'string', default: '25' },
    rounds: { type: 'string', default: '5' },
    time: { type: 'string', default: '60' },
    set: { type: 'boolean', default: false },
  },
});
const lossMax = Number(values.loss) / 100;
const rounds = Number(values.rounds);
const timeMs = Number(values.time);

const setBaseline = (): number => {
  const commit = execFileSync('git', ['-C', root, 'rev-parse', 'HEAD'], { encoding: 'utf8' }).trim();
  writeFileSync(join(root, 'bench/baseline.json'), `${JSON.stringify({ commit }, null, 2)}\n`);
  console.log(`bench/baseline.json names ${commit}; commit it`);
  return 0;
};

/** Rounds for each case, one tree after the other within a round, and the other way round in the next. */
const measureRounds = async (tree: string, names: readonly string[], timeEachMs: number): Promise<ReadonlyMap<string, Round[]>> => {
  await using before = new WorkerProcess(tree);
  await using now = new WorkerProcess(root);
  const found = new Map(names.map((name): [string, Round[]] => [name, []]));
  // The first measurements of a process are those of a compiler at work.
  for (const name of names) {
    await before.measure(name, timeEachMs);
    await now.measure(name, timeEachMs);
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const name of names) {
      const isFirst = round % 2 === 0;
      const first = await (isFirst ? before : now).measure(name, timeEachMs);
      const second = await (isFirst ? now : before).measure(name, timeEachMs);
      found.get(name)?.push(isFirst ? { baselineNs: first, currentNs: second } : { baselineNs: second, currentNs: first });
    }
  }
  return found;
};

const percent = (loss: number): string => `${loss >= 0 ? '+' : ''}${(loss * 100).toFixed(1)} %`;

const compare = async (tree: string): Promise<number> => {
  const { compared, left } = await (async () => {
    await using before = new WorkerProcess(tree);
    await using now = new WorkerProcess(root);
    return matchCases(await before.cases(), await now.cases());
  })();
  for (const line of left) console.log(`not compared, ${line}`);
  if (compared.length === 0) return NOTHING_TO_COMPARE;
  const attempts = new Map(compared.map((name): [string, Array<readonly Round[]>] => [name, []]));
  let names: readonly string[] = compared;
  for (let attempt = 0; attempt < ATTEMPTS_MAX && names.length > 0; attempt += 1) {
    if (attempt > 0) console.log(`measuring again: ${names.join('; ')}`);
    const measured = await measureRounds(tree, names, attempt === 0 ? timeMs : timeMs * REPEAT_FACTOR);
    for (const [name, found] of measured) {
      attempts.get(name)?.push(found);
      console.log(`${percent(lossOf(found)).padStart(9)}  ${name}`);
    }
    names = names.filter((name) => isLost(attempts.get(name) ?? [], lossMax));
  }
  for (const name of names) console.log(`LOSS: ${name}: ${(attempts.get(name) ?? []).map((found) => percent(lossOf(found))).join(', ')}`);
  console.log(`${compared.length} cases, ${names.length} with a loss of more than ${values.loss} %`);
  return names.length === 0 ? 0 : 1;
};

const check = async (): Promise<number> => {
  const baseline = await findBaseline(root, values.baseline);
  if (baseline === null) {
    console.log('there is no baseline commit in this clone: fetch its history, or name one with --baseline');
    return NOTHING_TO_COMPARE;
  }
  await using tree = await checkOut(root, baseline.commit);
  console.log(`baseline ${baseline.commit.slice(0, 12)} (${baseline.why})`);
  if (!existsSync(join(tree.path, 'bench/micro/worker.ts'))) {
    console.log('the baseline has no micro-benchmarks: nothing can be compared');
    return NOTHING_TO_COMPARE;
  }
  return await compare(tree.path);
};

process.exitCode = values.set ? setBaseline() : await check();
