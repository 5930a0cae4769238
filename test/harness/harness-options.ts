/** Options of a harness's command line: `--name VALUE`, or `--name` for those that are on or off. Unknown ones are refused. */
import { parseArgs } from 'node:util';

type Value = number | string | boolean;

const USAGE_STATUS = 64;

/**
 * Ends the process for `--help` (status 0), and for what cannot be read (status 64, with what there is).
 * @param defaults the options with their defaults, which say their types too
 */
export const harnessOptions = <T extends Readonly<Record<string, Value>>>(defaults: T): { readonly [K in keyof T]: Widened<T[K]> } => {
  const options = Object.entries(defaults).map(([name, value]) => `  --${name}${typeof value === 'boolean' ? '' : ` ${String(value)}`}`);
  const page = ['options, with their defaults (a seed is else taken from the clock):', ...options].join('\n');
  if (process.argv.includes('--help')) {
    console.log(page);
    process.exit(0);
  }
  try {
    return optionsOf(defaults);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${page}`);
    process.exit(USAGE_STATUS);
  }
};

const optionsOf = <T extends Readonly<Record<string, Value>>>(defaults: T): { readonly [K in keyof T]: Widened<T[K]> } => {
  const names = Object.entries(defaults);
  const { values } = parseArgs({
    options: Object.fromEntries(names.map(([name, value]) => [name, { type: typeof value === 'boolean' ? 'boolean' : 'string' } as const])),
    strict: true,
  });
  const read = ([name, value]: readonly [string, Value]): readonly [string, Value] => {
    const given = values[name];
    if (given === undefined) return [name, value];
    if (typeof value !== 'number') return [name, given];
    const number = Number(given);
    if (!Number.isSafeInteger(number) || number < 0) throw new Error(`--${name} takes a whole number, not ${String(given)}`);
    return [name, number];
  };
  return Object.fromEntries(names.map(read)) as { readonly [K in keyof T]: Widened<T[K]> };
};

type Widened<V> = V extends number ? number : V extends boolean ? boolean : string;
