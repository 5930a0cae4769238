/** A list to choose from with the arrow keys, on a terminal; drawn on stderr, and gone when the choice is made. */
import { TwinvolError } from '../core/faults.ts';
import { printable } from '../core/inquiry-text.ts';
import type { CommandContext } from './command-context.ts';

const LINES_SHOWN = 10;

/** @throws TwinvolError `USAGE` without a terminal, `NOT_CONFIRMED` when nothing is chosen */
export const chooseFrom = async <Item>(
  context: CommandContext,
  title: string,
  items: readonly [Item, ...Item[]] | readonly Item[],
  textOf: (item: Item) => string,
): Promise<Item> => {
  if (!context.isInteractive)
    throw new TwinvolError('USAGE', 'there is no terminal to choose on', { remedy: 'name the choice on the command line' });
  const { stderr } = context.io;
  // Before the list is drawn: whoever sees it may press a key at once.
  const keys = context.io.keys();
  const height = Math.min(LINES_SHOWN, items.length);
  let chosen = 0;
  let top = 0;
  const draw = (): void => {
    top = Math.min(Math.max(top, chosen - height + 1), chosen);
    const lines = items.slice(top, top + height).map((item, index) => {
      const text = printable(textOf(item)).slice(0, Math.max(10, stderr.columns - 3));
      return top + index === chosen ? context.paintError('cyan', `> ${text}`) : `  ${text}`;
    });
    stderr.write(lines.map((line) => `\u001b[2K${line}\n`).join(''));
  };
  const back = (lines: number): void => stderr.write(`\u001b[${lines}A`);
  stderr.write(`${`${title} (arrow keys, Enter; Escape gives up)`.slice(0, Math.max(10, stderr.columns - 1))}\n`);
  draw();
  const vanish = (): void => {
    back(height + 1);
    stderr.write('\u001b[J');
  };
  for await (const key of keys) {
    if (key === 'cancel') break;
    const item = items[chosen];
    if (key === 'enter' && item !== undefined) {
      vanish();
      return item;
    }
    chosen = Math.min(items.length - 1, Math.max(0, chosen + (key === 'down' ? 1 : key === 'up' ? -1 : 0)));
    back(height);
    draw();
  }
  vanish();
  throw new TwinvolError('NOT_CONFIRMED', 'nothing was chosen');
};
