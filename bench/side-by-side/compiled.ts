/** The benchmark's own programs in C: compiled where they are used, and left out where there is no compiler. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findProgram } from '../../src/platform/program.ts';
import { runProgram } from './owned-process.ts';
import type { Workplace } from './workplace.ts';

const COMPILE_MS_MAX = 60_000;

/** @param name of the source in this folder, without its ending. @returns the program's path, or null without a compiler */
export const compiledProgram = async (place: Workplace, name: string): Promise<string | null> => {
  const program = place.path(name);
  if (existsSync(program)) return program;
  if (findProgram('cc') === null) return null;
  await runProgram('cc', ['-O2', '-pthread', '-o', program, join(import.meta.dirname, `${name}.c`)], COMPILE_MS_MAX);
  return program;
};
