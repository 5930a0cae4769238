/**
 * Adds up the JSON results of vitest. Arguments: files. Prints `passed failed skipped`, three numbers; with `--failures`
 * before the files the name of each failed test and the first line of its message instead.
 *
 * A file that is missing or broken, and a run that failed without a failed test (an error outside the tests, a file that
 * could not be loaded), count as one failure each. Plain JavaScript: it runs where nothing could be installed.
 */
import { readFileSync } from 'node:fs';
import { basename, relative } from 'node:path';

const args = process.argv.slice(2);
const isList = args[0] === '--failures';
const files = isList ? args.slice(1) : args;

const unloaded = ({ status, assertionResults }) => status === 'failed' && assertionResults.every((test) => test.status !== 'failed');
const firstLines = (text) => (text ?? '').trim().split('\n').slice(0, 3).join(' | ').slice(0, 400);

const sum = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
for (const file of files) {
  try {
    const result = JSON.parse(readFileSync(file, 'utf8'));
    const notLoaded = result.testResults.filter(unloaded);
    const failed = result.numFailedTests + notLoaded.length;
    sum.passed += result.numPassedTests;
    sum.failed += failed === 0 && !result.success ? 1 : failed;
    sum.skipped += result.numPendingTests + result.numTodoTests;
    for (const { name, message } of notLoaded) failures.push(`${relative('.', name)}: ${firstLines(message)}`);
    for (const { name, assertionResults } of result.testResults) {
      for (const { status, fullName, failureMessages } of assertionResults) {
        if (status === 'failed') failures.push(`${relative('.', name)}: ${fullName}: ${firstLines(failureMessages[0])}`);
      }
    }
    if (failed === 0 && !result.success) failures.push(`${basename(file)}: an error outside the tests`);
  } catch (error) {
    sum.failed += 1;
    failures.push(`${basename(file)}: no results: ${error.message}`);
  }
}
if (isList) for (const line of failures) console.log(`failed: ${line}`);
else console.log(`${sum.passed} ${sum.failed} ${sum.skipped}`);
