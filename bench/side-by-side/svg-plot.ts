/**
 * Plots as SVG text: grouped bars and lines, with axes, a grid and a legend. Colours are told apart by everybody (Okabe and
 * Ito's palette), text is large enough to read in a page, and the background is white so that dark pages show it too.
 */
import type { Plot } from './section.ts';

const WIDTH = 960;
const HEIGHT = 420;
const LEFT = 72;
const RIGHT = 16;
const TOP = 72;
const BOTTOM = 78;
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#f0e442'];
const FONT = 'font-family="system-ui, sans-serif"';

type Box = { readonly x: number; readonly y: number; readonly width: number; readonly height: number };
const AREA: Box = { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const text = (
  x: number,
  y: number,
  content: string,
  options: { size?: number; anchor?: string; weight?: string; turn?: number } = {},
): string => {
  const { size = 12, anchor = 'middle', weight = 'normal', turn } = options;
  const rotation = turn === undefined ? '' : ` transform="rotate(${turn} ${x.toFixed(1)} ${y.toFixed(1)})"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" text-anchor="${anchor}" font-weight="${weight}" fill="#222"${rotation}>${escape(content)}</text>`;
};

const line = (x1: number, y1: number, x2: number, y2: number, colour: string): string =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${colour}"/>`;

const tickText = (value: number): string => {
  if (value === 0) return '0';
  if (value >= 1000) return value.toLocaleString('en-US', { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(3)));
};

/** Round steps from zero to above the largest value. */
export const linearTicks = (max: number): number[] => {
  if (!(max > 0)) return [0, 1];
  const power = 10 ** Math.floor(Math.log10(max / 5));
  const step = power * ([1, 2, 5, 10].find((factor) => max / 5 / power <= factor) ?? 10);
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, index) => Number((index * step).toPrecision(12)));
};

/** Powers of ten around the values. */
export const logTicks = (min: number, max: number): number[] => {
  const first = Math.floor(Math.log10(min) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(Math.log10(max) - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
};

type Scale = (value: number) => number;
const scaleOf = (ticks: readonly number[], from: number, to: number, isLogarithmic: boolean): Scale => {
  const place = isLogarithmic ? Math.log10 : (value: number) => value;
  const [low, high] = [place(ticks[0] ?? 0), place(ticks.at(-1) ?? 1)];
  return (value) => from + ((place(value) - low) / (high - low)) * (to - from);
};

const frame = (plot: Plot, names: readonly string[], body: readonly string[]): string => {
  const legend: string[] = [];
  let x = LEFT;
  let y = 46;
  for (const [index, name] of names.entries()) {
    const width = 30 + name.length * 7;
    if (x + width > WIDTH - RIGHT) {
      x = LEFT;
      y += 16;
    }
    legend.push(
      `<rect x="${x}" y="${y - 10}" width="12" height="12" fill="${COLOURS[index % COLOURS.length]}"/>`,
      text(x + 17, y, name, { anchor: 'start' }),
    );
    x += width;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ${FONT}>`,
    `<title>${escape(plot.title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(LEFT, 24, plot.title, { anchor: 'start', size: 17, weight: 'bold' }),
    ...legend,
    text(18, AREA.y + AREA.height / 2, plot.unit, { turn: -90 }),
    ...body,
    line(AREA.x, AREA.y, AREA.x, AREA.y + AREA.height, '#444'),
    line(AREA.x, AREA.y + AREA.height, AREA.x + AREA.width, AREA.y + AREA.height, '#444'),
    '</svg>',
    '',
  ].join('\n');
};

const yAxis = (ticks: readonly number[], y: Scale): string[] =>
  ticks.flatMap((tick) => [
    line(AREA.x, y(tick), AREA.x + AREA.width, y(tick), '#e3e3e3'),
    text(AREA.x - 7, y(tick) + 4, tickText(tick), { anchor: 'end' }),
  ]);

/** A label in one or two lines. */
const groupLabel = (x: number, label: string): string[] => {
  const words = label.split(' ');
  const half = Math.ceil(words.length / 2);
  const lines = label.length <= 12 ? [label] : [words.slice(0, half).join(' '), words.slice(half).join(' ')];
  return lines.map((content, index) => text(x, AREA.y + AREA.height + 18 + index * 15, content));
};

const bars = (plot: Extract<Plot, { kind: 'bars' }>): string => {
  const values = plot.series.flatMap((one) => one.values.filter((value) => value !== null));
  const ticks = linearTicks(Math.max(0, ...values));
  const y = scaleOf(ticks, AREA.y + AREA.height, AREA.y, false);
  const groupWidth = AREA.width / Math.max(1, plot.groups.length);
  const barWidth = Math.min(42, (groupWidth * 0.82) / Math.max(1, plot.series.length));
  const body = yAxis(ticks, y);
  for (const [group, label] of plot.groups.entries()) {
    const middle = AREA.x + groupWidth * (group + 0.5);
    body.push(...groupLabel(middle, label));
    for (const [index, { name, values: all }] of plot.series.entries()) {
      const value = all[group] ?? null;
      if (value === null) continue;
      const x = middle + (index - plot.series.length / 2) * barWidth;
      const colour = COLOURS[index % COLOURS.length];
      const hint = `<title>${escape(`${name}, ${label}: ${tickText(value)} ${plot.unit}`)}</title>`;
      const height = Math.max(0, AREA.y + AREA.height - y(value));
      body.push(
        `<rect x="${x.toFixed(1)}" y="${y(value).toFixed(1)}" width="${(barWidth * 0.92).toFixed(1)}" height="${height.toFixed(1)}" fill="${colour}">${hint}</rect>`,
      );
    }
  }
  return frame(
    plot,
    plot.series.map(({ name }) => name),
    body,
  );
};

const lines = (plot: Extract<Plot, { kind: 'lines' }>): string => {
  const points = plot.series.flatMap((one) => one.points);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const ticksOf = (values: readonly number[]): number[] =>
    plot.isLogarithmic ? logTicks(Math.min(...values), Math.max(...values)) : linearTicks(Math.max(...values));
  const [xTicks, yTicks] = [ticksOf(xs), ticksOf(ys)];
  const x = scaleOf(xTicks, AREA.x, AREA.x + AREA.width, plot.isLogarithmic);
  const y = scaleOf(yTicks, AREA.y + AREA.height, AREA.y, plot.isLogarithmic);
  const body = yAxis(yTicks, y);
  for (const tick of xTicks) {
    body.push(line(x(tick), AREA.y, x(tick), AREA.y + AREA.height, '#e3e3e3'), text(x(tick), AREA.y + AREA.height + 18, tickText(tick)));
  }
  body.push(text(AREA.x + AREA.width / 2, HEIGHT - 22, plot.xTitle));
  for (const [index, { points: own }] of plot.series.entries()) {
    const colour = COLOURS[index % COLOURS.length];
    const path = own.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' ');
    body.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2.5"/>`);
    for (const [px, py] of own) body.push(`<circle cx="${x(px).toFixed(1)}" cy="${y(py).toFixed(1)}" r="4" fill="${colour}"/>`);
  }
  return frame(
    plot,
    plot.series.map(({ name }) => name),
    body,
  );
};

/** The plot as a whole SVG file. @throws Error when there is nothing to draw */
export const svgOf = (plot: Plot): string => {
  if (plot.series.length === 0) throw new Error(`the plot "${plot.title}" has no series`);
  return plot.kind === 'bars' ? bars(plot) : lines(plot);
};
