/**
 * The main job, shown: a temporary store, a real engine process, the real command line, and our own NBD client.
 *
 * Act 1: two volumes, data, a pair, the initial copy under writes, split, writes on both sides, resync, both legs equal.
 * Act 2: a client still has the split secondary open; the resync is refused with a warning, nothing is overwritten;
 * the client goes, and the resync goes through. Act 3 (demo-host.ts), where there are root and the programs for it: a
 * host with an agent has the secondary mounted. The rest needs no root and no other program. Ends with status 0 only if
 * every comparison held.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { connect, type NbdClient } from '../src/nbd-client/index.ts';
import { actThree } from './demo-host.ts';

const MiB = 1024 * 1024;
const SIZE_BYTES = 256 * MiB;
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const cli = join(root, 'dist', 'src', 'cli', 'main.js');
const store = mkdtempSync(join(tmpdir(), 'twinvol-demo-'));

const say = (text: string): void => console.log(text);
const title = (text: string): void => say(`\n# ${text}`);

/** Ctrl-C ends the step that runs; what was started and mounted is undone all the same (the signal may come twice). */
let isInterrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    isInterrupted = true;
  });
}

type Result = { readonly status: number; readonly stdout: string };

/** Runs a command as a person would, and shows it with all that it says, in its order. */
const twinvol = async (line: string, options: { readonly quiet?: boolean; readonly expect?: number } = {}): Promise<Result> => {
  const shown = line.replaceAll(store, '$STORE');
  if (isInterrupted) throw new Error('interrupted');
  if (options.quiet !== true) say(`$ twinvol ${shown}`);
  const child = spawn(process.execPath, [cli, ...line.split(' ')], {
    env: { ...process.env, TWINVOL_STORE: store },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let both = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
    both += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    both += chunk.toString();
  });
  const status = await new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? 1)));
  const text = both.replaceAll(store, '$STORE').trimEnd();
  if (options.quiet !== true && text !== '') say(text);
  if (isInterrupted) throw new Error('interrupted');
  const expected = options.expect ?? 0;
  if (status !== expected) throw new Error(`twinvol ${shown} ended with ${status}, not ${expected}: ${text}`);
  if (options.quiet !== true && expected !== 0) say(`(exit status ${expected})`);
  return { status, stdout };
};

