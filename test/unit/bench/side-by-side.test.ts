/** The pure parts of the side-by-side benchmark: its command line, what it reads out of others' output, plots and tables. */
import { describe, expect, it } from 'vitest';
import { CELLS, valueOf } from '../../../bench/side-by-side/cells.ts';
import { latency, short } from '../../../bench/side-by-side/numbers.ts';
import { threadShare } from '../../../bench/side-by-side/profile.ts';
import { markdownTable } from '../../../bench/side-by-side/report.ts';
import { PART_IDS, settingsOf } from '../../../bench/side-by-side/settings.ts';
import { longestIn, parseLatencyLog } from '../../../bench/side-by-side/split-pause.ts';
import { linearTicks, logTicks, svgOf } from '../../../bench/side-by-side/svg-plot.ts';

const settings = (...words: string[]) => {
  const found = settingsOf(words);
  if (found === 'help') throw new Error('help was asked for');
  return found;
};

describe('the command line', () => {
  it('measures everything three times by default', () => {
    expect(settings()).toMatchObject({ isQuick: false, parts: PART_IDS, runs: 3, cells: CELLS, peers: null });
    expect(settings('--quick').cells.length).toBeLessThan(CELLS.length);
    expect(settingsOf(['--help'])).toBe('help');
  });

  it('takes parts, cells, peers, runtimes', () => {
    const chosen = settings('--parts', 'copy,resync', '--cells', '4k-read,1m', '--peers', 'nbdkit', '--runs', '5', '--runtime', '250ms');
    expect(chosen).toMatchObject({ parts: ['copy', 'resync'], runs: 5, runtimeMs: 250, freeRuntimeMs: 250, peers: ['nbdkit'] });
    expect(chosen.cells.map(({ id }) => id)).toEqual(['4k-read-1', '4k-read-16', '4k-read-4x16', '1m-write', '1m-read']);
  });

  it.each([
    ['--parts', 'sleep'],
    ['--cells', 'nothing'],
    ['--runs', '0'],
    ['--pin', 'maybe'],
    ['--qsd-aio', 'native'],
    ['--size', 'big'],
  ])('refuses %s %s', (flag, value) => expect(() => settings(flag, value)).toThrow(/--help/));

  it('names every cell once', () => expect(new Set(CELLS.map(({ id }) => id)).size).toBe(CELLS.length));
});

describe('what others print', () => {
  it("is read out of fio's latency log", () => {
    const log = parseLatencyLog('1000, 50000, 1, 4096, 0, 0\n1003, 9000000, 1, 4096, 0, 0\n1010, 70000, 1, 4096, 0, 0\n');
    expect(log).toEqual([
      { atMs: 1000, latencyUs: 50 },
      { atMs: 1003, latencyUs: 9000 },
      { atMs: 1010, latencyUs: 70 },
    ]);
    expect(longestIn(log, { fromMs: 1001, toMs: 1009 })).toBe(9000);
    expect(longestIn(log, { fromMs: 1004, toMs: 1010 })).toBe(70);
    expect(longestIn(log, { fromMs: 2000, toMs: 3000 })).toBe(0);
  });

  it('is read out of a CPU profile: shares of the busy time, the largest first', () => {
    const frame = (id: number, functionName: string, url = '') => ({ id, callFrame: { functionName, url } });
    const profile = {
      nodes: [
        frame(1, '(idle)'),
        frame(2, 'writeBuffer'),
        frame(3, 'execute', 'file:///x/executor.js'),
        frame(4, ''),
        frame(5, 'dispatch'),
      ],
      samples: [5, 1, 2, 2, 3, 4],
      timeDeltas: [900, 500, 200, 100, 150, 50],
    };
    expect(threadShare('thread-1', profile)).toEqual({
      thread: 'thread-1',
      busyPercent: 50,
      top: [
        { name: 'writeBuffer', percent: 60 },
        { name: 'execute (executor.js)', percent: 30 },
        { name: '(anonymous)', percent: 10 },
      ],
    });
  });

  it('becomes the unit of the cell', () => {
    const result = { iops: 12_000, bytesPerSecond: 49_152_000 };
    const [small, large] = [CELLS.find(({ id }) => id === '4k-read-1'), CELLS.find(({ id }) => id === '1m-read')];
    if (small === undefined || large === undefined) throw new Error('the cells are gone');
    expect([valueOf(small, result), valueOf(large, result)]).toEqual([12, 49.152]);
  });
});

describe('numbers for people', () => {
  it('have three digits', () => {
    expect([0, 0.1234, 1.234, 12.34, 123.4, 12_345].map(short)).toEqual(['0', '0.12', '1.23', '12.3', '123', '12345']);
    expect(short(Number.NaN)).toBe('-');
    expect([12.4, 1240, 12_400].map(latency)).toEqual(['12 us', '1.24 ms', '12.4 ms']);
  });

  it('stand in a Markdown table whatever they contain', () => {
    expect(markdownTable({ columns: ['a', 'b'], rows: [['1|2', '3']] })).toBe('| a | b |\n| --- | --- |\n| 1\\|2 | 3 |');
  });
});

describe('plots', () => {
  it('have round ticks from zero to beyond the largest value', () => {
    expect(linearTicks(0)).toEqual([0, 1]);
    expect(linearTicks(47)).toEqual([0, 10, 20, 30, 40, 50]);
    expect(linearTicks(100)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(linearTicks(0.7)).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
    expect(logTicks(0.1, 50)).toEqual([0.1, 1, 10, 100]);
    expect(logTicks(10, 10)).toEqual([10, 100]);
  });

  it('draw a bar for each value that was measured, in proportion, and nothing for the others', () => {
    const svg = svgOf({
      kind: 'bars',
      file: 'x.svg',
      title: 'A <title> & more',
      unit: 'things',
      groups: ['one', 'two'],
      series: [
        { name: 'a', values: [10, 5] },
        { name: 'b', values: [null, 10] },
      ],
    });
    const heights = [...svg.matchAll(/height="([\d.]+)" fill="#[0-9a-f]{6}"><title>/g)].map(([, height]) => Number(height));
    expect(heights).toHaveLength(3);
    expect(heights[1]).toBeCloseTo((heights[0] ?? 0) / 2, 0);
    expect(svg).toContain('A &lt;title&gt; &amp; more');
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  it('draw lines over both axes', () => {
    const series = [
      {
        name: 'a',
        points: [
          [0.1, 5],
          [10, 500],
        ] as const,
      },
    ];
    const svg = svgOf({ kind: 'lines', file: 'x.svg', title: 't', unit: 'ms', xTitle: '%', isLogarithmic: true, series });
    expect(svg.match(/<circle/g)).toHaveLength(2);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
    expect(() => svgOf({ kind: 'lines', file: 'x.svg', title: 't', unit: '', xTitle: '', isLogarithmic: false, series: [] })).toThrow(
      /no series/,
    );
  });
});
