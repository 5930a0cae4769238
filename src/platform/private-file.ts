/** Reads small files that hold secrets, certificates or settings, whole. */
import { readFileSync } from 'node:fs';
import { systemCode, TwinvolError } from '../core/faults.ts';

/**
 * The file as text; null if there is none.
 * @throws TwinvolError `STORE_IO` if it is there and cannot be read
 */
export const readPrivateFile = (path: string): string | null => {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw new TwinvolError('STORE_IO', `cannot read ${path}: ${systemCode(error)}`, { cause: error, details: { path } });
  }
};