/** Starts the engine; resolves when it says that it is ready. */
const serve = async (): Promise<ChildProcess> => {
  say('$ twinvol serve --store $STORE');
  // Of a group of its own: Ctrl-C is for the demo, which ends it in order.
  const engine = spawn(process.execPath, [cli, 'serve', '--store', store], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  for await (const line of createInterface({ input: engine.stdout as NodeJS.ReadableStream })) {
    say(line.replaceAll(store, '$STORE'));
    if (line.startsWith('ready')) return engine;
  }
  throw new Error('the engine ended before it was ready');
};

const open = async (volume: string): Promise<NbdClient> => {
  const { stdout } = await twinvol(`uri ${volume}`, { quiet: true });
  return connect(stdout.trim());
};

/** A block whose bytes depend on its place and on a seed. */
const pattern = (bytes: number, seed: number): Buffer => {
  const block = Buffer.alloc(bytes);
  let value = seed * 2654435761;
  for (let at = 0; at < bytes; at += 4) {
    value = (Math.imul(value, 1664525) + 1013904223) >>> 0;
    block.writeUInt32LE(value, at);
  }
  return block;
};

const checksum = async (client: NbdClient): Promise<string> => {
  const hash = createHash('sha256');
  for (let at = 0; at < SIZE_BYTES; at += 8 * MiB) hash.update(await client.read(at, 8 * MiB));
  return hash.digest('hex').slice(0, 32);
};

/** Writes all over the volume until it is told to stop. @returns how many writes were acknowledged */
const writeUntil = async (client: NbdClient, isOver: () => boolean): Promise<number> => {
  let writes = 0;
  const lane = async (seed: number): Promise<void> => {
    for (let turn = 0; !isOver(); turn += 1) {
      const offset = (((turn * 7919 + seed * 104729) % (SIZE_BYTES / 4096)) | 0) * 4096;
      await client.write(offset, pattern(4096, turn * 31 + seed));
      writes += 1;
    }
  };
  await Promise.all([1, 2, 3, 4].map(lane));
  return writes;
};

const compare = async (first: string, second: string, shouldBeEqual: boolean): Promise<void> => {
  const sums: string[] = [];
  for (const volume of [first, second]) {
    const client = await open(volume);
    sums.push(await checksum(client));
    await client.disconnect();
    say(`sha256 of ${volume.padEnd(5)} ${sums.at(-1)}`);
  }
  if ((sums[0] === sums[1]) !== shouldBeEqual) throw new Error(`${first} and ${second} should ${shouldBeEqual ? '' : 'not '}be equal`);
  say(shouldBeEqual ? '-> the legs are equal' : '-> the legs differ, as they should after a split');
};

const actOne = async (): Promise<void> => {
  title('Two volumes; 96 MiB of data on the first');
  await twinvol('volume create db --size 256M');
  await twinvol('volume create copy --size 256M --attribute secondary');
  const host = await open('db');
  for (let at = 0; at < 96 * MiB; at += 4 * MiB) await host.write(at * 2, pattern(4 * MiB, at));

  title('A pair; the initial copy runs while a host keeps writing');
  let isCopying = true;
  const load = writeUntil(host, () => !isCopying);
  await twinvol('pair create db --pace 8 --wait');
  isCopying = false;
  say(`(${await load} writes of 4 KiB were acknowledged meanwhile, each on both legs or ahead of the copy)`);
  await twinvol('pair status');

  title('Split: the copy keeps the image of this moment; both sides are written');
  await twinvol('pair split db');
  await compare('db', 'copy', true);
  await host.write(10 * MiB, pattern(3 * MiB, 1));
  await host.flush();
  const other = await open('copy');
  await other.write(100 * MiB, pattern(2 * MiB, 2));
  await other.disconnect();
  await compare('db', 'copy', false);

  title('Resync: only what was written on either side is copied');
  await twinvol('pair resync db --plan');
  await twinvol('pair resync db');
  await twinvol('pair wait db --state duplex --timeout 60s');
  await twinvol('pair split db');
  await compare('db', 'copy', true);
  await host.disconnect();
};

const actTwo = async (): Promise<void> => {
  title('A forgotten client: somebody still has the split secondary open');
  const forgotten = await open('copy');
  await forgotten.write(200 * MiB, pattern(1 * MiB, 3));
  await twinvol('pair resync db', { expect: 11 });
  const kept = await forgotten.read(200 * MiB, 1 * MiB);
  if (!kept.equals(pattern(1 * MiB, 3))) throw new Error('the secondary was overwritten');
  say('-> refused; what the client wrote is still there');
  await forgotten.disconnect();
  title('It goes away, and the resync goes through');
  await twinvol('pair resync db');
  await twinvol('pair wait db --state duplex --timeout 60s');
  await twinvol('pair verify db');
};

const stop = async (engine: ChildProcess): Promise<void> => {
  if (engine.exitCode !== null) return;
  const ended = new Promise((resolve) => engine.once('exit', resolve));
  engine.kill('SIGTERM');
  await ended;
};

let engine: ChildProcess | null = null;
try {
  title('A store and its engine');
  await twinvol(`init ${store} --pv-size 2G`);
  engine = await serve();
  await actOne();
  await actTwo();
  await actThree({ cli, store, say, title, twinvol });
  title('The end: the engine drains, the store is sound');
  await stop(engine);
  await twinvol(`store check ${store}`);
  say('\nThe demo held every promise that it made.');
} catch (error) {
  console.error(`\ndemo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  if (engine !== null) await stop(engine);
  rmSync(store, { recursive: true, force: true });
}
