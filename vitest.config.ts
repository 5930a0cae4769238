/**
 * Three projects. `pure` and `property` need nothing but Node; `real` also needs the built command line (built once, before
 * the first test, where a source is newer) and, for test/interop, the field's own NBD clients.
 *
 * In CI, on a machine that may lose its processors to others for seconds, a test is tried again when it fails; the report
 * says `retry` then. Property tests are not: another seed would hide what the first one found.
 */
import { defineConfig } from 'vitest/config';

const retry = process.env.CI === undefined ? 0 : 2;

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'pure', include: ['test/unit/**/*.test.ts'], testTimeout: 60_000, retry } },
      { extends: true, test: { name: 'property', include: ['test/property/**/*.test.ts'], testTimeout: 60_000 } },
      {
        extends: true,
        test: {
          name: 'real',
          include: ['test/{scenario,interop,fault}/**/*.test.ts'],
          globalSetup: ['test/support/build-once.ts'],
          testTimeout: 180_000,
          retry,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
