/**
 * The field's servers, each as its own documentation runs it: one leg behind qemu-nbd, nbdkit and nbd-server, two legs
 * behind qemu-storage-daemon's quorum and its blockdev-mirror in write-blocking mode. Caching is the file system's for
 * all, which is what each does by itself.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { findProgram } from '../../src/platform/program.ts';
import { type Cpus, Daemon, OwnedProcess, runProgram } from './owned-process.ts';
import { Qmp } from './qmp.ts';
import type { Workplace } from './workplace.ts';

export const SINGLE_PEERS = ['qemu-nbd threads', 'qemu-nbd io_uring', 'nbdkit file', 'nbd-server'] as const;
export const PAIR_PEERS = ['qsd quorum', 'qsd mirror'] as const;
export type PeerName = (typeof SINGLE_PEERS)[number] | (typeof PAIR_PEERS)[number];

export type PeerServer = AsyncDisposable & { readonly name: PeerName; readonly uri: string };

const PROGRAMS: Readonly<Record<PeerName, string>> = {
  'qemu-nbd threads': 'qemu-nbd',
  'qemu-nbd io_uring': 'qemu-nbd',
  'nbdkit file': 'nbdkit',
  'nbd-server': 'nbd-server',
  'qsd quorum': 'qemu-storage-daemon',
  'qsd mirror': 'qemu-storage-daemon',
};
const CONNECTIONS = '16';

const versionOf = async (program: string): Promise<string> => {
  const { output } = await runProgram(program, [program === 'nbd-server' ? '-V' : '--version'], 10_000).catch(() => ({
    output: 'unknown',
  }));
  return output.split('\n')[0] ?? 'unknown';
};

/** The peers that are installed, with their versions. */
export const availablePeers = async (): Promise<ReadonlyMap<PeerName, string>> => {
  const found = new Map<PeerName, string>();
  for (const name of [...SINGLE_PEERS, ...PAIR_PEERS])
    if (findProgram(PROGRAMS[name]) !== null) found.set(name, await versionOf(PROGRAMS[name]));
  return found;
};

/** For names of files: one server of each kind runs at a time, pinned or not. */
const keyOf = (name: PeerName, cpus: Cpus): string => `${name.replaceAll(/[^a-z]/g, '')}${cpus === null ? '' : 'p'}`;

/** A TCP port that is free right now: nbd-server insists on one beside its unix socket. */
const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const probe = createServer().once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });

const nbdServerConfig = async (path: string, socket: string, file: string): Promise<void> => {
  const generic = `[generic]\nunixsock = ${socket}\nlistenaddr = 127.0.0.1\nport = ${await freePort()}\nallowlist = true\n`;
  writeFileSync(path, `${generic}[bench]\nexportname = ${file}\nflush = true\nfua = true\ntrim = true\nmulticonn = true\n`);
};

/** Command line of a server with one leg that stays in the foreground. */
const singleCommand = (name: PeerName, socket: string, file: string): readonly string[] => {
  switch (name) {
    case 'qemu-nbd threads':
    case 'qemu-nbd io_uring':
      return [
        'qemu-nbd',
        '-f',
        'raw',
        '-t',
        `--shared=${CONNECTIONS}`,
        `--aio=${name.slice('qemu-nbd '.length)}`,
        '-k',
        socket,
        '-x',
        'bench',
        file,
      ];
    case 'nbdkit file':
      return ['nbdkit', '-f', '-U', socket, 'file', file];
    case 'nbd-server':
    case 'qsd quorum':
    case 'qsd mirror':
      throw new Error(`${name} is started in another way`);
  }
};

const listening = async (server: OwnedProcess, socket: string): Promise<void> => {
  try {
    await server.until(() => existsSync(socket), 'opened its socket');
  } catch (error) {
    await server.end();
    throw error;
  }
};

