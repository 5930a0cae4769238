/** `/proc/swaps`: the devices and files that are swap space (Linux, proc(5)). Pure parser. */
import { decodeOctal } from './octal.ts';

export type SwapEntry = { readonly path: string; readonly isFile: boolean };
export type SwapTable = { readonly entries: readonly SwapEntry[]; readonly unreadableLines: number };

/** The first line is a heading. A removed swap file keeps its name with ` (deleted)` after it. */
export const parseSwaps = (text: string): SwapTable => {
  const entries: SwapEntry[] = [];
  let unreadableLines = 0;
  for (const line of text.split('\n').slice(1)) {
    if (line.trim() === '') continue;
    const match = /^(\S+)\s+(partition|file)\s+\d+/.exec(line);
    const path = match?.[1];
    if (path === undefined) unreadableLines += 1;
    else entries.push({ path: decodeOctal(path).replace(/ \(deleted\)$/, ''), isFile: match?.[2] === 'file' });
  }
  return { entries, unreadableLines };
};
