/** Arguments and options of the command line, from text to what the engine takes; each throws `USAGE` or `SIZE_INVALID`. */
import { TwinvolError } from '../core/faults.ts';
import { PAIR_STATES, type PairState } from '../core/rows.ts';
import { nearest } from '../core/nearest.ts';
import { parseSize } from '../core/units.ts';
import type { VolumeRef } from '../engine/api.ts';
import { parseDuration } from './duration.ts';

/** A volume's name, or its number: names cannot be digits only, so a number is never a name. */
export const volumeArgument = (text: string): VolumeRef => (/^\d{1,9}$/.test(text) ? Number(text) : text);

export const sizeArgument = (text: string): number => parseSize(text);
export const durationArgument = (text: string): number => parseDuration(text);

/** A parser that takes one word of a list; the list is on it, for completion. */
export type ChoiceParser<Choice extends string> = { (text: string): Choice; readonly choices: readonly Choice[] };

export const choiceArgument = <Choice extends string>(what: string, choices: readonly Choice[]): ChoiceParser<Choice> => {
  const parse = (text: string): Choice => {
    const found = choices.find((choice) => choice === text.toLowerCase());
    if (found !== undefined) return found;
    const near = nearest(text, choices);
    throw new TwinvolError('USAGE', `"${text}" is not a ${what}`, {
      remedy: `${near === null ? '' : `did you mean ${near}? `}it is one of: ${choices.join(', ')}`,
    });
  };
  return Object.assign(parse, { choices });
};

export const stateArgument: ChoiceParser<PairState> = choiceArgument('pair state', PAIR_STATES);

/** A whole number in a range. */
export const numberArgument = (what: string, min: number, max: number): ((text: string) => number) => {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new TwinvolError('USAGE', `"${text}" is not a ${what}`, { remedy: `give a whole number from ${min} to ${max}` });
  };
};

const PACES: Readonly<Record<string, number>> = { slow: 3, medium: 8, fast: 15 };

/** 1 to 15, or slow, medium, fast. */
export const paceArgument = (text: string): number => {
  const pace = PACES[text.toLowerCase()] ?? (/^\d+$/.test(text) ? Number(text) : Number.NaN);
  if (pace >= 1 && pace <= 15) return pace;
  throw new TwinvolError('USAGE', `"${text}" is not a pace`, { remedy: 'give 1 (gives way to hosts most) to 15, or slow, medium, fast' });
};

export const rateArgument = (text: string): number => {
  const rate = text.endsWith('%') ? Number(text.slice(0, -1)) / 100 : Number(text);
  if (text.trim() !== '' && rate >= 0 && rate <= 1) return rate;
  throw new TwinvolError('USAGE', `"${text}" is not a rate`, { remedy: 'give a probability from 0 to 1, or 0% to 100%' });
};

/** `A-B`, sizes: the bytes from A up to, not including, B. `A-`: to the end. */
export const rangeArgument = (text: string): { offset: number; length?: number } => {
  const [from, to, ...rest] = text.split('-');
  if (from === undefined || from === '' || to === undefined || rest.length > 0) {
    throw new TwinvolError('USAGE', `"${text}" is not a range`, { remedy: 'give FROM-TO, such as 1M-2M, or FROM- for all from there on' });
  }
  const offset = parseSize(from);
  if (to === '') return { offset };
  const length = parseSize(to) - offset;
  if (length <= 0) throw new TwinvolError('USAGE', `the range "${text}" is empty`, { remedy: 'give FROM-TO with TO above FROM' });
  return { offset, length };
};

const FLAGS: Readonly<Record<string, boolean>> = { true: true, yes: true, on: true, false: false, no: false, off: false };
export const flagArgument = (text: string): boolean => {
  const flag = FLAGS[text.toLowerCase()];
  if (flag !== undefined) return flag;
  throw new TwinvolError('USAGE', `"${text}" is neither on nor off`, { remedy: 'give on or off' });
};

/** For options that may be repeated. */
export const collect = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];
