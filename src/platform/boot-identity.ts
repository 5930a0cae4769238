/**
 * Which run of the machine this is: what was only in the page cache has survived exactly while it stays the same.
 */
import fs from 'node:fs';
import { systemCode } from '../core/faults.ts';

const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id';

/** Null where the platform does not say. */
export const bootIdentity = (): string | null => readText(BOOT_ID_PATH);

/** The identity that was kept in a file; null when there is none that can be read. */
export const keptBootIdentity = (path: string): string | null => readText(path);

/** Keeps it in a file. It need not be durable: when the machine goes, it is another one anyway. False: there was no room. */
export const keepBootIdentity = (path: string, identity: string): boolean => {
  try {
    fs.writeFileSync(path, `${identity}\n`, { mode: 0o600 });
    return true;
  } catch (error) {
    if (['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'].includes(systemCode(error))) return false;
    throw error;
  }
};

const readText = (path: string): string | null => {
  try {
    const text = fs.readFileSync(path, 'utf8').trim();
    return text === '' ? null : text;
  } catch {
    return null;
  }
};
