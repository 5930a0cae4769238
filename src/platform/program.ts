/**
 * Finds an installed program. Looks in the places of `PATH` and then in the system's usual ones, because a service's
 * `PATH` often lacks the sbin folders. Only reads the file system; starts nothing.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const USUAL_FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

const isExecutableFile = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
};

/** The folders in which programs are looked for, in order. */
export const programFolders = (): string[] => {
  const fromPath = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...new Set([...fromPath, ...USUAL_FOLDERS])];
};

/** Absolute path of the program called `name`, or null. */
export const findProgram = (name: string): string | null => {
  for (const folder of programFolders()) {
    const path = join(folder, name);
    if (isExecutableFile(path)) return path;
  }
  return null;
};
