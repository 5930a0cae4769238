/**
 * The third act of the demo: a host that really has the split secondary mounted (libnbd's nbdfuse, a loop device, ext4),
 * and an agent that says so when it is asked. Needs root and those programs; says what is missing and leaves the act out
 * otherwise. Everything that it starts, mounts or attaches is undone, also when it fails.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '../src/platform/program.ts';

export type Stage = {
  /** Path of the built command line. */
  readonly cli: string;
  readonly store: string;
  readonly say: (text: string) => void;
  readonly title: (text: string) => void;
  readonly twinvol: (
    line: string,
    options?: { readonly quiet?: boolean; readonly expect?: number },
  ) => Promise<{ readonly status: number; readonly stdout: string }>;
};

const PROGRAMS = ['nbdfuse', 'fusermount3', 'losetup', 'mkfs.ext4', 'mount', 'umount', 'ss'];

/** Why the act cannot be played here, or null. */
const obstacle = (): string | null => {
  if (process.getuid?.() !== 0) return 'it needs root, for loop devices and mounts';
  const missing = PROGRAMS.filter((name) => findProgram(name) === null);
  if (missing.length > 0) return `not installed: ${missing.join(', ')} (scripts/install-clients installs them)`;
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  return spawnSync(findProgram('losetup') ?? 'losetup', ['-f']).status === 0 ? null : 'there are no loop devices';
};

const must = (program: string, ...args: readonly string[]): string => {
  const { status, stdout, stderr } = spawnSync(findProgram(program) ?? program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${stderr}`);
  return stdout.trim();
};

const until = async (isSo: () => boolean | Promise<boolean>, what: string): Promise<void> => {
  for (const end = performance.now() + 15_000; !(await isSo()); await new Promise((again) => setTimeout(again, 50))) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
  }
};

const end = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
};

/** Enrols this machine as a host, and runs its agent. */
const startAgent = async ({ cli, store, twinvol, say }: Stage, folder: string): Promise<ChildProcess> => {
  say('$ twinvol host add web1');
  const { token } = JSON.parse((await twinvol('host add web1 --json', { quiet: true })).stdout) as { token: string };
  say('host web1 added\ntoken (shown once, goes into a file that only the agent reads)');
  const tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, token, { mode: 0o600 });
  say('$ twinvol agent --host web1 --token-file FILE --control unix:$STORE/agents.sock &');
  const place = ['--host', 'web1', '--token-file', tokenFile, '--control', `unix:${join(store, 'agents.sock')}`];
  const agent = spawn(process.execPath, [cli, 'agent', ...place, '--scope', 'namespace'], { stdio: 'ignore', detached: true });
  await until(
    async () => (await twinvol('host list --json', { quiet: true })).stdout.includes('"isPrivileged": true'),
    'the agent is connected',
  );
  return agent;
};

type Mounted = { readonly file: string; unmount(): Promise<void> };

/** What a host does that uses the volume: nbdfuse, a loop device, a file system, a file. */
const mountCopy = async ({ twinvol, say, store }: Stage, folder: string): Promise<Mounted> => {
  const uri = (await twinvol('uri copy', { quiet: true })).stdout.trim();
  const [fuse, mount] = [join(folder, 'fuse'), join(folder, 'mnt')];
  for (const path of [fuse, mount]) mkdirSync(path);
  const undo: Array<() => unknown> = [];
  const unmount = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    say(`$ nbdfuse fuse '${uri.replaceAll(store, '$STORE')}' &`);
    const shown = spawn(findProgram('nbdfuse') ?? 'nbdfuse', [fuse, uri], { stdio: 'ignore', detached: true });
    const gone = new Promise((resolve) => shown.once('exit', resolve));
    undo.push(async () => {
      spawnSync(findProgram('fusermount3') ?? 'fusermount3', ['-u', fuse]);
      await gone;
    });
    const image = join(fuse, 'nbd');
    await until(() => (statSync(image, { throwIfNoEntry: false })?.size ?? 0) > 0, 'nbdfuse shows the volume');
    const loop = must('losetup', '--find', '--show', image);
    undo.push(() => must('losetup', '-d', loop));
    must('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', loop);
    must('mount', loop, mount);
    undo.push(() => must('umount', mount));
    say(`$ losetup --find --show fuse/nbd; mkfs.ext4 ${loop}; mount ${loop} mnt; echo precious > mnt/file`);
    const file = join(mount, 'file');
    writeFileSync(file, 'precious\n', { flush: true });
    return { file, unmount };
  } catch (error) {
    await unmount();
    throw error;
  }
};

export const actThree = async (stage: Stage): Promise<void> => {
  const { say, title, twinvol } = stage;
  title('A host has the split secondary mounted, and forgot about it');
  const why = obstacle();
  if (why !== null) {
    say(`(this act is left out: ${why})`);
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'twinvol-host-'));
  let agent: ChildProcess | null = null;
  let mounted: Mounted | null = null;
  try {
    await twinvol('pair split db');
    agent = await startAgent(stage, folder);
    mounted = await mountCopy(stage, folder);
    await twinvol('pair resync db', { expect: 11 });
    if (readFileSync(mounted.file, 'utf8') !== 'precious\n') throw new Error('the file on the secondary was touched');
    say(`$ cat mnt/file\n${readFileSync(mounted.file, 'utf8').trim()}\n-> refused; the file is untouched, and the host goes on using it`);
    title('It unmounts, and the resync goes through');
    await mounted.unmount();
    const isFree = (): Promise<boolean> =>
      twinvol('inquiry copy --json', { quiet: true }).then(
        () => true,
        () => false,
      );
    await until(isFree, 'the host has let go of the volume');
    await twinvol('pair resync db');
    await twinvol('pair wait db --state duplex --timeout 60s');
    await twinvol('pair verify db');
    const { stdout } = await twinvol('audit --json', { quiet: true });
    const last = (JSON.parse(stdout) as ReadonlyArray<{ readonly seq: number }>).at(-12)?.seq ?? 0;
    title('What was asked and decided is on record');
    await twinvol(`audit --since ${last}`);
  } finally {
    await mounted?.unmount();
    if (agent !== null) await end(agent);
    rmSync(folder, { recursive: true, force: true });
  }
};