/** It goes to the background by itself, and forks for each connection. */
const startNbdServer = async (place: Workplace, key: string, file: string, cpus: Cpus): Promise<PeerServer> => {
  const [config, socket, pidFile] = [place.path(`${key}.conf`), place.path(`${key}.sock`), place.path(`${key}.pid`)];
  await nbdServerConfig(config, socket, file);
  const server = await Daemon.start('nbd-server', ['-C', config, '-p', pidFile], pidFile, { cpus });
  return { name: 'nbd-server', uri: `nbd+unix:///bench?socket=${socket}`, [Symbol.asyncDispose]: () => server.end() };
};

/** @throws Error when it does not start (an old kernel without io_uring, say) */
export const startSingle = async (name: PeerName, place: Workplace, file: string, cpus: Cpus): Promise<PeerServer> => {
  const key = keyOf(name, cpus);
  if (name === 'nbd-server') return startNbdServer(place, key, file, cpus);
  const socket = place.path(`${key}.sock`);
  const [command = '', ...args] = singleCommand(name, socket, file);
  const server = new OwnedProcess(command, args, { cpus });
  await listening(server, socket);
  return { name, uri: `nbd+unix:///${name === 'nbdkit file' ? '' : 'bench'}?socket=${socket}`, [Symbol.asyncDispose]: () => server.end() };
};

/** How qemu-storage-daemon does the I/O of its files. */
export type QsdAio = 'threads' | 'io_uring';

/**
 * Quorum writes both children and needs both to have succeeded; it reads the first one only (`fifo`), which is quicker
 * than comparing both and what a mirror does.
 */
const quorum = (first: string, second: string): string[] => [
  ...fileNodes(first, second),
  '--blockdev',
  'driver=quorum,node-name=top,vote-threshold=1,read-pattern=fifo,children.0=leg0,children.1=leg1',
];

let aio: QsdAio = 'threads';

/** `auto` takes io_uring, the quicker of the two here, where the kernel lets it be used. */
export const chooseQsdAio = async (wanted: QsdAio | 'auto', say: (text: string) => void): Promise<void> => {
  if (wanted !== 'auto') {
    aio = wanted;
    return;
  }
  const probe = ['--blockdev', `driver=file,node-name=probe,filename=${import.meta.filename},read-only=on,auto-read-only=on,aio=io_uring`];
  const server = new OwnedProcess('qemu-storage-daemon', probe);
  await new Promise((resolve) => setTimeout(resolve, 500));
  aio = server.isOver ? 'threads' : 'io_uring';
  await server.end();
  say(`qemu-storage-daemon does its I/O with ${aio}`);
};

const fileNodes = (first: string, second: string): string[] =>
  [first, second].flatMap((file, index) => ['--blockdev', `driver=file,node-name=leg${index},filename=${file},aio=${aio}`]);

const startMirror = async (monitor: string): Promise<void> => {
  using qmp = await Qmp.open(monitor);
  await qmp.execute('blockdev-mirror', { 'job-id': 'mirror', device: 'leg0', target: 'leg1', sync: 'full', 'copy-mode': 'write-blocking' });
  await qmp.event('BLOCK_JOB_READY');
};

export const startPair = async (name: PeerName, place: Workplace, files: readonly [string, string], cpus: Cpus): Promise<PeerServer> => {
  const key = keyOf(name, cpus);
  const [socket, monitor] = [place.path(`${key}.sock`), place.path(`${key}.qmp`)];
  const isMirror = name === 'qsd mirror';
  const server = new OwnedProcess(
    'qemu-storage-daemon',
    [
      ...(isMirror ? fileNodes(...files) : quorum(...files)),
      '--nbd-server',
      `addr.type=unix,addr.path=${socket},max-connections=${CONNECTIONS}`,
      '--export',
      `type=nbd,id=bench,node-name=${isMirror ? 'leg0' : 'top'},name=bench,writable=on`,
      '--chardev',
      `socket,id=monitor,path=${monitor},server=on,wait=off`,
      '--monitor',
      'chardev=monitor',
    ],
    { cpus },
  );
  await listening(server, socket);
  try {
    await server.until(() => existsSync(monitor), 'opened its monitor');
    if (isMirror) await startMirror(monitor);
  } catch (error) {
    await server.end();
    throw error;
  }
  return { name, uri: `nbd+unix:///bench?socket=${socket}`, [Symbol.asyncDispose]: () => server.end() };
};
