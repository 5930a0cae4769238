/** A directory that only its owner can enter. */
import fs from 'node:fs';

/** Makes the directory (and those above it) if needed, and gives it mode 0700. Errors are the system's. */
export const makePrivateDirectory = async (path: string): Promise<void> => {
  await fs.promises.mkdir(path, { recursive: true, mode: 0o700 });
  await fs.promises.chmod(path, 0o700);
};
