/**
 * Where a worker's file is: the compiled one when this file runs compiled, the source when this file runs as source
 * (under tsx or vitest). The compiler does not rewrite URLs of workers, so this is the one place that knows.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { TwinvolError } from '../core/faults.ts';

export type WorkerFile = { readonly filename: string; readonly execArgv: string[] };

const here = fileURLToPath(import.meta.url);
const rootFolder = dirname(dirname(here));
const isSource = here.endsWith('.ts');

/** Options for Piscina or `Worker`. `name`: below src, without its ending, such as `data/lane-worker`. */
export const workerFile = (name: string): WorkerFile => {
  const filename = join(rootFolder, `${name}${isSource ? '.ts' : '.js'}`);
  if (!existsSync(filename)) {
    throw new TwinvolError('INTERNAL', `The worker file ${filename} is missing.`, { remedy: 'install the package again, or build it' });
  }
  if (!isSource) return { filename, execArgv: [] };
  const loader = createRequire(import.meta.url).resolve('tsx');
  return { filename, execArgv: ['--import', pathToFileURL(loader).href] };
};
