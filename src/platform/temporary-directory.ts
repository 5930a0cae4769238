/** A directory of our own under the system's place for temporary files, and its end. */
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new directory that only its owner can enter (mode 0700). Errors are the system's. */
export const makeTemporaryDirectory = (prefix: string): Promise<string> => fs.promises.mkdtemp(join(tmpdir(), prefix));

/** Removes a directory with all that is in it. One that is not there is no error. */
export const removeDirectory = (path: string): Promise<void> => fs.promises.rm(path, { recursive: true, force: true });
