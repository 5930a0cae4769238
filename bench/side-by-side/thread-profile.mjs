/**
 * Loaded with `node --import` into the engine and each of its threads (a thread inherits the options of its process): takes
 * a CPU profile of the thread while a file `on` is in the directory, and writes it when that is gone. Plain JavaScript,
 * because the engine runs without a loader for TypeScript.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

const LOOK_MS = 100;
const SAMPLE_US = 250;
const directory = process.env['TWINVOL_BENCH_PROFILE'] ?? '';

let session = null;
let isBusy = false;
let count = 0;

const look = async () => {
  const isOn = existsSync(join(directory, 'on'));
  if (isOn && session === null) {
    session = new Session();
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: SAMPLE_US });
    await session.post('Profiler.start');
  } else if (!isOn && session !== null) {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    session = null;
    count += 1;
    writeFileSync(join(directory, `thread-${threadId}-${count}.cpuprofile`), JSON.stringify(profile));
  }
};

if (directory !== '') {
  setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    void look().finally(() => {
      isBusy = false;
    });
  }, LOOK_MS).unref();
}
