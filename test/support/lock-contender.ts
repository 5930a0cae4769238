/**
 * A process that contends for a lock, for the lock's conformance suite. Arguments: what to do, the lock's path, rounds.
 *
 * `hold`: takes the lock, prints `held`, and waits to be killed. `contend`: takes and releases the lock many times,
 * checks each time that it is alone (a file made with O_EXCL), and prints how often it had it. `abandon`: the same, but
 * every third time leaves the lock as a process leaves it that dies: with an owner that lives no more.
 */
import { closeSync, openSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ownerPathOf } from '../../native-free/file-lock.ts';
import { TwinvolError } from '../../src/core/faults.ts';
import { acquireFileLock, type FileLock } from '../../src/platform/file-lock.ts';

const [, , task, path = '', rounds = '0'] = process.argv;

/** Null when somebody else has it. */
const tryAcquire = (): FileLock | null => {
  try {
    return acquireFileLock(path);
  } catch (error) {
    if (error instanceof TwinvolError && error.code === 'STORE_LOCKED') return null;
    throw error;
  }
};

/** Gives the owner file a past start time, in one step. The lock object is not used again. */
const abandon = (): void => {
  const ownerPath = ownerPathOf(path);
  const owner = JSON.parse(readFileSync(ownerPath, 'utf8')) as object;
  const made = `${path}.dead-${process.pid}`;
  writeFileSync(made, JSON.stringify({ ...owner, startTicks: '1' }));
  renameSync(made, ownerPath);
};

const contend = async (abandons: boolean): Promise<void> => {
  let held = 0;
  for (let round = 0; round < Number(rounds); round++) {
    const lock = tryAcquire();
    if (lock === null) {
      await sleep(Math.random() * 2);
      continue;
    }
    held += 1;
    const alone = `${path}-alone`;
    closeSync(openSync(alone, 'wx'));
    if (round % 2 === 0) await sleep(1);
    unlinkSync(alone);
    if (abandons && held % 3 === 0) abandon();
    else lock.release();
  }
  console.log(held);
};

if (task === 'hold') {
  acquireFileLock(path);
  console.log('held');
  setInterval(() => undefined, 60_000);
} else {
  await contend(task === 'abandon');
}
