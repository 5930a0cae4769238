/**
 * Mounts, loop devices and namespaces belong to the machine, not to a test: a mount namespace that one test makes copies
 * every mount there is and keeps the devices of the others in use. So files of tests that mount go one after the other.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { TwinvolError } from '../../src/core/faults.ts';
import type { FileLock } from '../../src/platform/file-lock.ts';
import { acquireFileLock } from '../../src/platform/file-lock.ts';

const LOCK_FILE = join(tmpdir(), `twinvol-test-mounts-${process.getuid?.() ?? 0}.lock`);
const WAIT_MS = 600_000;

const acquireIfFree = (): FileLock | null => {
  try {
    return acquireFileLock(LOCK_FILE);
  } catch (error) {
    if (error instanceof TwinvolError && error.code === 'STORE_LOCKED') return null;
    throw error;
  }
};

/** Called at the top of a file of tests: they begin when no other such file runs. */
export const soleMounts = (): void => {
  let lock: FileLock | null = null;
  beforeAll(async () => {
    for (lock = acquireIfFree(); lock === null; lock = acquireIfFree()) await new Promise((resolve) => setTimeout(resolve, 100));
  }, WAIT_MS);
  afterAll(() => lock?.release());
};
