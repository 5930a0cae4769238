/** `twinvol events`: what is there and what changes, as lines; with `--json` one JSON document a line. */
import type { Command } from 'commander';
import { printable } from '../../core/inquiry-text.ts';
import type { EventView } from '../../core/views.ts';
import { numberArgument } from '../arguments.ts';
import { addCommand } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { formatMoment } from '../duration.ts';
import { given } from '../given.ts';
import type { Colour } from '../style.ts';

const COLOURS: Readonly<Partial<Record<EventView['kind'], Colour>>> = { warning: 'yellow', create: 'green', destroy: 'red' };

const valueText = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

const lineOf = (event: EventView, context: CommandContext): string => {
  const facts = Object.entries(event.data).map(([name, value]) => `${name}=${valueText(value)}`);
  const colour = COLOURS[event.kind];
  const kind = event.kind.padEnd(7);
  const words = [
    formatMoment(event.atMs),
    String(event.seq),
    colour === undefined ? kind : context.paint(colour, kind),
    event.object,
    event.id,
  ];
  return `${words.join(' ')}${facts.length > 0 ? ` ${printable(facts.join(' '))}` : ''}`;
};

export const registerEvents = (program: Command, context: CommandContext): void => {
  addCommand(program, 'events', 'what is there (exists), and with --follow what changes from then on', [
    'events',
    'events --follow --json',
    'events --follow --since 1741000000123',
  ])
    .option('--follow', 'go on with the changes as they happen')
    .option(
      '--since <N>',
      'only what came after the event with this number',
      numberArgument('number of an event', 0, Number.MAX_SAFE_INTEGER),
    )
    .action(async ({ follow, since }: { follow?: boolean; since?: number }) => {
      const client = await context.client();
      const options = { follow: follow === true, signal: context.io.interrupted, ...given({ since }) };
      for await (const event of client.events(options)) {
        context.io.stdout.write(`${context.json ? JSON.stringify(event) : lineOf(event, context)}\n`);
      }
    });
};
