/**
 * Adds up the JSON results of vitest. Arguments: files. Prints `passed failed skipped`, three numbers.
 *
 * A file that is missing or broken, and a run that failed without a failed test (an error outside the tests, a file that
 * could not be loaded), count as one failure each. Plain JavaScript: it runs where nothing could be installed.
 */
import { readFileSync } from 'node:fs';

const sum = { passed: 0, failed: 0, skipped: 0 };
for (const file of process.argv.slice(2)) {
  try {
    const result = JSON.parse(readFileSync(file, 'utf8'));
    const unloaded = result.testResults.filter(
      ({ status, assertionResults }) => status === 'failed' && assertionResults.every(({ status: one }) => one !== 'failed'),
    );
    const failed = result.numFailedTests + unloaded.length;
    sum.passed += result.numPassedTests;
    sum.failed += failed === 0 && !result.success ? 1 : failed;
    sum.skipped += result.numPendingTests + result.numTodoTests;
  } catch {
    sum.failed += 1;
  }
}
console.log(`${sum.passed} ${sum.failed} ${sum.skipped}`);
