/** Which file or directory a path names: the same as before, another one that took its place, or none. */
import fs from 'node:fs';

/** Device and inode, as text; null when nothing is there. Errors are the system's. */
export const fileIdentity = (path: string): string | null => {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? null : `${stat.dev}:${stat.ino}`;
};
