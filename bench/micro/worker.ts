/**
 * One tree's micro-benchmarks as a process that `check.ts` asks: it names its cases, and measures one of them at a time.
 * The same file exists in the baseline's tree, so what it is asked and what it answers must stay as they are.
 */
import { CASES, measure } from './measure.ts';

export type WorkerQuestion = { readonly ask: 'cases' } | { readonly ask: 'measure'; readonly name: string; readonly timeMs: number };
export type WorkerAnswer =
  | { readonly cases: ReadonlyArray<{ readonly name: string; readonly version: number }> }
  | { readonly nsPerOperation: number }
  | { readonly error: string };

const answer = async (question: WorkerQuestion): Promise<WorkerAnswer> => {
  if (question.ask === 'cases') return { cases: CASES.map(({ name, version }) => ({ name, version })) };
  const found = CASES.find(({ name }) => name === question.name);
  if (found === undefined) return { error: `there is no case ${question.name}` };
  const { nsPerOperation } = await measure(found, question.timeMs);
  return { nsPerOperation };
};

process.on('message', (question: WorkerQuestion) => {
  answer(question).then(
    (given) => process.send?.(given),
    (error: unknown) => process.send?.({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
process.once('disconnect', () => process.exit(0));
