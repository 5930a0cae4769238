/** How an error reaches the user: text for people, one JSON document for programs, both on stderr, and the exit status. */
import { TwinvolError } from '../core/faults.ts';
import { printable } from '../core/inquiry-text.ts';
import type { CommandContext } from './command-context.ts';
import { warningsOf } from './consent-prompt.ts';

/** Whatever was thrown, as an error with a code. */
export const asTwinvolError = (error: unknown): TwinvolError => {
  if (error instanceof TwinvolError) return error;
  return new TwinvolError('INTERNAL', error instanceof Error ? error.message : String(error), { cause: error });
};

export const reportError = (context: CommandContext, thrown: unknown): number => {
  const error = asTwinvolError(thrown);
  const exit = error.exitStatus;
  if (context.json) {
    const body = { code: error.code, message: error.message, remedy: error.remedy, details: error.details, exit };
    context.io.stderr.write(`${JSON.stringify({ error: body }, null, 2)}\n`);
    return exit;
  }
  const paint = context.paintError;
  const lines = warningsOf(error).map((line) => `  ${paint('yellow', 'warning:')} ${line}`);
  lines.push(`${paint('red', 'twinvol:')} ${printable(error.message)} ${paint('dim', `[${error.code}]`)}`);
  if (error.remedy !== '') lines.push(`  ${paint('dim', 'remedy:')} ${printable(error.remedy)}`);
  if (error.code === 'INTERNAL' && error.cause instanceof Error && error.cause.stack !== undefined) lines.push(error.cause.stack);
  context.io.stderr.write(`${lines.join('\n')}\n`);
  return exit;
};
