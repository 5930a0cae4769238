/**
 * A directory for one test, removed when the test's scope ends:
 *
 *     await using temporary = await temporaryDirectory();
 *     const store = temporary.path('store');
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type TemporaryDirectory = AsyncDisposable & {
  readonly root: string;
  /** A path in the directory; nothing is made there. */
  path(...names: string[]): string;
};

/** Short, because the path of a unix socket may have 107 bytes only. */
export const temporaryDirectory = async (): Promise<TemporaryDirectory> => {
  const root = await mkdtemp(join(tmpdir(), 'tv-'));
  return {
    root,
    path: (...names) => join(root, ...names),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true, maxRetries: 3 }),
  };
};
