/** Colour, on a terminal only, and never with NO_COLOR (no-color.org) or TERM=dumb. */
import type { CliIo, CliStream } from './io.ts';

const CODES = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33', cyan: '36' } as const;
export type Colour = keyof typeof CODES;
export type Paint = (colour: Colour, text: string) => string;

export const painterFor = (stream: CliStream, env: CliIo['env']): Paint => {
  const isPlain = !stream.isTerminal || (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb';
  return isPlain ? (_colour, text) => text : (colour, text) => `\u001b[${CODES[colour]}m${text}\u001b[0m`;
};
