/**
 * "Did you mean": the word of a list that is nearest to what was typed. Pure.
 * Nearness is the Damerau-Levenshtein distance (optimal string alignment): insert, drop, change, or swap neighbours.
 */

const distance = (from: string, to: string): number => {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const isSame = from[row - 1] === to[column - 1];
      let best = Math.min((last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, (last[column - 1] ?? 0) + (isSame ? 0 : 1));
      const isSwap = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      if (isSwap) best = Math.min(best, (beforeLast[column - 2] ?? 0) + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
};

/** The nearest of `known`, or null if none is near enough to be meant: at most a third of its letters differ, and at least one may. */
export const nearest = (typed: string, known: readonly string[]): string | null => {
  if (typed.length > 64) return null;
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const word of known) {
    const wordDistance = distance(typed.toLowerCase(), word.toLowerCase());
    if (wordDistance < bestDistance && wordDistance <= Math.max(1, Math.floor(word.length / 3))) {
      best = word;
      bestDistance = wordDistance;
    }
  }
  return best;
};
