/**
 * Where a worker's file is: the compiled one when this file runs compiled, the source when this file runs as source
 * (under tsx or vitest). The compiler does not rewrite URLs of workers, so this is the one place that knows.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TwinvolError } from '../core/faults.ts';

export type WorkerFile = { readonly filename: string; readonly execArgv: string[] };

const here = fileURLToPath(import.meta.url);
const rootFolder = dirname(dirname(here));
const isSource = here.endsWith('.ts');

/**
 * Arguments for Node that let a thread or process import TypeScript. tsx is a tool of development, so only a source tree
 * has it. `--import tsx` would not do: in a thread of Node 20 it hooks `require` only.
 */
const sourceLoader = (): string[] => {
  const tsx = import.meta.resolve('tsx/esm/api');
  return ['--import', `data:text/javascript,${encodeURIComponent(`import { register } from ${JSON.stringify(tsx)}; register();`)}`];
};

/** Options for Piscina or a `Worker`. `name`: below src, without its ending, such as `data/lane-worker`. */
export const workerFile = (name: string): WorkerFile => {
  const filename = join(rootFolder, `${name}${isSource ? '.ts' : '.js'}`);
  if (!existsSync(filename)) {
    throw new TwinvolError('INTERNAL', `The worker file ${filename} is missing.`, { remedy: 'install the package again, or build it' });
  }
  return { filename, execArgv: isSource ? sourceLoader() : [] };
};
