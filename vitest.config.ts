/**
 * Two projects. `pure` needs nothing but Node; `real` also needs the built command line (built once, before the first
 * test, where a source is newer) and, for test/interop, the field's own NBD clients.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'pure', include: ['test/{unit,property}/**/*.test.ts'], testTimeout: 60_000 } },
      {
        extends: true,
        test: {
          name: 'real',
          include: ['test/{scenario,interop,fault}/**/*.test.ts'],
          globalSetup: ['test/support/build-once.ts'],
          testTimeout: 180_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
