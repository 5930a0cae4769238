/**
 * `npm run bench:micro [-- --time MS] [WORDS]`: the micro-benchmarks as a table; only those whose name has the words.
 */
import { parseArgs } from 'node:util';
import { CASES, measure } from './measure.ts';

const TIME_MS_DEFAULT = '300';

const duration = (ns: number): string => {
  if (ns < 1000) return `${ns.toFixed(ns < 10 ? 1 : 0)} ns`;
  return ns < 1e6 ? `${(ns / 1e3).toFixed(ns < 1e4 ? 2 : 1)} us` : `${(ns / 1e6).toFixed(2)} ms`;
};

const { values, positionals } = parseArgs({ options: { time: { type: 'string', default: TIME_MS_DEFAULT } }, allowPositionals: true });
const wanted = CASES.filter(({ name }) => positionals.every((word) => name.includes(word)));
const width = Math.max(4, ...wanted.map(({ name }) => name.length));
console.log(`${'CASE'.padEnd(width)}  ${'ONE'.padStart(9)}  ${'A SECOND'.padStart(12)}  SPREAD`);
for (const one of wanted) {
  const { nsPerOperation, spread } = await measure(one, Number(values.time));
  const perSecond = Math.round(1e9 / nsPerOperation).toLocaleString('en-US');
  console.log(
    `${one.name.padEnd(width)}  ${duration(nsPerOperation).padStart(9)}  ${perSecond.padStart(12)}  ${(spread * 100).toFixed(1)} %`,
  );
}
