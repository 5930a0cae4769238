/** Makes a new store in a directory that is empty or does not exist. */
import { randomUUID } from 'node:crypto';
import { dirname, join, resolve } from 'node:path';
import { TwinvolError } from '../core/faults.ts';
import {
  formatSize,
  isPowerOfTwo,
  PV_BYTES_DEFAULT,
  PV_BYTES_MAX,
  REGION_BYTES_DEFAULT,
  REGION_BYTES_MAX,
  REGION_BYTES_MIN,
} from '../core/units.ts';
import { acquireFileLock } from '../platform/file-lock.ts';
import { type MetadataFiles, realMetadataFiles } from '../platform/metadata-files.ts';
import { makePrivateDirectory } from '../platform/private-directory.ts';
import { DIRECTORIES, isInitName, LOCK_NAME } from './layout.ts';
import { MetadataLog } from './metadata-log.ts';
import { storeFault } from './store-faults.ts';

export type InitOptions = {
  /** Size of a physical region: a power of two, 64 KiB to 64 MiB. Default 1 MiB. */
  readonly regionBytes?: number;
  /** Size of a physical volume's file: a multiple of the region size. Default 64 GiB; it is sparse. */
  readonly pvBytes?: number;
};

/** A physical volume smaller than this many regions would make every volume a heap of pieces. */
const PV_REGIONS_MIN = 16;

const requireGeometry = (regionBytes: number, pvBytes: number): void => {
  const refuse = (message: string, remedy: string): TwinvolError =>
    new TwinvolError('USAGE', message, { remedy, details: { regionBytes, pvBytes } });
  if (!isPowerOfTwo(regionBytes) || regionBytes < REGION_BYTES_MIN || regionBytes > REGION_BYTES_MAX) {
    throw refuse(
      `a region cannot be ${regionBytes} bytes`,
      `give a power of two from ${formatSize(REGION_BYTES_MIN)} to ${formatSize(REGION_BYTES_MAX)}`,
    );
  }
  if (!Number.isSafeInteger(pvBytes) || pvBytes % regionBytes !== 0 || pvBytes < PV_REGIONS_MIN * regionBytes || pvBytes > PV_BYTES_MAX) {
    throw refuse(
      `a physical volume cannot be ${pvBytes} bytes`,
      `give a multiple of the region size, from ${formatSize(PV_REGIONS_MIN * regionBytes)} to ${formatSize(PV_BYTES_MAX)}`,
    );
  }
};

/**
 * Makes a store. It becomes one with the last step (the superblock): what is cut off before can be repeated.
 * @throws TwinvolError USAGE, STORE_EXISTS, STORE_LOCKED, STORE_FULL, STORE_IO
 */
export const initStore = async (
  directory: string,
  options: InitOptions = {},
  files: MetadataFiles = realMetadataFiles,
): Promise<{ readonly uuid: string }> => {
  const { regionBytes = REGION_BYTES_DEFAULT, pvBytes = PV_BYTES_DEFAULT } = options;
  requireGeometry(regionBytes, pvBytes);
  const path = resolve(directory);
  try {
    await requireEmpty(files, path);
    await makePrivateDirectory(path);
    const lock = acquireFileLock(join(path, LOCK_NAME));
    try {
      await requireEmpty(files, path);
      for (const name of DIRECTORIES) await makePrivateDirectory(join(path, name));
      const uuid = randomUUID();
      await MetadataLog.create(files, path, { uuid, regionBytes, pvBytes });
      await files.syncDirectory(dirname(path));
      return { uuid };
    } finally {
      lock.release();
    }
  } catch (error) {
    throw storeFault(error, 'making the store', path);
  }
};

const requireEmpty = async (files: MetadataFiles, directory: string): Promise<void> => {
  const names = await files.list(directory);
  for (const name of DIRECTORIES) {
    if (names.includes(name)) names.push(...(await files.list(join(directory, name))).map((inner) => `${name}/${inner}`));
  }
  const other = names.find((name) => !isInitName(name));
  if (other === undefined) return;
  const what = names.includes('superblock') ? 'is a store already' : `is not empty: it has "${other}"`;
  throw new TwinvolError('STORE_EXISTS', `${directory} ${what}`, { details: { directory } });
};
